"""What is told about a run while it goes on."""

import json
import re
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import wandb

from training.run import tracking
from training.run.state import Progress
from training.run.tracking import Tracker, _told, print_means
from training.settings import TrainingSettings
from utils.tasks import HEATMAP, SEGMENTATION

pytestmark = pytest.mark.usefixtures("blank_pictures")
ROW = {"train_loss": 0.5, "validation_loss": 0.25, "lr": 1e-3, "steps_left_out": 0, "left_out": "", "chosen_by": ""}


def settings(task=SEGMENTATION, **more):
    return TrainingSettings(task, (Path("a.h5"),), "run", input_shape=(16, 16, 16), loss="DiceCE", **more)


def history(seconds, **more):
    return [{"epoch": epoch, **ROW, **more, "seconds": value} for epoch, value in enumerate(seconds, start=1)]


def test_an_epoch_is_a_line():
    line = " · ".join(_told(history([60.0], validation_r2=0.75), settings(HEATMAP, epochs=11), torch.device("cpu")))
    expected = (
        r"epoch 1/11 · train loss 0.5 · validation loss 0.25 · lr 0.001 · validation r2 0.75 · 60.0 s · 10 min left"
    )
    assert re.fullmatch(expected + r" · memory \d+\.\d GiB", line), line


def test_means_of_a_test_are_a_column_with_units_where_there_are_some(capsys):
    print_means({"dice": {"mean": 0.5, "unit": "1"}, "localisation_error_mm": {"mean": 12.25, "unit": "mm"}})
    expected = ["                 dice    0.5000", "localisation_error_mm   12.2500 mm"]
    assert capsys.readouterr().out.splitlines() == expected


def test_a_line_names_what_was_left_out_and_the_best_epoch():
    rows = history([1.0], full_validation_dice="")
    rows[0].update(steps_left_out=2, left_out="sub-1 (2)", chosen_by="full_validation_dice")
    line = _told(rows, settings(), torch.device("cpu"))
    assert {"steps left out 2", "left out: sub-1 (2)", "best so far"} <= set(line)
    assert not [part for part in line if part.startswith("full validation")]


def test_the_time_that_is_left_counts_one_validation_on_whole_scans_in_so_many_epochs():
    """Every fourth of 40 epochs takes 100 s, all others 20 s: 40 s on average, after each of them."""
    seconds = [20.0, 20.0, 20.0, 100.0] * 3
    for done in (8, 9, 12):
        told = _told(history(seconds[:done]), settings(epochs=40), torch.device("cpu"))
        assert f"{round((40 - done) * 40 / 60)} min left" in told


def test_the_report_is_written_ten_times_in_a_run_and_after_the_last_epoch(tmp_path):
    written = []
    tracker = Tracker(settings(epochs=40, output=tmp_path), torch.device("cpu"))
    with patch.object(tracking, "write_report", lambda _: written.append(progress.epoch)), tracker:
        for epoch in range(1, 38):
            progress = Progress(epoch, history=history([1.0] * epoch), epochs_since_best=30 if epoch == 37 else 0)
            tracker.log(progress)
    assert written == [1, *range(4, 37, 4), 37]


def test_the_report_of_a_run_that_was_stopped_shows_how_far_it_came(segment, tmp_path):
    with patch("training.scripts._test", side_effect=KeyboardInterrupt):
        assert segment("run", report=True).returncode == 130
    folder = tmp_path / "trained_models/run"
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Not tested yet" in text and "2 epochs of at most 2" in text


def test_a_test_of_fewer_epochs_goes_when_the_run_goes_on(segment, tmp_path):
    assert segment("run").returncode == 0
    metrics = tmp_path / "trained_models/run/test_metrics.json"
    assert segment("run").returncode == 0 and metrics.exists()
    with patch("training.trainer.Trainer._train_epoch", side_effect=KeyboardInterrupt):
        assert segment("run", "--epochs", 3).returncode == 130
    assert not metrics.exists()


@pytest.fixture
def wandb_runs(tmp_path, monkeypatch):
    """No key, and no files of Weights & Biases but below the test's folder: () -> folders of its runs."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wandb.teardown()  # it keeps what it knows of the environment
    yield lambda: sorted((tmp_path / "trained_models/run/wandb").glob("offline-run-*"))
    wandb.teardown()


def test_without_a_key_it_is_offline_and_a_run_that_goes_on_keeps_its_id(segment, tmp_path, wandb_runs):
    for epochs in (1, 2):
        result = segment("run", "--epochs", epochs, "--use_wandb")
        assert result.returncode == 0, result.stderr
        assert "no key is known" in result.stdout and "wandb sync trained_models/run/wandb" in result.stdout
    assert not list(tmp_path.glob("wandb*"))
    kept = (tmp_path / "trained_models/run/wandb/id.txt").read_text(encoding="utf-8")
    # Of two runs in one second, W&B adds a number to the second one's folder.
    assert [folder.name.split("-")[3] for folder in wandb_runs()] == [kept] * 2
    logged = b"".join(path.read_bytes() for folder in wandb_runs() for path in folder.glob("*.wandb"))
    dice = json.loads((tmp_path / "trained_models/run/test_metrics.json").read_text(encoding="utf-8"))["summary"]
    assert b"validation_dice" in logged and repr(dice["dice"]["mean"]).encode() in logged
    assert [len(list(folder.rglob("validation_*.png"))) for folder in wandb_runs()] == [1, 1]


def test_with_a_key_and_no_network_it_goes_offline(segment, monkeypatch, wandb_runs):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    result = segment("run", "--epochs", 1, "--use_wandb")
    assert result.returncode == 0, result.stderr
    assert "no answer from http://127.0.0.1:9" in result.stdout and "wandb sync trained_models/run" in result.stdout
    assert len(wandb_runs()) == 1


def test_settings_of_weights_and_biases_that_it_refuses_are_one_line(
    segment, monkeypatch, assert_one_line_error, wandb_runs
):
    monkeypatch.setenv("WANDB_MODE", "somehow")
    assert_one_line_error(
        segment("run", "--use_wandb"), "--use_wandb", "mode", "'online'", "WANDB_… of the environment"
    )
    assert not wandb_runs()


def test_what_goes_wrong_at_weights_and_biases_ends_no_run(tmp_path):
    with patch.object(tracking, "_start_wandb") as start:
        tracker = Tracker(settings(output=tmp_path, use_wandb=True), torch.device("cpu"))
    start.return_value.summary.update.side_effect = OSError(28, "No space left on device")
    with pytest.warns(UserWarning, match="No space left.*goes on without"), tracker:
        tracker.log_test({"dice": {"mean": 0.5, "unit": "1"}})
    assert not start.return_value.finish.called
