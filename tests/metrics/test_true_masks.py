from pathlib import Path

import pytest

from metrics.true_masks import case_name, find_masks, find_true_mask
from utils.scans import ScanSource
from verse_utils.errors import UserError


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("sub-verse008_ct.nii.gz", "sub-verse008"),
        ("sub-verse008_seg-vert_msk.nii.gz", "sub-verse008"),
        ("sub-verse008_ct_vertebrae.nii.gz", "sub-verse008"),  # as inference.py names its results
        ("sub-gl003_dir-ax_ct.nii", "sub-gl003_dir-ax"),
        ("spine_012_0000.nii.gz", "spine_012"),
        ("CASE_Label.NII.GZ", "CASE"),
        ("labelled_7.nii.gz", "labelled_7"),
    ],
)
def test_what_a_case_is_called(name, case):
    assert case_name(Path("any_ct") / name) == case


def test_masks_are_told_from_images(tmp_path):
    names = ["a_ct.nii.gz", "deep/a_msk.nii.gz", "b_probabilities.nii.gz", "._a_msk.nii.gz", "c.nii", "c.json"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in find_masks(tmp_path)] == ["c.nii", "a_msk.nii.gz"]
    assert find_true_mask(ScanSource(tmp_path / "a_ct.nii.gz", "a"), tmp_path).name == "a_msk.nii.gz"
    with pytest.raises(UserError, match="no true mask of c"):  # a scan is no mask of itself
        find_true_mask(ScanSource(tmp_path / "c.nii", "c"), tmp_path)
