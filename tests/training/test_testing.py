import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from preprocessing import IsotropicSettings, preprocess
from reports.compare import compare
from training import testing
from training.settings import TrainingSettings
from training.tasks.segmenter import SegmentationTraining
from utils.tasks import SEGMENTATION

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.mark.parametrize("labels", ["binary", "vertebrae"])
def test_masks_are_kept_on_the_grid_of_the_h5(segmentation_h5, tmp_path, monkeypatch, labels):
    shape = SEGMENTATION.input_shape
    settings = TrainingSettings(
        SEGMENTATION, (segmentation_h5,), "run", input_shape=shape, loss="DiceCE", labels=labels, output=tmp_path
    )
    task = SegmentationTraining(settings)
    dataset = task.dataset(segmentation_h5, "test")
    target = dataset[0]["label"].data[0].long()
    found = torch.where(torch.arange(target.shape[2]) < target.shape[2] // 2, target, 0)
    probabilities = torch.nn.functional.one_hot(found, max(task.out_channels, 2)).movedim(-1, 0).float()
    probabilities = probabilities[1:] if task.out_channels == 1 else probabilities
    monkeypatch.setattr(task, "predict", lambda *_: probabilities)
    monkeypatch.setattr(task, "clean", lambda probabilities_KXYZ, _: probabilities_KXYZ)
    testing.test(task, None, dataset, settings, None, epoch=1)

    (case,) = dataset.case_ids
    _, stored = dataset.store.read("test", case)
    expected = stored if labels == "vertebrae" else (stored > 0).astype(np.uint8)
    lower = np.where(np.arange(stored.shape[2]) < stored.shape[2] // 2, expected, 0)
    for name, wanted in (("prediction", lower), ("target", expected)):
        image = nib.load(tmp_path / "run" / "test" / f"{case}_{name}.nii.gz")
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(image.dataobj), wanted)
        np.testing.assert_allclose(image.affine, dataset.store.case("test", case).grid.affine, atol=1e-4)
    assert 0 < lower.astype(bool).sum() < expected.astype(bool).sum()
    assert json.loads((tmp_path / "run" / "test_metrics.json").read_text(encoding="utf-8"))["cases"][0]["case"] == case


# Tests without training: which files they write, and with which options.


@pytest.fixture
def again(run_script, tmp_path, segmentation_h5):
    """Test a run again: (arguments …) -> how it ended. Of the run's settings, none is given."""

    def run(*arguments: object, data_path: object = segmentation_h5):
        command = ["--data_path", data_path, "--model_name", "run", "--test_only", "--workers", 0]
        return run_script("training/train_segmentation.py", *command, *arguments, cwd=tmp_path)

    return run


def metrics_of(folder):
    return json.loads((folder / "test_metrics.json").read_text(encoding="utf-8"))


def test_each_test_keeps_its_own_results(segment, again, tmp_path):
    assert segment("run", "--labels", "regions", "--full_validation", 1).returncode == 0
    run = tmp_path / "trained_models" / "run"
    kept = ("test_metrics.json", "last.pt", "best.pt", "config.json", "metrics.csv")
    before = {name: (run / name).read_bytes() for name in kept}
    first = metrics_of(run)
    assert first["test"] == {"split": "test", "overlap": 0.5, "tta": False, "postprocess": "column"} | {
        "epoch": first["test"]["epoch"]
    }

    result = again()
    assert result.returncode == 0, result.stderr
    assert {name: (run / name).read_bytes() for name in kept} == before

    other = again("--overlap", 0.75, "--tta", "--postprocess", "largest")
    assert other.returncode == 0, other.stderr
    folder = run / "further_tests" / "test_overlap0.75_tta_largest"
    found = metrics_of(folder)
    assert found["test"] == {**first["test"], "overlap": 0.75, "tta": True, "postprocess": "largest"}
    assert found["cases"] != first["cases"] and [row["case"] for row in found["cases"]] == [first["cases"][0]["case"]]
    assert str(folder.relative_to(tmp_path) / "report.html") in other.stdout and (folder / "report.html").exists()
    assert list(compare([run, folder])["runs"]) == ["run", folder.name]

    assert again("--test_split", "validation").returncode == 0
    validation = metrics_of(run / "further_tests" / "validation")
    assert {row["case"] for row in validation["cases"]}.isdisjoint(row["case"] for row in first["cases"])
    rows = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3 and validation["test"]["epoch"] == first["test"]["epoch"]
    assert {name: (run / name).read_bytes() for name in kept} == before


def test_mistakes(segment, again, tmp_path, heatmap_h5, assert_one_line_error):
    assert_one_line_error(again(), "run", "no such file")
    assert not (tmp_path / "trained_models").exists()
    assert segment("run").returncode == 0
    run = tmp_path / "trained_models" / "run"
    before = set(run.rglob("*"))
    assert_one_line_error(again("--lr", 2), "--lr 1.0", "can't change to 2.0", "--test_only")
    assert_one_line_error(again("--overlap", 1), "--overlap 1.0")
    assert_one_line_error(again("--config", "run"), "leave --config out")
    assert_one_line_error(again(data_path=heatmap_h5), "task heatmap")
    assert_one_line_error(segment("run", "--tta"), "--tta: only with --test_only")
    assert_one_line_error(segment("run", "--test_split", "validation"), "--test_split: only with --test_only")
    (run / "last.pt").unlink()
    shutil.rmtree(run / "test")
    assert again().returncode == 0 and (run / "test").exists()  # it takes the best network alone
    (run / "best.pt").write_bytes(b"broken")
    assert_one_line_error(again(), "best.pt", "not a checkpoint")
    assert set(run.rglob("*")) == before - {run / "last.pt"} | {run / "report.html"}


def test_cases_that_the_run_does_not_know(segment, again, tmp_path, phantom_root, assert_one_line_error):
    assert segment("run", "--epochs", 1).returncode == 0
    other = preprocess(phantom_root, 19, IsotropicSettings(spacing_mm=4.0), tmp_path, workers=1, pictures=False)
    assert_one_line_error(again(data_path=other), other.name, "holds other cases", "inference.py --evaluate")


def test_the_localiser(run_script, tmp_path, heatmap_h5):
    common = ["training/train_heatmap.py", "--data_path", heatmap_h5, "--model_name", "run", "--workers", 0]
    arguments = ["--epochs", 1, "--model_args", "channels=4,8"]
    assert run_script(*common, *arguments, cwd=tmp_path).returncode == 0
    result = run_script(*common, "--test_only", "--tta", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "trained_models" / "run"
    plain, found = metrics_of(run), metrics_of(run / "further_tests" / "test_tta")
    assert found["test"]["tta"] is True and found["cases"][0]["r2"] != plain["cases"][0]["r2"]
