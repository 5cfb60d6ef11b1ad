"""Runs that were killed, stopped or damaged, and go on."""

import json
import os
import pickle
import shutil
import signal
import warnings
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from torch import nn

from networks.UNet import UNet
from prediction.checkpoints import load_checkpoint
from preprocessing import IsotropicSettings, preprocess
from training import trainer as engine
from training.arguments import parse_arguments
from training.run.lock import only_trainer
from training.run.state import is_best_written, load_last
from training.steps.optimizer import build_optimizer
from training.steps.ranks import Ranks
from utils.misc import Stopped
from utils.tasks import SEGMENTATION

pytestmark = pytest.mark.usefixtures("blank_pictures")


def with_dropout(forward):
    """The network needs the same random numbers as if its run had not been killed."""

    def drop_out_and_go_on(self, image):
        return forward(self, nn.functional.dropout(image, 0.3, self.training))

    return drop_out_and_go_on


class Killed(BaseException):
    """SIGKILL, inside of this process: nobody catches it, and nothing is written after it."""


def killed_at(checkpoint: int, before: bool):
    """In it, training dies when it writes so many checkpoints: before or after the last of them is there."""
    write, numbers = engine.save_last, iter(range(1, checkpoint + 1))

    def save_last(*arguments, **more):
        if next(numbers) < checkpoint:
            return write(*arguments, **more)
        if not before:
            write(*arguments, **more)
        raise Killed

    return patch.object(engine, "save_last", save_last)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    segment, tmp_path, workers, results_of, monkeypatch
):
    monkeypatch.setattr(UNet, "forward", with_dropout(UNet.forward))
    arguments = ["--full_validation", 1, "--clip", 1, "--ema", 0.9]
    assert segment("whole", *arguments).returncode == 0
    kills = 0
    while True:
        try:
            with killed_at(2 + kills % 2, before=kills % 3 == 2):
                assert segment("killed", "--checkpoint_minutes", 0, "--workers", workers, *arguments).returncode == 0
            break
        except Killed:
            kills += 1
    assert kills >= 6
    runs = tmp_path / "trained_models"
    assert results_of(runs / "killed") == results_of(runs / "whole")


@pytest.mark.parametrize(("number", "flags"), [(signal.SIGINT, []), (signal.SIGTERM, ["--restart"])])
def test_a_signal_stops_after_the_step_and_the_same_command_goes_on(segment, tmp_path, number, flags, results_of):
    assert segment("whole").returncode == 0
    step = engine.Trainer._step

    def with_signal(self, batches):
        os.kill(os.getpid(), number)
        return step(self, batches)

    with patch.object(engine.Trainer, "_step", with_signal):
        result = segment("stopped", *flags)
    assert result.returncode == 128 + number
    again = " ".join(["the same command", *(f"without {flag}" for flag in flags)])
    assert result.stderr.splitlines()[-1] == f"stopped after 1 patches of epoch 1; {again} goes on from here"
    assert segment("stopped").returncode == 0
    assert results_of(tmp_path / "trained_models/stopped") == results_of(tmp_path / "trained_models/whole")


def test_a_signal_stops_within_validation_too(segment, tmp_path, results_of):
    assert segment("whole", "--full_validation", 1).returncode == 0
    score = engine.validate_whole_scans

    def with_signal(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return score(*arguments)

    with patch.object(engine, "validate_whole_scans", with_signal):
        result = segment("stopped", "--full_validation", 1)
    assert result.returncode == 143 and "after 6 patches of epoch 1" in result.stderr
    assert segment("stopped", "--full_validation", 1).returncode == 0
    assert results_of(tmp_path / "trained_models/stopped") == results_of(tmp_path / "trained_models/whole")


def test_a_finished_run_goes_on_for_more_epochs(segment, tmp_path, segmentation_h5, rows_of):
    """With other names for the same data, other early stopping and other workers."""
    assert segment("run").returncode == 0
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(segmentation_h5.parent, elsewhere)
    arguments = ["--epochs", 3, "--early_stopping", 7, "--workers", 1, "--data_path", elsewhere / segmentation_h5.name]
    result = segment("run", *arguments)
    assert result.returncode == 0 and "going on after epoch 2" in result.stdout, result.stderr
    assert [row["epoch"] for row in rows_of(tmp_path / "trained_models/run")] == ["1", "2", "3"]


def test_a_run_on_two_files_goes_on_with_one_of_the_same_cases(
    segment, tmp_path, phantom_root, segmentation_h5, assert_one_line_error
):
    files = [
        preprocess(phantom_root, 19, IsotropicSettings(6.0), tmp_path / case, 1, [f"sub-{case}*"], pictures=False)
        for case in ("phantom101", "phantom200")
    ]
    assert segment("run", "--data_path", *files).returncode == 0
    result = segment("run", "--epochs", 3, "--data_path", segmentation_h5)
    assert result.returncode == 0 and "going on after epoch 2" in result.stdout, result.stderr
    result = segment("other", "--data_path", files[0], phantom_root)
    assert_one_line_error(result, files[0].name, "yet to be preprocessed", "give the H5 files")
    assert_one_line_error(segment("other", "--data_path", files[0], "absent.h5"), "absent.h5", "no such file")


def test_other_cases_are_refused(segment, tmp_path, segmentation_h5, heatmap_h5, assert_one_line_error):
    assert segment("run").returncode == 0
    with patch("utils.files.h5_data_set.H5DataSet.fingerprint", lambda _: "of other cases"):
        assert_one_line_error(segment("run", "--epochs", 3), segmentation_h5.name, "other cases", "--restart")


def test_restart_moves_the_old_run_aside(segment, tmp_path, results_of):
    runs = tmp_path / "trained_models"
    assert segment("run").returncode == 0
    before = results_of(runs / "run")
    for aside in ("run.old", "run.old2"):
        result = segment("run", "--seed", 1, "--restart")
        assert result.returncode == 0 and f"run: moved to trained_models/{aside}" in result.stdout, result.stderr
    assert results_of(runs / "run.old") == before
    assert results_of(runs / "run") == results_of(runs / "run.old2") != before


def test_the_second_of_two_processes_is_told_who_holds_the_run(segment, tmp_path, assert_one_line_error):
    with only_trainer(tmp_path / "trained_models/run"):
        assert_one_line_error(segment("run"), "trained_models/run", f"process {os.getpid()}", "another --model_name")
    assert segment("run").returncode == 0


def test_a_full_disk_leaves_the_checkpoint_of_before(segment, tmp_path, assert_one_line_error, results_of):
    """It fills up while the second checkpoint is written; with room again, the run goes on."""
    assert segment("whole").returncode == 0
    save, numbers = torch.save, iter(range(100))

    def full(content, file):
        if "progress" in content and next(numbers) >= 1:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(content, file)

    with patch("torch.save", full):
        result = segment("run", "--checkpoint_minutes", 0)
    assert_one_line_error(result, "last.pt", "No space left", "make room")
    result = segment("run")
    assert result.returncode == 0 and "going on after 1 patches of epoch 1" in result.stdout
    assert results_of(tmp_path / "trained_models/run") == results_of(tmp_path / "trained_models/whole")


def test_half_written_files_of_a_killed_process_go(segment, tmp_path):
    assert segment("run").returncode == 0
    left = tmp_path / "trained_models/run/images/.epoch_0001.png.77.partial"
    left.write_bytes(b"half")
    assert segment("run").returncode == 0 and not left.exists()


class Evil:
    """A pickle that would write a file."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def replaced(content: dict, **changes: object) -> dict:
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


def other_network(content: dict) -> dict:
    return replaced(content, network={**content["network"], "name": "AttentionUNet3D"})


def not_finite(content: dict) -> dict:
    name, tensor = next(iter(content["weights"].items()))
    return replaced(content, weights={**content["weights"], name: tensor * float("nan")})


DAMAGES = {
    "empty": lambda path, content: path.write_bytes(b""),
    "cut": lambda path, content: path.write_bytes(path.read_bytes()[:5000]),
    "garbage": lambda path, content: path.write_bytes(os.urandom(5000)),
    "text": lambda path, content: path.write_text("no checkpoint", encoding="utf-8"),
    "a key less": lambda path, content: torch.save(replaced(content, settings=None), path),
    "no weights": lambda path, content: torch.save(replaced(content, weights=None), path),
    "no dictionary": lambda path, content: torch.save([1, 2], path),
    "other format": lambda path, content: torch.save(replaced(content, format="2"), path),
    "other network": lambda path, content: torch.save(other_network(content), path),
    "other task": lambda path, content: torch.save(
        replaced(content, settings={**content["settings"], "task": "heatmap"}), path
    ),
    "weights not finite": lambda path, content: torch.save(not_finite(content), path),
    "pickle": lambda path, content: path.write_bytes(pickle.dumps(Evil(open, str(path.parent / "evil"), "w"))),
    "pickle of torch": lambda path, content: torch.save(
        replaced(content, epoch=Evil(os.mkdir, str(path.parent / "evil"))), path
    ),
    "pickle that evaluates": lambda path, content: torch.save(
        Evil(eval, f"open({str(path.parent / 'evil')!r}, 'w')"), path
    ),
    "a folder": lambda path, content: (path.unlink(), path.mkdir()),
}
# What only the last checkpoint has.
STATE_DAMAGES = {
    "no progress": lambda path, content: torch.save(replaced(content, progress=None), path),
    "unknown field": lambda path, content: torch.save(
        replaced(content, progress={**content["progress"], "unknown": 1}), path
    ),
    "wrong type": lambda path, content: torch.save(
        replaced(content, progress={**content["progress"], "epoch": "two"}), path
    ),
    "no optimizer": lambda path, content: torch.save(replaced(content, optimizer={}), path),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Where the run of ``finished`` lies after it was made once."""
    return tmp_path_factory.mktemp("ended")


@pytest.fixture
def finished(segment, tmp_path, ended):
    """A copy of a run of two epochs whose last two checkpoints are from the end of its epochs."""
    if not (ended / "run").exists():
        assert segment("run", "--full_validation", 2, "--epochs", 2).returncode == 0
        shutil.copytree(tmp_path / "trained_models/run", ended / "run")
        shutil.rmtree(tmp_path / "trained_models")
    shutil.copytree(ended / "run", tmp_path / "trained_models/run")
    return tmp_path / "trained_models/run"


@pytest.fixture
def load_again(finished, tmp_path, segmentation_h5):
    """Load the last checkpoint of the finished run: () -> how far it had come, the best network, what was told."""

    def load():
        config = json.loads((finished / "config.json").read_text(encoding="utf-8"))["settings"]
        arguments = ["--data_path", str(segmentation_h5), "--model_name", "run", "--output", str(finished.parent)]
        settings = parse_arguments(SEGMENTATION, [*arguments, "--input_shape", *map(str, config["input_shape"])])
        spec = load_checkpoint(finished / "previous.pt")["network"]
        network = spec.build()
        parts = {"optimizer": build_optimizer(network, settings)}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            progress, best = load_last(spec, network, parts, settings, Ranks())
            written = is_best_written(settings.run_folder, best, spec, SEGMENTATION)
        return progress, best, written, [str(warning.message) for warning in told]

    return load


@pytest.mark.parametrize("damage", [*DAMAGES, *STATE_DAMAGES])
def test_a_damaged_last_checkpoint_is_replaced_by_the_one_before(finished, load_again, damage):
    """It is kept aside, and nothing in it is executed."""
    last = finished / "last.pt"
    {**DAMAGES, **STATE_DAMAGES}[damage](last, torch.load(last, weights_only=True))
    progress, best, _, (told,) = load_again()
    assert (progress.epoch, progress.position, best.epoch) == (1, 6, 0)
    assert "last.pt: " in told and "Kept as last.pt.damaged; what came after previous.pt is done again" in told
    assert (finished / "last.pt.damaged").exists() and not (finished / "evil").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_best_checkpoint_is_found(finished, load_again, damage):
    """Its message has no remedy for a file that a command names, as there is nothing left to do."""
    best = finished / "best.pt"
    assert load_again()[2:] == (True, [])
    DAMAGES[damage](best, torch.load(best, weights_only=True))
    _, _, is_written, (told,) = load_again()
    assert not is_written and "best.pt: " in told and "it is written again from last.pt" in told and "give" not in told
    assert (finished / "best.pt.damaged").exists() and not (finished / "evil").exists()


def test_a_run_with_damaged_checkpoints_ends_as_it_did(segment, finished, results_of):
    before = results_of(finished)
    (finished / "last.pt").write_bytes(b"")
    (finished / "best.pt").unlink()
    result = segment("run", "--full_validation", 2)
    assert result.returncode == 0 and "going on after 6 patches of epoch 2" in result.stdout, result.stderr
    assert results_of(finished) == before


def test_a_best_checkpoint_of_an_epoch_that_is_done_again_goes(segment, finished, results_of):
    """There was none when the checkpoint was written from which the run goes on."""
    before = results_of(finished)
    (finished / "last.pt").unlink()
    with patch.object(engine.Trainer, "_train_epoch", side_effect=Stopped(signal.SIGTERM)):
        assert segment("run", "--full_validation", 2).returncode == 143
    assert not (finished / "best.pt").exists()
    assert segment("run", "--full_validation", 2).returncode == 0
    assert results_of(finished) == before


def test_a_signal_while_a_checkpoint_is_read_takes_it_for_no_damage(segment, finished):
    before = {path.name for path in finished.iterdir()}
    with patch("torch.load", side_effect=Stopped(signal.SIGTERM)):
        assert segment("run", "--full_validation", 2).returncode == 143
    assert {path.name for path in finished.iterdir()} == before


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), MemoryError()], ids=lambda error: repr(error)
)
def test_a_checkpoint_that_cant_be_read_is_no_damaged_one(segment, finished, error, assert_one_line_error):
    before = {path.name for path in finished.iterdir()}
    with patch("torch.load" if isinstance(error, MemoryError) else "pathlib.Path.read_bytes", side_effect=error):
        result = segment("run", "--full_validation", 2)
    assert_one_line_error(
        result, *(["memory", "not enough"] if isinstance(error, MemoryError) else ["last.pt", "Perm"])
    )
    assert {path.name for path in finished.iterdir()} == before


def test_both_checkpoints_damaged_is_one_line(segment, finished, assert_one_line_error):
    """Nothing can be done again, but the best network is there to begin anew from."""
    for name in ("last.pt", "previous.pt"):
        (finished / name).write_bytes(b"")
    result = segment("run", "--full_validation", 2)
    assert_one_line_error(result, "last.pt", "damaged", "empty", "--restart", "--init_from run")
    assert "give a run's folder" not in result.stderr
    assert load_checkpoint(finished / "best.pt")["epoch"] == 2
    assert segment("run", "--full_validation", 2, "--restart", "--init_from", "run").returncode == 0


def test_what_a_run_began_from_is_not_needed_to_go_on(segment, tmp_path, assert_one_line_error):
    arguments = ["--init_from", "first"]
    assert segment("first", "--epochs", 1).returncode == 0
    assert segment("run", "--epochs", 1, *arguments).returncode == 0
    shutil.rmtree(tmp_path / "trained_models/first")
    assert segment("run", *arguments).returncode == 0
    assert_one_line_error(segment("run", *arguments, "--restart"), "first", "no such checkpoint")


def test_a_run_that_fewer_epochs_end_before_its_first_best_epoch_has_a_network(segment, tmp_path):
    """It is the last one, until the run goes on."""
    with killed_at(1, before=False), pytest.raises(Killed):  # after the first epoch
        segment("run", "--epochs", 4, "--full_validation", 3)
    best = tmp_path / "trained_models/run/best.pt"
    assert not best.exists()
    result = segment("run", "--epochs", 1)
    assert result.returncode == 0 and (best.parent / "test_metrics.json").exists(), result.stderr
    assert load_checkpoint(best)["epoch"] == 1


def test_a_best_checkpoint_alone_is_not_written_over(segment, finished, assert_one_line_error):
    for name in ("last.pt", "previous.pt"):
        (finished / name).unlink()
    before = (finished / "best.pt").read_bytes()
    assert_one_line_error(segment("run"), "best.pt", "no last.pt", "--init_from", "--restart")
    assert (finished / "best.pt").read_bytes() == before


@pytest.mark.parametrize("content", ["", '{"settings": 1}', '{"settings": {}}'])
def test_a_damaged_config_is_read_from_a_checkpoint(segment, finished, content, assert_one_line_error):
    (finished / "config.json").write_text(content, encoding="utf-8")
    assert_one_line_error(segment("run", "--seed", 3), "--seed 0", "can't change to 3")
    assert segment("run", "--full_validation", 2).returncode == 0
    assert json.loads((finished / "config.json").read_text(encoding="utf-8"))["settings"]["seed"] == 0
