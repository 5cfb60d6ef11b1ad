"""Both training scripts end to end on a tiny phantom, as users run them."""

import csv
import json
import math
import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from matplotlib.image import imread

from metrics.mask_metrics import MASK_METRICS
from networks import ARCHITECTURES
from prediction.checkpoints import load_checkpoint
from preprocessing import ViewSettings, preprocess

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"heatmap": "training/train_heatmap.py", "segmentation": "training/train_segmentation.py"}
SHAPES = {"heatmap": ["16", "16", "32"], "segmentation": ["16", "16", "16"]}
SMALL = ["--model_args", "channels=4,8,16", "--workers", "0"]


@pytest.fixture
def train(run_script, tmp_path, heatmap_h5, segmentation_h5, with_reports):
    """Run a training script in an empty folder: (task, model_name, arguments …) -> completed process.

    The report, which takes longer than all the rest, is left out unless ``report=True``.
    """

    def run(
        task: str, model_name: str, *arguments: object, data_path: object = None, process: bool = False, report=False
    ):
        data_path = data_path or {"heatmap": heatmap_h5, "segmentation": segmentation_h5}[task]
        common = ["--data_path", data_path, "--model_name", model_name, "--input_shape", *SHAPES[task], *SMALL]
        with with_reports(report):
            return run_script(SCRIPTS[task], *common, *arguments, cwd=tmp_path, process=process)

    return run


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{key: float(row[key]) for key in row if key not in ("chosen_by", "left_out") and row[key]} for row in rows]


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(row["train_loss"], row["validation_loss"]) for row in history(folder)]


@pytest.mark.parametrize("task", SCRIPTS)
def test_a_run_leaves_everything_behind(train, tmp_path, task):
    draws = task == "segmentation"  # in a process of its own, as users do
    result = train(task, "run", "--epochs", 2, "--batch_size", 2, process=draws, report=True)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "trained_models" / "run"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert not list(tmp_path.rglob("wandb*"))  # it wasn't asked for
    assert {
        "last.pt",
        "best.pt",
        "config.json",
        "metrics.csv",
        "curves.png",
        "test_metrics.json",
        "report.html",
        "images/epoch_0001.png",
        "images/epoch_0002.png",
    } <= names
    assert sum(name.startswith("images/test_") for name in names) == 1
    rows = history(folder)
    assert [row["epoch"] for row in rows] == [1, 2] and all(map(math.isfinite, rows[-1].values()))
    content = json.loads((folder / "test_metrics.json").read_text(encoding="utf-8"))
    wanted = {
        "heatmap": {"mae", "rmse", "r2", "box_iou", "spine_in_box", "box_centre_error_mm"},
        "segmentation": set(MASK_METRICS),
    }[task]
    assert set(content["summary"]) == wanted and len(content["cases"]) == 1
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["settings"]["epochs"] == 2 and config["versions"]["torch"].startswith("2.")
    checkpoint = load_checkpoint(folder / "best.pt")
    assert checkpoint["network"].name == "UNet" and checkpoint["settings"]["model_name"] == "run"
    assert not draws or imread(folder / "images" / "epoch_0002.png").std() > 0.05
    assert "test_metrics.json" in result.stdout and "report.html" in result.stdout
    assert config["hardware"]["cores"] >= 1 and config["hardware"]["processor"]
    assert len([name for name in names if name.startswith("test/")]) == (2 if task == "segmentation" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("task", SCRIPTS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_trains_on_both_tasks(run_script, tmp_path, phantom_root, segmentation_h5, task, name):
    options = {"SwinUNetR": ["feature_size=12"], "MedNeXt": ["deep_supervision=True"], "UNetR": ["hidden_size=48"]}
    if task == "heatmap":
        settings = ViewSettings(shape=(32, 32, 64))
        h5, shape = preprocess(phantom_root, 19, settings, tmp_path, workers=1, pictures=False), "32 32 64"
    else:
        h5, shape = segmentation_h5, "32 32 32"
    arguments = f"--data_path {h5} --model_name run --epochs 1 --workers 0 --input_shape {shape}".split()
    model = ["--model", name, "--checkpointing", *(["--model_args", *options[name]] if name in options else [])]
    result = run_script(SCRIPTS[task], *arguments, *model, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "trained_models" / "run" / "test_metrics.json").exists()


def test_small_memory_changes_nothing_but_memory(train, tmp_path):
    """Two patches in a step at once, or one after the other with activations computed twice: the same losses."""
    for name, arguments in {
        "plain": ["--batch_size", 2],
        "small": ["--batch_size", 1, "--accumulate", 2, "--checkpointing"],
        "found": ["--batch_size", 2, "--memory_gb", 4],
    }.items():
        result = train("segmentation", name, "--epochs", 2, *arguments)
        assert result.returncode == 0, result.stderr
    runs = [losses(tmp_path / "trained_models" / name) for name in ("plain", "small", "found")]
    assert runs[1] == [pytest.approx(row, rel=1e-3) for row in runs[0]]
    assert runs[2] == runs[0]
    assert "--memory_gb 4: fp32, no checkpointing, 1 × 2 patches a step; a step of UNet" in result.stdout
    config = json.loads((tmp_path / "trained_models" / "small" / "config.json").read_text(encoding="utf-8"))
    assert (config["checkpointing"], config["batch_size"], config["accumulate"]) == (True, 1, 2)


def test_training_learns_and_another_seed_gives_another_run(train, tmp_path):
    """That one seed gives one run is seen in ``test_frozen_losses``."""
    arguments = ["--epochs", 3, "--patches_per_volume", 4, "--bone_share", 1]
    assert train("segmentation", "one", *arguments).returncode == 0
    assert train("segmentation", "other", *arguments, "--seed", 1).returncode == 0
    folder = tmp_path / "trained_models"
    first = losses(folder / "one")
    assert first != losses(folder / "other")
    assert first[-1][0] < first[0][0]


def test_early_stopping(train, tmp_path):
    assert train("heatmap", "run", "--epochs", 30, "--early_stopping", 1, "--lr", 1e-9).returncode == 0
    assert len(history(tmp_path / "trained_models" / "run")) < 30


def test_autocast_on_the_cpu(train):
    assert train("segmentation", "run", "--epochs", 1, "--precision", "bf16").returncode == 0


@pytest.mark.parametrize("labels", ["regions", "vertebrae"])
def test_more_classes(train, tmp_path, labels):
    result = train("segmentation", "run", "--epochs", 1, "--labels", labels)
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "trained_models/run/test_metrics.json").read_text(encoding="utf-8"))
    assert "dice" in content["summary"]


def test_a_folder_is_preprocessed_once(train, tmp_path, phantom_root, monkeypatch):
    monkeypatch.setattr("utils.resources.usable_cores", lambda: 1)  # in this process, which is quicker
    shutil.copytree(phantom_root, tmp_path / "verse")
    first = train("heatmap", "run", "--epochs", 1, data_path="verse")
    assert first.returncode == 0, first.stderr
    assert "preprocess" in first.stdout
    (h5_path,) = (tmp_path / "preprocessed").glob("*.h5")
    written = h5_path.stat().st_mtime_ns
    second = train("heatmap", "again", "--epochs", 1, data_path="verse")
    assert second.returncode == 0 and h5_path.stat().st_mtime_ns == written


def test_weights_of_another_run_can_start_one(train, tmp_path):
    assert train("heatmap", "first", "--epochs", 1).returncode == 0
    for source in ("first", "trained_models/first", "trained_models/first/best.pt"):
        result = train("heatmap", f"next-{len(source)}", "--epochs", 1, "--init_from", source)
        assert result.returncode == 0, result.stderr


def test_users_mistakes(train, tmp_path, heatmap_h5, segmentation_h5, assert_one_line_error, monkeypatch):
    """Each is one line, exit code 2, and leaves no run behind."""
    monkeypatch.setenv("PATH", "")  # no compiler
    monkeypatch.delenv("CXX", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.h5").write_text("no H5", encoding="utf-8")
    for task, arguments, data_path, words in (
        ("segmentation", [], "absent.h5", ["absent.h5", "no such file"]),
        ("segmentation", [], "absent", ["can't be downloaded", "127.0.0.1:9", "no connection"]),
        ("segmentation", ["--no_download"], "absent", ["absent", "no such file or folder"]),
        ("segmentation", ["--no_download"], "empty", ["empty", "no case"]),
        ("segmentation", [], "text.h5", ["text.h5", "not an HDF5 file"]),
        ("segmentation", [], heatmap_h5, [heatmap_h5.name, "task heatmap, not segmentation"]),
        ("heatmap", [], segmentation_h5, [segmentation_h5.name, "task segmentation, not heatmap"]),
        ("heatmap", ["--input_shape", 16, 16, 16], None, [heatmap_h5.name, "(16, 16, 16); leave the argument out"]),
        ("segmentation", ["--model", "Unknown"], None, ["--model", "Unknown"]),
        ("segmentation", ["--input_shape", 16, 18, 16], None, ["axis Y", "18", "multiple of 4"]),
        ("segmentation", ["--model_args", "depth=3"], None, ["depth"]),
        ("segmentation", ["--model_args", "name=UNet"], None, ["'name'", "change --input_shape or --model_args"]),
        ("segmentation", ["--device", "tpu"], None, ["--device", "tpu"]),
        ("segmentation", ["--device", "cpu", "--compile"], None, ["--compile", "install a C++ compiler"]),
        ("segmentation", ["--init_from", "nothing"], None, ["nothing", "no such checkpoint"]),
    ):
        assert_one_line_error(train(task, "run", "--epochs", 1, *arguments, data_path=data_path), *words)
    with patch("utils.files.h5_cases.H5Cases.foreground_vox", lambda *_: np.empty((0, 3), np.int16)):
        assert_one_line_error(train("segmentation", "run"), segmentation_h5.name, "no mask of the training cases holds")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "text.h5"]


def test_the_localiser_takes_its_input_shape_from_the_h5(run_script, tmp_path, heatmap_h5):
    """The H5 holds views of 16×16×32; the run says so, and continues without the argument and with it."""
    arguments = ["--data_path", heatmap_h5, "--model_name", "run", *SMALL]
    folder = tmp_path / "trained_models" / "run"
    assert run_script(SCRIPTS["heatmap"], *arguments, "--epochs", 1, cwd=tmp_path).returncode == 0
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["settings"]["input_shape"] == [16, 16, 32]
    assert load_checkpoint(folder / "best.pt")["network"].input_shape == (16, 16, 32)
    for given in ([], ["--input_shape", *SHAPES["heatmap"]]):
        result = run_script(SCRIPTS["heatmap"], *arguments, "--epochs", 1, *given, cwd=tmp_path)
        assert result.returncode == 0 and "going on after epoch 1" in result.stdout, result.stderr


def test_mistakes_about_an_existing_run(train, tmp_path, assert_one_line_error):
    assert train("heatmap", "run", "--epochs", 1).returncode == 0
    folder = tmp_path / "trained_models" / "run"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = train("heatmap", "run", "--epochs", 1, "--seed", 5)
    assert_one_line_error(result, "run", "--seed 0", "choose another --model_name")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    other = train("heatmap", "other", "--epochs", 1, "--init_from", "run", "--model", "AttentionUNet3D")
    assert_one_line_error(other, "best.pt", "UNet", "AttentionUNet3D")
    assert not (tmp_path / "trained_models" / "other").exists()
    (folder / "last.pt").write_bytes(b"broken")
    assert_one_line_error(train("heatmap", "run", "--epochs", 1), "last.pt", "not a checkpoint")
