import numpy as np
import pytest

from metrics.heatmap_metrics import heatmap_box, measure_heatmaps
from utils.boxes import mask_box

SPACING = (2.0, 2.0, 2.0)
MASK = np.zeros((16, 16, 32), bool)
MASK[4:10, 5:11, 8:28] = True
TARGET = MASK.astype(np.float32)
NOTHING = np.zeros_like(TARGET)


def measure(prediction, target=TARGET, mask=MASK):
    return measure_heatmaps(prediction, target, mask, SPACING)


def test_a_perfect_prediction():
    assert measure(TARGET) == {
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
    found = measure(TARGET, NOTHING, NOTHING > 0)
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
    assert values["rmse"] == pytest.approx(np.sqrt(size * (4 + 16 * 0.04 + 4 * 0.64) / voxels))


def test_small_blobs_are_noise_and_large_ones_are_parts():
    heatmap = TARGET.copy()
    heatmap[0, 0, 0] = 0.9
    assert heatmap_box(heatmap) is not None
    np.testing.assert_array_equal(heatmap_box(heatmap).start, mask_box(MASK).start)
    heatmap[4:10, 5:11, 17:19] = 0  # the spine in two parts
    np.testing.assert_array_equal(heatmap_box(heatmap).stop, mask_box(MASK).stop)
