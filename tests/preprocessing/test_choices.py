"""Which cases a run takes, and how it divides them."""

import shutil
from pathlib import Path

import pytest

from preprocessing import IsotropicSettings, preprocess
from utils.files.h5_cases import H5Cases

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


def test_cases_are_chosen_by_globs(root, tmp_path, preprocess_coarsely, assert_one_line_error):
    result = preprocess_coarsely("--include", "sub-phantom1*", "sub-phantom200*", "--exclude", "*phantom101*")
    assert result.returncode == 0, result.stderr
    store = H5Cases(tmp_path / result.stdout.strip())
    found = [store.case_ids(split) for split in ("training", "validation", "test")]
    assert [[name[:14] for name in names] for names in found] == [["sub-phantom100"], ["sub-phantom200"], []]
    for flag in ("--exclude", "--include"):
        result = preprocess_coarsely(flag, "sub-phantom9", "sub-phantom1*")
        assert_one_line_error(result, f"{flag} sub-phantom9 matches no case")


def test_without_validation_nothing_is_begun_unless_some_is_drawn(
    root, tmp_path, preprocess_coarsely, assert_one_line_error
):
    shutil.rmtree(root / "dataset-verse19validation")
    result = preprocess_coarsely()
    assert_one_line_error(result, "has no validation cases", "--validation_share 0.15")
    assert not (tmp_path / "preprocessed").exists()
    chosen = []
    for seed in (0, 0, 7):
        result = preprocess_coarsely("--validation_share", 0.15, "--seed", seed)
        assert result.returncode == 0, result.stderr
        store = H5Cases(tmp_path / result.stdout.strip())
        assert len(store.case_ids("training")) == len(store.case_ids("validation")) == 1
        chosen += store.case_ids("validation")
    assert chosen[0] == chosen[1] and len(set(chosen)) == 2


def test_validation_cases_are_not_drawn_twice(root, tmp_path, preprocess_coarsely, assert_one_line_error):
    result = preprocess_coarsely("--validation_share", 0.15)
    assert_one_line_error(result, "has validation cases already; leave --validation_share out")
    result = preprocess_coarsely("--validation_share", 1.5)
    assert_one_line_error(result, "--validation_share 1.5: must lie between 0 and 1")


def test_a_copy_of_a_test_scan_does_not_train(root, tmp_path):
    for path in [*root.rglob("*test/**/*_ct.nii.gz"), *root.rglob("*test/**/*_seg-vert_msk.nii.gz")]:
        to = Path(str(path).replace("verse19test", "verse19training").replace("sub-phantom300", "sub-phantom301"))
        to.parent.mkdir(parents=True)
        shutil.copy(path, to)
    store = H5Cases(preprocess(root, 19, IsotropicSettings(6.0), tmp_path / "out", workers=1, pictures=False))
    assert ("training", "sub-phantom301") not in store.names and ("test", "sub-phantom300") in store.names
    assert store.notes["left_out"] == [
        "sub-phantom301 (training): the same scan as sub-phantom300 (test); give both one split, or leave one out"
    ]
