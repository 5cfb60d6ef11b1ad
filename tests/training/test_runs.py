"""Both training scripts end to end on a tiny phantom, as users run them."""

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from metrics.metric_handler import MASK_METRICS
from networks import ARCHITECTURES
from preprocessing import Settings, preprocess
from training.checkpoints import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"heatmap": "training/train_heatmap.py", "segmentation": "training/train_segmentation.py"}
SHAPES = {"heatmap": ["16", "16", "32"], "segmentation": ["16", "16", "16"]}
SMALL = ["--model_args", "channels=4,8,16", "--workers", "0"]


@pytest.fixture
def train(run_script, tmp_path, heatmap_h5, segmentation_h5):
    """Run a training script in an empty folder: (task, model_name, arguments …) -> completed process."""

    def run(task: str, model_name: str, *arguments: object, data_path: object = None, process: bool = False):
        data_path = data_path or {"heatmap": heatmap_h5, "segmentation": segmentation_h5}[task]
        common = ["--data_path", data_path, "--model_name", model_name, "--input_shape", *SHAPES[task], *SMALL]
        return run_script(SCRIPTS[task], *common, *arguments, cwd=tmp_path, process=process)

    return run


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(row["train_loss"], row["validation_loss"]) for row in history(folder)]


@pytest.mark.parametrize("task", SCRIPTS)
def test_a_run_leaves_everything_behind(train, tmp_path, task):
    result = train(task, "run", "--epochs", 2, "--batch_size", 2, process=True)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "trained_models" / "run"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
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
    assert imread(folder / "images" / "epoch_0002.png").std() > 0.05
    assert "test_metrics.json" in result.stdout and "report.html" in result.stdout
    assert config["hardware"]["cores"] >= 1 and config["hardware"]["processor"]
    assert len([name for name in names if name.startswith("test/")]) == (2 if task == "segmentation" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("task", SCRIPTS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_trains_on_both_tasks(run_script, tmp_path, phantom_root, segmentation_h5, task, name):
    options = {"SwinUNetR": ["feature_size=12"], "MedNeXt": ["deep_supervision=True"], "UNetR": ["hidden_size=48"]}
    if task == "heatmap":
        settings = Settings("heatmap", shape=(32, 32, 64))
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
        result = train("segmentation", name, "--epochs", 2, "--loss", "BCE", *arguments)
        assert result.returncode == 0, result.stderr
    runs = [losses(tmp_path / "trained_models" / name) for name in ("plain", "small", "found")]
    assert runs[1] == [pytest.approx(row, rel=1e-3) for row in runs[0]]
    assert runs[2] == runs[0]
    assert "--memory_gb 4: fp32, no checkpointing, 1 × 2 patches a step; a step of UNet" in result.stdout
    config = json.loads((tmp_path / "trained_models" / "small" / "config.json").read_text(encoding="utf-8"))
    assert (config["checkpointing"], config["batch_size"], config["accumulate"]) == (True, 1, 2)


def test_the_last_step_of_an_epoch_may_have_fewer_batches(train, tmp_path):
    result = train("segmentation", "run", "--epochs", 1, "--patches_per_volume", 1, "--accumulate", 3)
    assert result.returncode == 0, result.stderr


def test_training_learns_and_one_seed_gives_one_run(train, tmp_path):
    arguments = ["--epochs", 3, "--patches_per_volume", 4, "--bone_share", 1]
    for name in ("one", "two"):
        assert train("segmentation", name, *arguments).returncode == 0
    assert train("segmentation", "other", *arguments, "--seed", 1).returncode == 0
    folder = tmp_path / "trained_models"
    first = losses(folder / "one")
    assert first == losses(folder / "two") != losses(folder / "other")
    assert first[-1][0] < first[0][0]


def test_workers_do_not_change_the_losses(train, tmp_path):
    assert train("segmentation", "none", "--epochs", 1).returncode == 0
    assert train("segmentation", "two", "--epochs", 1, "--workers", 2).returncode == 0
    assert losses(tmp_path / "trained_models" / "none") == losses(tmp_path / "trained_models" / "two")


def test_a_killed_run_goes_on_as_if_nothing_had_happened(train, tmp_path, heatmap_h5):
    assert train("heatmap", "whole", "--epochs", 4).returncode == 0
    folder = tmp_path / "trained_models" / "killed"
    command = [sys.executable, str(ROOT / SCRIPTS["heatmap"]), "--data_path", str(heatmap_h5), "--model_name", "killed"]
    command += ["--input_shape", *SHAPES["heatmap"], *SMALL, "--epochs", "4"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = torch.load(folder / "last.pt", weights_only=True)["progress"]["epoch"]
    assert 1 <= reached < 4, "killed too late to show anything"
    result = train("heatmap", "killed", "--epochs", 4)
    assert result.returncode == 0 and "going on after epoch" in result.stdout, result.stderr
    assert losses(folder) == losses(tmp_path / "trained_models" / "whole")
    assert not list(folder.rglob("*.partial"))


def test_early_stopping(train, tmp_path):
    assert train("heatmap", "run", "--epochs", 30, "--early_stopping", 1, "--lr", 1e-9).returncode == 0
    assert len(history(tmp_path / "trained_models" / "run")) < 30


@pytest.mark.parametrize("precision", ["bf16"])
def test_autocast_on_the_cpu(train, tmp_path, precision):
    assert train("segmentation", "run", "--epochs", 1, "--precision", precision).returncode == 0


@pytest.mark.parametrize("labels", ["regions", "vertebrae"])
def test_more_classes(train, tmp_path, labels):
    result = train("segmentation", "run", "--epochs", 1, "--labels", labels)
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "trained_models/run/test_metrics.json").read_text(encoding="utf-8"))
    assert "dice" in content["summary"]


def test_a_folder_is_preprocessed_once(train, tmp_path, phantom_root):
    shutil.copytree(phantom_root, tmp_path / "verse")
    first = train("heatmap", "run", "--epochs", 1, data_path="verse")
    assert first.returncode == 0, first.stderr
    assert "preprocess" in first.stdout
    files = sorted((tmp_path / "preprocessed").rglob("sub-*.h5"))
    times = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 4
    second = train("heatmap", "again", "--epochs", 1, data_path="verse")
    assert second.returncode == 0 and [file.stat().st_mtime_ns for file in files] == times


def test_wandb_only_when_asked_and_offline_without_a_key(train, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert train("heatmap", "silent", "--epochs", 1).returncode == 0
    assert not list(tmp_path.glob("wandb*"))
    result = train("heatmap", "logged", "--epochs", 1, "--use_wandb")
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_weights_of_another_run_can_start_one(train, tmp_path):
    assert train("heatmap", "first", "--epochs", 1).returncode == 0
    for source in ("first", "trained_models/first", "trained_models/first/best.pt"):
        result = train("heatmap", f"next-{len(source)}", "--epochs", 1, "--init_from", source)
        assert result.returncode == 0, result.stderr


def test_users_mistakes(train, tmp_path, heatmap_h5, segmentation_h5, assert_one_line_error):
    """Each is one line, exit code 2, and leaves no run behind."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.h5").write_text("no H5", encoding="utf-8")
    for task, arguments, data_path, words in (
        ("segmentation", [], "absent.h5", ["absent.h5", "no such file"]),
        ("segmentation", [], "absent", ["absent"]),
        ("segmentation", [], "empty", ["empty", "no case"]),
        ("segmentation", [], "text.h5", ["text.h5", "not an HDF5 file"]),
        ("segmentation", [], heatmap_h5, [heatmap_h5.name, "task heatmap, not segmentation"]),
        ("heatmap", [], segmentation_h5, [segmentation_h5.name, "task segmentation, not heatmap"]),
        ("heatmap", ["--input_shape", 16, 16, 16], None, [heatmap_h5.name, "--input_shape"]),
        ("segmentation", ["--model", "Unknown"], None, ["--model", "Unknown"]),
        ("segmentation", ["--input_shape", 16, 18, 16], None, ["axis Y", "18", "multiple of 4"]),
        ("segmentation", ["--model_args", "depth=3"], None, ["depth"]),
        ("segmentation", ["--device", "tpu"], None, ["--device", "tpu"]),
        ("segmentation", ["--init_from", "nothing"], None, ["nothing", "no such checkpoint"]),
    ):
        assert_one_line_error(train(task, "run", "--epochs", 1, *arguments, data_path=data_path), *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "text.h5"]


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
