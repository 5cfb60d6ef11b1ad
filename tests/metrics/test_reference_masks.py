from pathlib import Path

import pytest

from metrics.reference_masks import case_name, find_masks, find_reference_mask
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
def test_the_name_of_a_case(name, case):
    assert case_name(Path("any_ct") / name) == case


def test_images_are_not_taken_for_masks(tmp_path):
    names = ["a_ct.nii.gz", "deep/a_msk.nii.gz", "b_probabilities.nii.gz", "._a_msk.nii.gz", "c.nii", "c.json"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in find_masks(tmp_path)] == ["c.nii", "a_msk.nii.gz"]
    assert find_reference_mask(tmp_path / "a_ct.nii.gz", tmp_path).name == "a_msk.nii.gz"
    with pytest.raises(UserError, match="no reference mask of c"):  # a scan is no mask of itself
        find_reference_mask(tmp_path / "c.nii", tmp_path)
