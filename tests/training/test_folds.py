"""Folds of a cross-validation: trained one by one, tested and compared as one."""

import shutil

import pytest

from reports.compare import compare

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def without_validation(phantom_root, tmp_path):
    """The phantoms as a folder in which the scans of validation are among those of training."""
    root = tmp_path / "phantoms"
    shutil.copytree(phantom_root, root)
    (root / "more").mkdir()
    (root / "dataset-verse19validation").rename(root / "more" / "dataset-verse19training")
    return root


def test_folds_need_no_validation_split_and_are_compared_as_one(
    run_script, tmp_path, without_validation, assert_one_line_error, with_reports, monkeypatch
):
    monkeypatch.setattr("utils.resources.usable_cores", lambda: 1)  # preprocessing in this process, which is quicker

    def train(name, *arguments):
        common = ["--data_path", without_validation, "--model_name", name, "--input_shape", 16, 16, 32, "--epochs", 1]
        common += ["--workers", 0, "--model_args", "channels=4,8"]
        with with_reports(False):
            return run_script("training/train_heatmap.py", *common, *arguments, cwd=tmp_path)

    assert_one_line_error(train("plain"), "has no validation cases", "--validation_share 0.15")
    folders = []
    for fold in ("1/2", "2/2"):
        result = train(f"localiser_{fold[0]}", "--fold", fold)
        assert result.returncode == 0, result.stderr
        folders.append(tmp_path / "trained_models" / f"localiser_{fold[0]}")
    assert list(compare(folders)["runs"]) == ["localiser (2 folds)"]
