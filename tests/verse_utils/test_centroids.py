import nibabel as nib
import numpy as np
import pytest

from verse_utils.centroids import Centroids, read_centroids, write_centroids
from verse_utils.errors import UserError


def test_a_list_in_another_orientation_points_at_the_same_place():
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])  # stored LAS
    shape = (10, 20, 30)
    own = Centroids(("L", "A", "S"), {20: np.array([1.0, 2.0, 3.0])})
    turned = Centroids(("S", "R", "A"), {20: np.array([3.0, 9.0 - 1.0, 2.0])})
    expected = nib.affines.apply_affine(affine, [1, 2, 3])
    np.testing.assert_allclose(own.to_world(affine, shape)[20], expected)
    np.testing.assert_allclose(turned.to_world(affine, shape)[20], expected)


def test_written_lists_are_read_again_and_nan_is_skipped(tmp_path):
    path = tmp_path / "ctd.json"
    write_centroids(path, Centroids(("P", "I", "R"), {20: np.array([1.0, 2.5, 3.0]), 21: np.full(3, np.nan)}))
    found = read_centroids(path)
    assert found.direction == ("P", "I", "R")
    assert list(found.points_vox) == [20]
    np.testing.assert_allclose(found.points_vox[20], [1, 2.5, 3])


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"direction": ["P", "I", "X"]}]', "[{}]"])
def test_what_is_no_list_is_said(tmp_path, text):
    path = tmp_path / "ctd.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"ctd\.json"):
        read_centroids(path)


@pytest.mark.real_scans
def test_official_centroids_lie_in_their_vertebrae(real_scans):
    folder = real_scans / "verse_sample" / "dataset-verse19training" / "derivatives" / "sub-verse014"
    mask = nib.load(next(folder.glob("*_msk.nii.gz")))
    centres = read_centroids(next(folder.glob("*_ctd.json"))).to_world(mask.affine, mask.shape)
    inverse = np.linalg.inv(mask.affine)
    for label, centre_mm in centres.items():
        index = tuple(np.rint(nib.affines.apply_affine(inverse, centre_mm)).astype(int))
        assert int(mask.dataobj[index]) == label
