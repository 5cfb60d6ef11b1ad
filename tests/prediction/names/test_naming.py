"""A mask divided among named centres, on phantoms whose vertebrae are known."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from metrics.vertebra_metrics import dice_of_vertebrae
from prediction.localisation import Spine
from prediction.names.column import Steps, Vertebra, fill_in
from prediction.names.naming import divide, name_mask
from utils.geometry.working_grid import WorkingGrid
from verse_utils.labels import L6, T13
from verse_utils.phantom.dataset import make_phantom

STEPS = Steps.learn([])


def upright(*labels, step_mm=30.0):
    return [Vertebra(label, np.array([0.0, 0.0, -step_mm * number]), 0.9) for number, label in enumerate(labels)]


def test_missed_levels_lie_between_their_neighbours_and_cut_ones_beyond():
    filled = fill_in([upright(19)[0], Vertebra(22, np.array([0.0, 30.0, -100.0]), 0.8)], STEPS)
    assert [one.label for one in filled] == [18, 19, 20, 21, 22, 23]
    assert [one.confidence > 0 for one in filled] == [False, True, False, False, True, False]
    np.testing.assert_allclose(filled[3].centre_mm, [0, 20, -200 / 3])
    step = filled[5].centre_mm - filled[4].centre_mm
    assert np.linalg.norm(step) == pytest.approx(STEPS.expected(23)[0])
    np.testing.assert_allclose(step / np.linalg.norm(step), np.array([0, 30, -100]) / np.hypot(30, 100))


def test_nothing_is_filled_in_where_nothing_can_be():
    assert [one.label for one in fill_in(upright(1, 2), STEPS)] == [1, 2, 3]  # nothing above C1
    assert [one.label for one in fill_in(upright(23, 24), STEPS)] == [22, 23, 24]  # nothing below L5
    assert [one.label for one in fill_in(upright(24, L6), STEPS)] == [23, 24, L6]
    assert [one.label for one in fill_in(upright(19, T13), STEPS)] == [18, 19, T13, 20]
    eleven_ribs = fill_in(upright(18, 20), STEPS)  # T11 and L1 as near as neighbours
    assert [one.label for one in eleven_ribs] == [17, 18, 20, 21]
    assert [one.label for one in fill_in(upright(12), STEPS)] == [12]
    assert fill_in([], STEPS) == []


def test_bone_belongs_to_the_centre_with_the_cheapest_way():
    """Two blocks joined by a thin bridge, a crumb beside one, and a block without centre."""
    bone = np.zeros((20, 20, 70), bool)
    bone[4:16, 4:16, 4:24], bone[4:16, 4:16, 28:48], bone[9:11, 9:11, 24:28] = True, True, True
    bone[9:11, 18:20, 36:38] = True
    bone[4:16, 4:16, 62:70] = True
    labels = np.zeros(bone.shape, np.uint8)
    boxes = divide(bone, {20: np.array([10, 10, 38.0]), 21: np.array([10, 10, 14.0])}, 1.0, labels)
    assert (labels[4:16, 4:16, 4:24] == 21).all() and (labels[4:16, 4:16, 28:48] == 20).all()
    assert (labels[9:11, 18:20, 36:38] == 20).all()
    assert set(np.unique(labels[9:11, 9:11, 24:28])) == {20, 21}
    assert not labels[4:16, 4:16, 62:70].any()
    assert labels[3, 10, 10] == 21 and labels[0, 10, 10] == 0  # just beside the bone, and farther off
    assert set(boxes) == {20, 21}
    for label, box in boxes.items():
        assert (labels[box.slices] == label).sum() == (labels == label).sum()


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, size="tiny")


def named(phantom, vertebrae):
    """What naming makes of a phantom's true mask, on a working grid of 2 mm: mask, vertebrae and warnings."""
    grid = WorkingGrid.isotropic(phantom.label.shape, phantom.affine, 2.0)
    components = (grid.forward(phantom.label, 0, nearest=True) > 0).astype(np.int32)
    image = SimpleNamespace(region=(slice(None),) * 3, grid=grid, hu=grid.forward(phantom.image_hu, -1000))
    mask = (phantom.label > 0).astype(np.uint8)
    labels = np.zeros(grid.shape, np.uint8)
    found, warnings = name_mask(mask, image, components, Spine(grid, mask > 0, vertebrae, STEPS), labels)
    assert set(np.unique(labels[components == 0])) <= {0}
    return mask, found, warnings


def true_vertebrae(phantom):
    centres_mm = phantom.centroids.to_world(phantom.affine, phantom.label.shape)
    return [Vertebra(label, centre, 0.7) for label, centre in centres_mm.items()]


def test_a_mask_is_named_and_measured(phantom):
    vertebrae = true_vertebrae(phantom)
    mask, found, _ = named(phantom, vertebrae)
    dice = dice_of_vertebrae(mask, phantom.label)
    assert np.mean([dice[one.label] for one in vertebrae]) > 0.93 and min(dice.values()) > 0.8
    voxel_ml = abs(np.linalg.det(phantom.affine[:3, :3])) / 1000
    for one in found:
        assert one.volume_ml == pytest.approx((mask == one.label).sum() * voxel_ml, abs=0.01)
    of_label = {one.label: one for one in found}
    for vertebra in vertebrae:
        one = of_label[vertebra.label]
        assert np.linalg.norm(np.array(one.centre_mm) - vertebra.centre_mm) < 8
        assert one.confidence == 0.7 and one.core_hu is not None and 50 < one.core_hu < 500
        true_mm = phantom.anatomy.body_size_mm[one.label][2]
        assert one.label == 1 or abs(one.height_mm - true_mm) < 7


def test_what_has_no_name_or_no_mask_is_told(phantom):
    vertebrae = true_vertebrae(phantom)
    first, last = vertebrae[0], vertebrae[-1]
    far = Vertebra(last.label, last.centre_mm - np.array([0, 0, 2000]), 0.9)
    _, found, warnings = named(phantom, [first, far])
    assert any("not in the mask" in line for line in warnings)
    assert next(one for one in found if one.label == last.label).volume_ml == 0
    mask, found, warnings = named(phantom, [])
    assert not mask.any() and found == [] and any("ml of the mask lie near no named" in line for line in warnings)


def test_a_single_vertebra_is_named_alone(phantom):
    vertebra = true_vertebrae(phantom)[2]
    mask, found, _ = named(phantom, [vertebra])
    assert set(np.unique(mask)) == {0, vertebra.label} and [one.label for one in found] == [vertebra.label]


def test_a_vertebra_that_only_its_neighbours_name(phantom):
    vertebrae = true_vertebrae(phantom)
    missed = vertebrae.pop(2)
    mask, found, warnings = named(phantom, vertebrae)
    assert next(one for one in found if one.label == missed.label).confidence == 0
    assert dice_of_vertebrae(mask, phantom.label)[missed.label] > 0.8
    assert any(line.startswith("named by their neighbours alone") for line in warnings)


def test_labels_come_back_by_the_nearest_voxel():
    affine = nib.affines.from_matvec(np.array([[0, 0, -2.0], [-1.5, 0, 0], [0, 3.0, 0]]), [5, 6, 7])
    grid = WorkingGrid.isotropic((9, 7, 11), affine, 1.0)
    stored = np.arange(9 * 7 * 11).reshape(9, 7, 11) % 251
    working = grid.forward(stored.astype(np.uint8), 0, nearest=True)
    back = np.concatenate([slab for _, slab in grid.undo_nearest_slabs(working, thickness=4)], axis=2)
    np.testing.assert_array_equal(back, stored)
