import warnings
from pathlib import Path

import pytest

from verse_utils.cases import Chosen, find_cases
from verse_utils.errors import UserError


def touch(root: Path, *names: str, dataset: str = "dataset-verse19training") -> None:
    for name in names:
        kind = "rawdata" if name.endswith(("_ct.nii.gz", "_ct.nii")) else "derivatives"
        path = root / dataset / kind / name.split("_")[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_files_pair_by_id_not_by_order(tmp_path):
    touch(tmp_path, "sub-verse010_ct.nii.gz", "sub-verse009_ct.nii.gz")
    touch(tmp_path, "sub-verse009_seg-vert_msk.nii.gz", "sub-verse010_seg-vert_msk.nii.gz")
    touch(tmp_path, "sub-verse010_seg-vb_ctd.json")
    cases = find_cases(tmp_path, 19)
    assert [case.case_id for case in cases] == ["sub-verse009", "sub-verse010"]
    assert all(case.patient in case.mask_path.name for case in cases)
    assert cases[0].centroid_path is None and cases[1].centroid_path.name == "sub-verse010_seg-vb_ctd.json"


def test_hidden_folders_are_not_searched(tmp_path):
    touch(tmp_path, "sub-verse009_ct.nii.gz", "sub-verse009_seg-vert_msk.nii.gz")
    touch(tmp_path / ".download", "sub-verse009_ct.nii.gz")
    touch(tmp_path, "sub-verse010_ct.nii.gz", dataset=".dataset-verse19validation.partial/validation")
    assert [case.case_id for case in find_cases(tmp_path, 19)] == ["sub-verse009"]


def test_a_direction_may_be_on_the_mask_alone(tmp_path):
    touch(tmp_path, "sub-gl003_ct.nii.gz", "sub-gl003_dir-ax_seg-vert_msk.nii.gz")
    (case,) = find_cases(tmp_path, 19)
    assert (case.case_id, case.patient) == ("sub-gl003_dir-ax", "sub-gl003")


def test_two_scans_of_one_patient_are_two_cases(tmp_path):
    for direction in ("ax", "sag"):
        touch(tmp_path, f"sub-gl003_dir-{direction}_ct.nii.gz", f"sub-gl003_dir-{direction}_seg-vert_msk.nii.gz")
    assert len(find_cases(tmp_path, 19)) == 2


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["sub-verse009_ct.nii.gz"], ["sub-verse009_ct.nii.gz", "no mask"]),
        (["sub-verse009_seg-vert_msk.nii.gz"], ["sub-verse009_seg-vert_msk.nii.gz", "without its CT"]),
        (
            ["sub-verse009_ct.nii.gz", "sub-verse009_ct.nii", "sub-verse009_seg-vert_msk.nii.gz"],
            ["two CTs", "sub-verse009_ct.nii.gz"],
        ),
    ],
)
def test_files_without_partners_are_named(tmp_path, names, words):
    touch(tmp_path, "sub-verse001_ct.nii.gz", "sub-verse001_seg-vert_msk.nii.gz", *names)
    with pytest.raises(UserError) as error:
        find_cases(tmp_path, 19)
    assert all(word in str(error.value) for word in words)
    assert [case.case_id for case in find_cases(tmp_path, 19, Chosen(exclude=["sub-verse009"]))] == ["sub-verse001"]


def test_editions_do_not_mix(tmp_path):
    touch(tmp_path, "sub-verse001_ct.nii.gz", "sub-verse001_seg-vert_msk.nii.gz")
    with pytest.raises(UserError, match="holds VerSe19"):
        find_cases(tmp_path, 20)


@pytest.mark.parametrize("make", ["nothing", "empty", "file"])
def test_no_case_is_an_error(tmp_path, make):
    root = tmp_path / "root"
    if make == "empty":
        root.mkdir()
    elif make == "file":
        root.touch()
    with pytest.raises(UserError, match="root"):
        find_cases(root, 19)


def test_fewer_cases_and_a_patient_in_two_splits_are_warned_about(tmp_path):
    for scan, dataset in (("verse002", "dataset-verse19training"), ("verse003", "dataset-verse19test")):
        stem = f"sub-verse001_split-{scan}"
        touch(tmp_path, f"{stem}_ct.nii.gz", f"{stem}_seg-vert_msk.nii.gz", dataset=dataset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        find_cases(tmp_path, 19)
    messages = " ".join(str(warning.message) for warning in caught)
    assert "1 of 80 training" in messages and "sub-verse001 is in test and training" in messages
