import nibabel as nib
import numpy as np
import pytest

from verse_utils.cases import find_cases
from verse_utils.centroids import read_centroids
from verse_utils.errors import UserError
from verse_utils.images import read_case
from verse_utils.labels import ANATOMICAL_ORDER, VERTEBRA_NAMES
from verse_utils.phantom.anatomy import make_anatomy
from verse_utils.phantom.dataset import make_phantom, write_phantom_dataset
from verse_utils.phantom.render import render


def test_a_seed_makes_one_phantom():
    first, again, other = make_phantom(1, "tiny"), make_phantom(1, "tiny"), make_phantom(2, "tiny")
    np.testing.assert_array_equal(first.image_hu, again.image_hu)
    np.testing.assert_array_equal(first.label, again.label)
    assert first.image_hu.shape != other.image_hu.shape or (first.image_hu != other.image_hu).any()


def test_a_threshold_scores_badly():
    """A full-size phantom: other bone, vessels and noise keep HU > 150 far from the mask."""
    phantom = make_phantom((0, 300))
    bright, bone = phantom.image_hu > 150, phantom.label > 0
    assert 2 * (bright & bone).sum() / (bright.sum() + bone.sum()) < 0.6
    assert set(np.unique(phantom.label)) - {0} == set(phantom.centroids.points_vox)
    assert len(phantom.centroids.points_vox) >= 4


@pytest.mark.parametrize("seed", range(4))
def test_labels_are_a_run_of_whole_vertebrae_with_their_centres_inside(seed):
    phantom = make_phantom(seed, "tiny")
    numbers = list(phantom.centroids.points_vox)
    assert set(numbers) == set(np.unique(phantom.label)) - {0}
    assert set(numbers) <= set(VERTEBRA_NAMES)
    assert numbers == sorted(numbers, key=ANATOMICAL_ORDER.index)
    centres_mm = phantom.centroids.to_world(phantom.affine, phantom.label.shape)
    heights = [centres_mm[number][2] for number in numbers]
    assert heights == sorted(heights, reverse=True)
    for number, centre in centres_mm.items():
        if number != 1:  # C1 has no body
            index = np.rint(nib.affines.apply_affine(np.linalg.inv(phantom.affine), centre)).astype(int)
            assert phantom.label[tuple(index)] == number


def test_one_anatomy_looks_the_same_on_any_grid():
    """Without noise, an oblique scan and a straight one agree wherever they meet."""
    anatomy = make_anatomy(np.random.default_rng(5))
    centre = anatomy.body_pose[21].origin
    straight = nib.affines.from_matvec(np.diag([2.0, 2, 2]), centre - 40)
    turn = np.array([[0, -0.98, 0.199], [-1.0, 0, 0], [0, -0.199, -0.98]])
    oblique = nib.affines.from_matvec(turn * 2, centre - turn @ [40.0, 40, 40])
    _, label = render(anatomy, straight, (41, 41, 41))
    _, turned = render(anatomy, oblique, (41, 41, 41))
    world = nib.affines.apply_affine(straight, np.argwhere(label > 0))
    index = np.rint(nib.affines.apply_affine(np.linalg.inv(oblique), world)).astype(int)
    inside = ((index >= 0) & (index < 41)).all(axis=1)
    found = turned[tuple(index[inside].T)] > 0
    assert inside.mean() > 0.7 and found.mean() > 0.85


def test_the_data_set_has_verses_layout_and_header_styles(phantom_root):
    cases = find_cases(phantom_root, 19)
    assert [case.split for case in cases] == ["training", "training", "validation", "test"]
    for case in cases:
        images = read_case(case)
        centres = read_centroids(case.centroid_path)
        assert set(centres.points_vox) == set(np.unique(images.label)) - {0}
        assert nib.aff2axcodes(images.affine) == centres.direction


def test_variants_occur():
    """L6 and T13 come now and then, and stand in their anatomical place."""
    bodies = [make_anatomy(np.random.default_rng(seed)).body_pose for seed in range(40)]
    assert 1 <= sum(25 in body for body in bodies) <= 15
    assert 1 <= sum(28 in body for body in bodies) <= 15
    for body in bodies:
        order = sorted(body, key=lambda number: -body[number].origin[2])
        assert order == sorted(order, key=ANATOMICAL_ORDER.index)


def test_bodies_are_scanned_from_the_skull_to_the_pelvis_in_coarse_voxels(tmp_path):
    write_phantom_dataset(tmp_path, {"training": 1}, field_of_view="body", voxel_mm=6)
    (case,) = find_cases(tmp_path, 19)
    scan = read_case(case)
    assert nib.affines.voxel_sizes(scan.affine) == pytest.approx([6, 6, 6])
    shown = set(np.unique(scan.label)) - {0}
    assert {1, 8, 20, 24} <= shown and len(shown) >= 23
    assert case.case_id.startswith("sub-body0case")


def test_voxels_are_not_for_spines(tmp_path):
    with pytest.raises(UserError, match=r"--voxel_mm 3: .* --field_of_view trunk"):
        write_phantom_dataset(tmp_path, {"training": 1}, voxel_mm=3)


def test_no_body_is_in_two_splits(tmp_path):
    """The 101st training case would have the number of the first one of validation."""
    with pytest.raises(UserError, match=r"--training 101: at most 100"):
        write_phantom_dataset(tmp_path, {"training": 101, "validation": 1})
