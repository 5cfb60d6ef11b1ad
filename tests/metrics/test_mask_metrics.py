import numpy as np
import pytest

from metrics.mask_metrics import dice, hd95_mm, iou, measure_masks, precision, recall, volume_difference_ml
from metrics.metric_handler import MASK_METRICS

SPACING = (1.0, 1.5, 3.0)
EMPTY = np.zeros((10, 12, 8), bool)
CUBE = EMPTY.copy()
CUBE[2:6, 3:7, 1:5] = True
SHIFTED = np.roll(CUBE, 2, axis=0)


def test_all_metrics_of_the_table_are_measured_in_one_go():
    assert list(measure_masks(SHIFTED, CUBE, SPACING)) == list(MASK_METRICS)


@pytest.mark.parametrize("mask", [CUBE, EMPTY], ids=["cube", "both empty"])
def test_a_perfect_prediction(mask):
    assert measure_masks(mask, mask, SPACING) == {
        **dict.fromkeys(("dice", "iou", "precision", "recall", "surface_dice_1mm", "surface_dice_3mm"), 1),
        **dict.fromkeys(("volume_difference_ml", "hd_mm", "hd95_mm", "mean_surface_distance_mm"), 0),
    }


@pytest.mark.parametrize(("pair", "sign"), [((EMPTY, CUBE), -1), ((CUBE, EMPTY), 1)])
def test_one_empty_as_documented(pair, sign):
    diagonal = np.sqrt((10 * 1.0) ** 2 + (12 * 1.5) ** 2 + (8 * 3.0) ** 2)
    assert measure_masks(*pair, SPACING) == {
        **dict.fromkeys(("dice", "iou", "precision", "recall", "surface_dice_1mm", "surface_dice_3mm"), 0),
        **dict.fromkeys(("hd_mm", "hd95_mm", "mean_surface_distance_mm"), pytest.approx(diagonal)),
        "volume_difference_ml": pytest.approx(sign * 64 * 4.5 / 1000),
    }


def test_by_hand():
    assert dice(SHIFTED, CUBE, SPACING) == 0.5
    assert iou(SHIFTED, CUBE, SPACING) == pytest.approx(1 / 3)
    half = CUBE.copy()
    half[4:] = False
    assert precision(half, CUBE, SPACING) == 1 and recall(half, CUBE, SPACING) == 0.5
    assert precision(CUBE, half, SPACING) == 0.5 and recall(CUBE, half, SPACING) == 1
    assert volume_difference_ml(half, CUBE, SPACING) == pytest.approx(-32 * 4.5 / 1000)
    assert hd95_mm(SHIFTED, CUBE, SPACING) == pytest.approx(2.0)
