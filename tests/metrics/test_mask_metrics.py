import warnings

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from monai.metrics.utils import get_surface_distance
from scipy.ndimage import binary_erosion, distance_transform_edt

from metrics.mask_metrics import (
    MASK_METRICS,
    MaskPair,
    dice,
    hd95_mm,
    hd_mm,
    iou,
    mean_surface_distance_mm,
    precision,
    recall,
    surface_dice_1mm,
    surface_dice_3mm,
    volume_difference_ml,
)

SPACING = (1.0, 1.5, 3.0)
EMPTY = np.zeros((10, 12, 8), bool)
CUBE = EMPTY.copy()
CUBE[2:6, 3:7, 1:5] = True
SHIFTED = np.roll(CUBE, 2, axis=0)


@pytest.mark.parametrize("mask", [CUBE, EMPTY], ids=["cube", "both empty"])
def test_a_perfect_prediction(mask):
    assert MASK_METRICS.measure(mask, mask, spacing_mm=SPACING) == {
        **dict.fromkeys(("dice", "iou", "precision", "recall", "surface_dice_1mm", "surface_dice_3mm"), 1),
        **dict.fromkeys(("volume_difference_ml", "hd_mm", "hd95_mm", "mean_surface_distance_mm"), 0),
    }


@pytest.mark.parametrize(("pair", "sign"), [((EMPTY, CUBE), -1), ((CUBE, EMPTY), 1)])
def test_one_empty_as_documented(pair, sign):
    diagonal = np.sqrt((10 * 1.0) ** 2 + (12 * 1.5) ** 2 + (8 * 3.0) ** 2)
    assert MASK_METRICS.measure(*pair, spacing_mm=SPACING) == {
        **dict.fromkeys(("dice", "iou", "precision", "recall", "surface_dice_1mm", "surface_dice_3mm"), 0),
        **dict.fromkeys(("hd_mm", "hd95_mm", "mean_surface_distance_mm"), pytest.approx(diagonal)),
        "volume_difference_ml": pytest.approx(sign * 64 * 4.5 / 1000),
    }


def test_by_hand():
    pair = MaskPair(SHIFTED, CUBE, SPACING)
    assert dice(pair) == 0.5 and iou(pair) == pytest.approx(1 / 3) and hd95_mm(pair) == pytest.approx(2.0)
    half = CUBE.copy()
    half[4:] = False
    pair, back = MaskPair(half, CUBE, SPACING), MaskPair(CUBE, half, SPACING)
    assert precision(pair) == 1 and recall(pair) == 0.5 and precision(back) == 0.5 and recall(back) == 1
    assert volume_difference_ml(pair) == pytest.approx(-32 * 4.5 / 1000)


def test_all_but_0_is_foreground():
    assert MASK_METRICS.measure(CUBE * np.uint8(28), CUBE, spacing_mm=SPACING)["dice"] == 1


SURFACE_METRICS = (hd_mm, hd95_mm, mean_surface_distance_mm, surface_dice_1mm, surface_dice_3mm)
BOX = np.zeros((20, 20, 12), bool)
BOX[4:10, 5:11, 3:7] = True
# To 1e-6 of the value; MONAI's distances are of single precision.
CLOSE = {"rel": 1e-6, "abs": 1e-6}


def measure_surfaces(prediction, reference, spacing_mm):
    pair = MaskPair(prediction, reference, spacing_mm)
    return {metric.name: metric(pair) for metric in SURFACE_METRICS}


def random_case(seed):
    """Two noisy masks, some of which touch the border, and a spacing."""
    rng = np.random.default_rng(seed)
    shape, density = rng.integers(5, 20, 3), rng.choice([0.01, 0.1, 0.4])
    masks = [rng.random(shape) < density for _ in range(2)]
    for mask in masks:
        mask[tuple(rng.integers(shape))] = True
    return *masks, rng.uniform(0.4, 4.0, 3)


def by_distance_transform(first, second, spacing_mm):
    """The same numbers from dense distance maps, in double precision."""
    first, second = np.pad(first, 1), np.pad(second, 1)
    rims = [mask & ~binary_erosion(mask) for mask in (first, second)]
    to_second = distance_transform_edt(~rims[1], sampling=spacing_mm)[rims[0]]
    to_first = distance_transform_edt(~rims[0], sampling=spacing_mm)[rims[1]]
    count = len(to_second) + len(to_first)
    return {
        "hd_mm": max(to_second.max(), to_first.max()),
        "hd95_mm": max(np.percentile(to_second, 95), np.percentile(to_first, 95)),
        "mean_surface_distance_mm": (to_second.sum() + to_first.sum()) / count,
        "surface_dice_1mm": ((to_second <= 1).sum() + (to_first <= 1).sum()) / count,
        "surface_dice_3mm": ((to_second <= 3).sum() + (to_first <= 3).sum()) / count,
    }


def by_monai(first, second, spacing_mm):
    """The same numbers from MONAI's own metrics of the whole volumes, each in a call of its own."""
    pair = [torch.from_numpy(np.pad(mask, 1))[None, None] for mask in (first, second)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"include_background": True, "spacing": spacing_mm.tolist()}
        return {
            "hd_mm": compute_hausdorff_distance(*pair, **options).item(),
            "hd95_mm": compute_hausdorff_distance(*pair, percentile=95, **options).item(),
            "mean_surface_distance_mm": compute_average_surface_distance(*pair, symmetric=True, **options).item(),
            **{f"surface_dice_{mm}mm": compute_surface_dice(*pair, [mm], **options).item() for mm in (1, 3)},
        }


@pytest.mark.parametrize("peer", [by_distance_transform, by_monai])
def test_twenty_random_masks_against(peer):
    for seed in range(20):
        case = random_case(seed)
        assert measure_surfaces(*case) == pytest.approx(peer(*case), **CLOSE), seed


def test_the_distances_of_a_pair_are_computed_once(monkeypatch):
    calls = []

    def counted(*pair, **options):
        calls.append(1)
        return get_surface_distance(*pair, **options)

    monkeypatch.setattr("monai.metrics.utils.get_surface_distance", counted)
    MASK_METRICS.measure(BOX, np.roll(BOX, 1, axis=0), spacing_mm=SPACING)
    assert len(calls) == 2  # one of each direction


@pytest.mark.parametrize(("axis", "voxels"), [(0, 1), (0, 2), (1, 2), (2, 2)])
def test_a_shifted_plate_by_hand(axis, voxels):
    """Two thin plates across the volume: every distance is the shift. Just 1 mm or 3 mm is within the tolerance."""
    plate = np.zeros((9, 9, 9), bool)
    np.moveaxis(plate, axis, 0)[3] = True
    apart = voxels * SPACING[axis]
    assert measure_surfaces(np.roll(plate, voxels, axis), plate, SPACING) == {
        **dict.fromkeys(("hd_mm", "hd95_mm", "mean_surface_distance_mm"), apart),
        "surface_dice_1mm": float(apart <= 1),
        "surface_dice_3mm": float(apart <= 3),
    }


def test_two_boxes_apart_by_a_known_shift():
    """No box wider than the gap: the far side lies the shift away, the near side the shift less the width."""
    shifted = np.roll(BOX, 10, axis=0)
    found = measure_surfaces(shifted, BOX, SPACING)
    assert found["hd_mm"] == 10 and found["surface_dice_3mm"] == 0
    first, last = np.flatnonzero(BOX.any(axis=(1, 2)))[[0, -1]]
    columns = {x: 6 * 4 if x in (first, last) else 6 * 4 - 4 * 2 for x in range(first, last + 1)}
    distances = [x + 10 - last for x, count in columns.items() for _ in range(count)]
    assert found["mean_surface_distance_mm"] == pytest.approx(np.mean(distances))
    assert found["hd95_mm"] == pytest.approx(np.percentile(distances, 95))


def test_single_voxels():
    one, other = np.zeros((5, 6, 7), bool), np.zeros((5, 6, 7), bool)
    one[0, 0, 0], other[2, 2, 1] = True, True
    apart = np.sqrt(2**2 + 3**2 + 3**2)
    for name in ("hd_mm", "hd95_mm", "mean_surface_distance_mm"):
        assert measure_surfaces(one, other, SPACING)[name] == pytest.approx(apart)


def test_the_surface_at_the_volumes_border_counts():
    """A mask that fills the volume has its outermost voxels as surface; its hollow is as far from them as it lies."""
    full = np.ones((7, 7, 7), bool)
    core = np.zeros((7, 7, 7), bool)
    core[3, 3, 3] = True
    assert measure_surfaces(core, full, (1, 1, 1))["hd_mm"] == pytest.approx(np.sqrt(27))
    assert MaskPair(full, core, (1, 1, 1)).surface_distances_mm[0].size == 7**3 - 5**3


def test_where_the_masks_lie_changes_nothing():
    small, large = BOX, np.zeros((60, 50, 40), bool)
    other = np.roll(BOX, 1, axis=2)
    moved = [large.copy(), large.copy()]
    for mask, source in zip(moved, (small, other), strict=True):
        mask[30:50, 7:27, 20:32] = source
    assert measure_surfaces(*moved, SPACING) == measure_surfaces(small, other, SPACING)
