import time

import numpy as np
import pytest

from metrics.heatmap_metrics import HEATMAP_METRICS, HeatmapPair, spine_in_heatmap
from utils.geometry.boxes import mask_box

SPACING = (2.0, 2.0, 2.0)
MASK = np.zeros((16, 16, 32), bool)
MASK[4:10, 5:11, 8:28] = True
REFERENCE = MASK.astype(np.float32)
NOTHING = np.zeros_like(REFERENCE)


def measure(prediction, reference=REFERENCE, mask=MASK):
    return HEATMAP_METRICS.measure(prediction, reference, mask=mask, spacing_mm=SPACING)


def box_in(heatmap):
    return HeatmapPair(heatmap, REFERENCE, MASK, SPACING).predicted_box


def test_a_perfect_prediction():
    assert measure(REFERENCE) == {
        "mae": 0,
        "rmse": 0,
        "r2": 1,
        "box_iou": 1,
        "spine_in_box": 1,
        "box_centre_error_mm": 0,
    }


def test_an_empty_prediction_as_documented():
    values = measure(NOTHING)
    assert (values["box_iou"], values["spine_in_box"]) == (0, 0)
    assert values["box_centre_error_mm"] == pytest.approx(2 * np.sqrt(16**2 + 16**2 + 32**2))
    assert values["r2"] < 0


def test_no_spine_as_documented():
    found = measure(REFERENCE, NOTHING, NOTHING > 0)
    assert (found["box_iou"], found["spine_in_box"], found["r2"]) == (0, 1, 0)
    none = measure(NOTHING, NOTHING, NOTHING > 0)
    assert (none["box_iou"], none["spine_in_box"], none["box_centre_error_mm"], none["r2"]) == (1, 1, 0, 1)


def test_by_hand():
    prediction = NOTHING.copy()
    prediction[4:10, 5:11, 12:32] = 0.8
    values = measure(prediction)
    assert values["box_iou"] == pytest.approx(16 / 24)
    assert values["spine_in_box"] == pytest.approx(16 / 20)
    assert values["box_centre_error_mm"] == pytest.approx(8)
    size, voxels = 6 * 6, MASK.size
    assert values["mae"] == pytest.approx(size * (4 * 1 + 16 * 0.2 + 4 * 0.8) / voxels)
    squares = size * (4 + 16 * 0.04 + 4 * 0.64)
    assert values["rmse"] == pytest.approx(np.sqrt(squares / voxels))
    share = 20 * size / voxels  # of ones among the reference's zeros
    assert values["r2"] == pytest.approx(1 - squares / voxels / (share * (1 - share)))


def test_the_spine_is_what_reaches_0_3():
    assert box_in(REFERENCE * np.float32(0.3)).slices == mask_box(MASK).slices
    assert box_in(REFERENCE * np.float32(0.299)) is None


def test_components_of_a_tenth_of_the_largest_are_parts_and_smaller_ones_are_noise():
    heatmap = REFERENCE.copy()  # 720 voxels
    heatmap[12:, :6, :3] = 0.9  # 72
    assert box_in(heatmap).slices == (slice(4, 16), slice(0, 11), slice(0, 28))
    heatmap[12, 0, 0] = 0
    assert box_in(heatmap).slices == mask_box(MASK).slices


def test_a_faint_bridge_joins_nothing_to_the_spine():
    """A hip joint is half as likely a spine as the spine; what is faint beside the spine is part of it."""
    heatmap = NOTHING.copy()
    heatmap[1:4, 4:10, 4:28] = 0.9
    heatmap[13:16, 5:9, 4:10] = 0.8  # 24 mm aside, more than a tenth of the spine's voxels
    heatmap[4:13, 5:9, 6:8] = 0.4
    heatmap[0, 6, 27:31] = 0.35
    found = HeatmapPair(heatmap, REFERENCE, MASK, (4.0, 4.0, 4.0)).predicted_box
    assert found.slices == (slice(0, 6), slice(4, 10), slice(4, 30))  # with two voxels of the bridge and of the end


def test_thousands_of_specks_take_no_minutes():
    """As a localiser leaves them that has hardly been trained."""
    heatmap = np.zeros((64, 64, 128), np.float32)
    heatmap[::2, ::2, ::2] = 1
    started = time.monotonic()
    assert spine_in_heatmap(heatmap, (4.0, 4.0, 4.0)).mask.any()
    assert time.monotonic() - started < 20
