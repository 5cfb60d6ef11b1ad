"""Real masks as shapes; here the masks are the generator's own, in VerSe's orientation."""

import nibabel as nib
import numpy as np
import pytest

from verse_utils.errors import UserError
from verse_utils.phantom.dataset import write_phantom_dataset
from verse_utils.phantom.render import paint, voxel_box
from verse_utils.phantom.trunk.body import vertebra
from verse_utils.phantom.trunk.label_maps import find_masks, make_real_shapes
from verse_utils.phantom.trunk.person import draw_person
from verse_utils.phantom.trunk.phantom import make_trunk_phantom

SPACING_MM = 2.0


@pytest.fixture(scope="module")
def mask_folder(tmp_path_factory):
    """A mask of T12 to L3, PIR, and a CT beside it that is no mask."""
    person = draw_person(np.random.default_rng(8))
    numbers = (19, 20, 21, 22)
    centres = np.array([person.poses[number].origin for number in numbers])
    low, high = centres.min(axis=0) - [60, 80, 40], np.add(centres.max(axis=0), [60, 40, 40])
    directions = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])  # of P, I, R
    corner = np.array([low[0], high[1], high[2]])
    affine = nib.affines.from_matvec(SPACING_MM * directions, corner)
    shape = tuple(int(n) for n in (high - low)[[1, 2, 0]] / SPACING_MM)
    image, label = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    for number in numbers:
        part = vertebra(person, number)
        paint(part, voxel_box(part.solids, affine, shape), affine, SPACING_MM, image, label, None)
    folder = tmp_path_factory.mktemp("masks") / "derivatives"
    folder.mkdir()
    nib.save(nib.Nifti1Image(label, affine), folder / "sub-one_seg-vert_msk.nii.gz")
    nib.save(nib.Nifti1Image(image, affine), folder / "sub-one_ct.nii.gz")
    return folder.parent


@pytest.mark.parametrize("seed", [1, 2])
def test_shapes_keep_their_volumes_and_their_place_in_the_spine(mask_folder, seed):
    (path,) = find_masks(mask_folder)
    anatomy, levels = make_real_shapes(path, np.random.default_rng(seed))
    assert levels == (19, 22)
    mask = np.asarray(nib.load(path).dataobj)
    ratios = []
    for part in anatomy.parts:
        if part.label in (19, 20, 21, 22):
            low, high = (np.array(corner) for corner in part.solids[0].bounds())
            affine = nib.affines.from_matvec(np.eye(3) * SPACING_MM, low)
            shape = tuple(int(n) for n in (high - low) / SPACING_MM)
            image, label = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
            paint(part, voxel_box(part.solids, affine, shape), affine, SPACING_MM, image, label, None)
            ratios.append((label > 0).sum() / (mask == part.label).sum())
    assert len(ratios) == 4
    assert 0.92**3 * 0.97 < np.mean(ratios) < 1.08**3 * 1.03
    assert max(ratios) / min(ratios) < 1.05
    heights = [anatomy.body_pose[number].origin[2] for number in sorted(anatomy.body_pose)]
    assert heights == sorted(heights, reverse=True)
    steps = -np.diff(heights)[17:22]  # from T11 to L4: those at the ends of the mask are as the others
    assert steps.max() / steps.min() < 1.6


def test_phantoms_are_labelled_as_their_masks(mask_folder):
    phantom = make_trunk_phantom(4, "tiny", find_masks(mask_folder))
    again = make_trunk_phantom(4, "tiny", find_masks(mask_folder))
    np.testing.assert_array_equal(phantom.image_hu, again.image_hu)
    assert 21 in phantom.centroids.points_vox
    for number, centre in phantom.centroids.points_vox.items():
        assert phantom.label[tuple(np.rint(centre).astype(int))] == number


def test_what_holds_no_masks_is_named(tmp_path, mask_folder):
    with pytest.raises(UserError, match="holds no mask"):
        write_phantom_dataset(tmp_path, {"training": 1}, field_of_view="trunk", shapes=tmp_path)
    with pytest.raises(UserError, match="add --field_of_view trunk"):
        write_phantom_dataset(tmp_path, {"training": 1}, shapes=mask_folder)
    empty = tmp_path / "sub-none_seg-vert_msk.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.eye(4)), empty)
    with pytest.raises(UserError, match="fewer than two whole vertebrae"):
        make_real_shapes(empty, np.random.default_rng(0))
