"""Masks of named vertebrae, on phantoms whose vertebrae are known."""

from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from metrics.vertebra_metrics import dice_of_vertebrae
from prediction.names.column import Vertebra
from prediction.names.naming import name_mask
from prediction.predicted_volumes import PredictedVolumes
from utils.geometry.body_centres import body_centres
from utils.geometry.boxes import Box
from utils.geometry.working_grid import WorkingGrid
from verse_utils.phantom.dataset import make_phantom


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, size="tiny")


def named(phantom, vertebrae, missed=(), left_out_vox=0):
    """What naming makes of a phantom's true mask, on a working grid of 2 mm: mask, vertebrae and warnings."""
    grid = WorkingGrid.isotropic(phantom.label.shape, phantom.affine, 2.0)
    shown = np.isin(phantom.label, [one.label for one in vertebrae if one.label not in missed])
    working = grid.forward(phantom.label * shown, 0, nearest=True)
    image = SimpleNamespace(region=(slice(None),) * 3, grid=grid, hu=grid.forward(phantom.image_hu, -1000))
    mask = ((phantom.label > 0) & shown).astype(np.uint8)
    # Labels reach beyond the mask, as those of the windows do.
    _, nearest = distance_transform_edt(working == 0, return_indices=True)
    labels = working[tuple(nearest)] if working.any() else working.copy()
    boxes = {number: Box(np.zeros(3, int), np.array(grid.shape)) for number in set(np.unique(working)) - {0}}
    volumes = PredictedVolumes([], working.astype(np.int32), [], labels, boxes, vertebrae, left_out_vox)
    found, warnings = name_mask(mask, image, volumes)
    np.testing.assert_array_equal(labels, working)
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
    centres_vox = body_centres(phantom.label, nib.affines.voxel_sizes(phantom.affine))
    centres_mm = {label: nib.affines.apply_affine(phantom.affine, centre) for label, centre in centres_vox.items()}
    for vertebra in vertebrae:
        one = of_label[vertebra.label]
        off_mm = np.linalg.norm(np.array(one.centre_mm) - centres_mm[one.label])
        assert off_mm < 2  # a voxel of the working grid
        assert one.confidence == 0.7
        assert one.label == 1 or 50 < one.core_hu < 500  # the centre of C1 may lie within its ring
        true_mm = phantom.anatomy.body_size_mm[one.label][2]
        if one.label == 2:
            assert true_mm < one.height_mm < 40  # with its dens
        elif one.label > 2:
            assert abs(one.height_mm - true_mm) < 7


def test_what_has_no_mask_is_told(phantom):
    vertebrae = true_vertebrae(phantom)
    mask, found, warnings = named(phantom, vertebrae, missed=[vertebrae[-1].label])
    assert any(line == f"named by the localiser, but not in the mask: {vertebrae[-1].name}" for line in warnings)
    last = found[-1]
    assert (last.label, last.volume_ml, last.height_mm) == (vertebrae[-1].label, 0, None)
    np.testing.assert_allclose(last.centre_mm, vertebrae[-1].centre_mm, atol=0.01)
    mask, found, warnings = named(phantom, [])
    assert not mask.any() and found == [] and any("no vertebra was named" in line for line in warnings)


def test_what_has_no_place_in_the_sequence_is_told(phantom):
    vertebrae = true_vertebrae(phantom)
    told = "2.0 ml that look like vertebrae but have no place in the sequence were left out"  # voxels of 2 mm
    assert told in named(phantom, vertebrae, left_out_vox=250)[2]
    assert not any("left out" in line for line in named(phantom, vertebrae, left_out_vox=100)[2])


def test_a_single_vertebra_is_named_alone(phantom):
    vertebra = true_vertebrae(phantom)[2]
    mask, found, _ = named(phantom, [vertebra])
    assert set(np.unique(mask)) == {0, vertebra.label} and [one.label for one in found] == [vertebra.label]


def test_a_vertebra_that_only_its_neighbours_name(phantom):
    vertebrae = true_vertebrae(phantom)
    unseen = vertebrae[2] = replace(vertebrae[2], confidence=0.0)
    _, found, warnings = named(phantom, vertebrae)
    assert next(one for one in found if one.label == unseen.label).confidence == 0
    assert f"named by their neighbours alone: {unseen.name}" in warnings
    assert unseen.label not in {one.label for one in named(phantom, vertebrae, missed=[unseen.label])[1]}


def test_labels_come_back_by_the_nearest_voxel():
    affine = nib.affines.from_matvec(np.array([[0, 0, -2.0], [-1.5, 0, 0], [0, 3.0, 0]]), [5, 6, 7])
    grid = WorkingGrid.isotropic((9, 7, 11), affine, 1.0)
    stored = np.arange(9 * 7 * 11).reshape(9, 7, 11) % 251
    working = grid.forward(stored.astype(np.uint8), 0, nearest=True)
    back = np.concatenate([slab for _, slab in grid.undo_nearest_slabs(working, thickness=4)], axis=2)
    np.testing.assert_array_equal(back, stored)
