import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from metrics.mask_metrics import dice, hd95_mm, iou, precision, recall
from metrics.metric_handler import MASK_METRICS

SPACING = (1.0, 1.5, 3.0)
EMPTY = np.zeros((10, 12, 8), bool)
CUBE = EMPTY.copy()
CUBE[2:6, 3:7, 1:5] = True
SHIFTED = np.roll(CUBE, 2, axis=0)


def test_a_perfect_prediction():
    values = {name: metric.function(CUBE, CUBE, SPACING) for name, metric in MASK_METRICS.items()}
    assert values == {"dice": 1, "iou": 1, "precision": 1, "recall": 1, "hd95_mm": 0}


def test_both_empty_as_documented():
    values = {name: metric.function(EMPTY, EMPTY, SPACING) for name, metric in MASK_METRICS.items()}
    assert values == {"dice": 1, "iou": 1, "precision": 1, "recall": 1, "hd95_mm": 0}


@pytest.mark.parametrize("pair", [(EMPTY, CUBE), (CUBE, EMPTY)])
def test_one_empty_as_documented(pair):
    values = {name: metric.function(*pair, SPACING) for name, metric in MASK_METRICS.items()}
    diagonal = np.sqrt((10 * 1.0) ** 2 + (12 * 1.5) ** 2 + (8 * 3.0) ** 2)
    assert values == {"dice": 0, "iou": 0, "precision": 0, "recall": 0, "hd95_mm": pytest.approx(diagonal)}


def test_by_hand():
    assert dice(SHIFTED, CUBE, SPACING) == 0.5
    assert iou(SHIFTED, CUBE, SPACING) == pytest.approx(1 / 3)
    half = CUBE.copy()
    half[4:] = False
    assert precision(half, CUBE, SPACING) == 1 and recall(half, CUBE, SPACING) == 0.5
    assert precision(CUBE, half, SPACING) == 0.5 and recall(CUBE, half, SPACING) == 1
    assert hd95_mm(SHIFTED, CUBE, SPACING) == pytest.approx(2.0)
    single, other = EMPTY.copy(), EMPTY.copy()
    single[1, 1, 1], other[1, 3, 2] = True, True
    assert hd95_mm(single, other, SPACING) == pytest.approx(np.hypot(3.0, 3.0))


def surface_distances(first, second):
    def rim(mask):
        return mask & ~binary_erosion(mask)

    away = distance_transform_edt(~rim(second), sampling=SPACING)
    return away[rim(first)]


@pytest.mark.parametrize("seed", range(10))
def test_hd95_against_scipy_on_random_masks(seed):
    """Masks that touch the border, too: there the surface is seen as well."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(6, 20, 3)
    first, second = rng.random(shape) < 0.2, rng.random(shape) < 0.2
    padded = [np.pad(mask, 1) for mask in (first, second)]
    expected = max(np.percentile(surface_distances(*padded), 95), np.percentile(surface_distances(*padded[::-1]), 95))
    assert hd95_mm(first, second, SPACING) == pytest.approx(expected, abs=1e-4)
