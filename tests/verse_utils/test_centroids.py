import json
import os

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


@pytest.mark.parametrize(
    ("name", "entry", "place_mm"),
    [
        # From the anterior, superior, left corner, whose voxel is at (-18, 57, 116): 1 mm back, 2 down, 3 to the right.
        ("verse512_CT-iso_iso-ctd.json", {"X": 1, "Y": 2, "Z": 3}, (-15, 56, 114)),
        # VerSe19, from the superior, anterior, right corner at (0, 57, 116): 2 mm down, 1 back, 3 to the left.
        ("verse014_ctd.json", {"X": 2, "Y": 1, "Z": 3}, (-3, 56, 114)),
    ],
)
def test_lists_of_the_miccai_layout_are_at_1_mm_on_axes_of_their_own(tmp_path, name, entry, place_mm):
    path = tmp_path / name
    path.write_text(
        json.dumps([{"label": 20, **entry}, {"label": 21, "X": float("nan"), "Y": 0, "Z": 0}]), encoding="utf-8"
    )
    for codes in ("LAS", "PSR", "RPI"):  # stored as you like: spacings of 2, 3 and 4 mm along X, Y, Z
        centres = read_centroids(path).to_world(*grid(codes))
        assert list(centres) == [20]
        np.testing.assert_allclose(centres[20], place_mm)


def grid(codes):
    """Affine and shape of the same 10×20×30 voxels from (-18, 0, 0) to (0, 57, 116) in mm, in stored axes."""
    ras = np.diag([2.0, 3.0, 4.0, 1.0])
    ras[0, 3] = -18
    turn = nib.orientations.ornt_transform(nib.io_orientation(ras), nib.orientations.axcodes2ornt(tuple(codes)))
    image = nib.Nifti1Image(np.zeros((10, 20, 30), np.uint8), ras).as_reoriented(turn)
    return image.affine, image.shape


INFINITE = '[{"direction": ["P", "I", "R"]}, {"label": %s, "X": %s, "Y": 0, "Z": 0}]'


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '[{"direction": ["P", "I", "X"]}]', "[{}]", "[" * 100_000),
        *(INFINITE % ("1e999", "0"), INFINITE % ("20", "1e999")),
    ],
    ids=lambda text: text[:60],
)
def test_what_is_no_list_is_said(tmp_path, text):
    path = tmp_path / "ctd.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"ctd\.json"):
        read_centroids(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "ctd.json")
    with pytest.raises(UserError, match=r"ctd.json: not a VerSe centroid list .*a folder, a pipe or a device"):
        read_centroids(tmp_path / "ctd.json")


@pytest.mark.real_scans
def test_official_centroids_lie_in_their_vertebrae(real_scans):
    folder = real_scans / "verse_sample" / "dataset-verse19training" / "derivatives" / "sub-verse014"
    mask = nib.load(next(folder.glob("*_msk.nii.gz")))
    centres = read_centroids(next(folder.glob("*_ctd.json"))).to_world(mask.affine, mask.shape)
    inverse = np.linalg.inv(mask.affine)
    for label, centre_mm in centres.items():
        index = tuple(np.rint(nib.affines.apply_affine(inverse, centre_mm)).astype(int))
        assert int(mask.dataobj[index]) == label
