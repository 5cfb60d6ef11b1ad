from pathlib import Path

import pytest

from networks import ARCHITECTURES
from prediction.checkpoints import load_checkpoint
from prediction.pretrained import pretrained_checkpoint
from training.arguments import parse_arguments
from training.settings import TrainingSettings
from utils.tasks import HEATMAP, SEGMENTATION, TASKS
from verse_utils.errors import UserError
from verse_utils.splits import Fold

REQUIRED = ["--data_path", "a.h5", "--model_name", "run"]


@pytest.mark.parametrize(("task", "shape"), [(HEATMAP, (64, 64, 128)), (SEGMENTATION, (128, 128, 128))])
def test_names_and_defaults_that_users_know(task, shape):
    settings = parse_arguments(task, REQUIRED)
    expected = {
        "data_path": (Path("a.h5"),),
        "model_name": "run",
        "epochs": 200,
        "batch_size": 1,
        "lr": 1.0,
        "input_shape": shape,
        "model": "UNet",
        "early_stopping": 30,
        "dataset_edition": 19,
        "use_wandb": False,
    }
    assert {key: getattr(settings, key) for key in expected} == expected
    assert settings.run_folder.path == Path("trained_models/run")


@pytest.mark.parametrize(
    ("arguments", "value"),
    [(["--use_wandb"], True), (["--use_wandb", "true"], True), (["--use_wandb", "false"], False), ([], False)],
)
def test_use_wandb_is_a_flag_and_takes_a_value(arguments, value):
    assert parse_arguments(HEATMAP, REQUIRED + arguments).use_wandb is value


def test_model_args_are_python_values():
    settings = parse_arguments(HEATMAP, [*REQUIRED, "--model_args", "channels=8,16", "name=plain", "deep=True"])
    assert settings.model_args == {"channels": (8, 16), "name": "plain", "deep": True}


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_defaults_are_those_of_the_settings(task):
    shape, loss = task.input_shape, task.losses[0]
    assert parse_arguments(task, REQUIRED) == TrainingSettings(
        task, (Path("a.h5"),), "run", input_shape=shape, loss=loss
    )


@pytest.mark.parametrize(
    ("optimizer", "lr", "weight_decay"), [("prodigy", 1.0, 0.01), ("adamw", 1e-3, 0.01), ("sgd", 1e-2, 3e-5)]
)
@pytest.mark.filterwarnings("ignore:--lr 0.005")
def test_learning_rate_and_decay_are_those_of_the_optimizer(optimizer, lr, weight_decay):
    settings = parse_arguments(SEGMENTATION, [*REQUIRED, "--optimizer", optimizer])
    assert (settings.lr, settings.weight_decay) == (lr, weight_decay)
    given = parse_arguments(SEGMENTATION, [*REQUIRED, "--optimizer", optimizer, "--lr", "5e-3", "--weight_decay", "0"])
    assert (given.lr, given.weight_decay) == (5e-3, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lr", "1e-4"], r"--lr 0\.0001: prodigy is used with 0\.1 to 10; without --lr it is 1"),
        (["--lr", "1", "--optimizer", "adamw"], r"--lr 1: adamw is used with .* without --lr it is 0\.001"),
        (["--lr", "1", "--optimizer", "sgd"], r"--lr 1: sgd is used with .* without --lr it is 0\.01"),
    ],
)
def test_a_learning_rate_of_another_optimizer_is_warned_of(arguments, words):
    with pytest.warns(UserWarning, match=words):
        parse_arguments(SEGMENTATION, REQUIRED + arguments)


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_can_be_chosen(task, name):
    assert parse_arguments(task, [*REQUIRED, "--model", name]).model == name


def test_the_shape_of_the_localisers_input_is_that_of_the_h5(heatmap_h5):
    arguments = ["--data_path", str(heatmap_h5), "--model_name", "run"]
    assert parse_arguments(HEATMAP, arguments).input_shape == (16, 16, 32)
    assert parse_arguments(HEATMAP, [*arguments, "--input_shape", "32", "32", "64"]).input_shape == (32, 32, 64)


@pytest.mark.parametrize("task", [HEATMAP, SEGMENTATION], ids=str)
def test_a_network_is_that_whose_weights_it_starts_from(task, tmp_path):
    """Unless another one is given, whose options it then has."""
    spec = load_checkpoint(pretrained_checkpoint(task))["network"]
    arguments = [*REQUIRED, "--output", str(tmp_path), "--init_from", "pretrained"]
    settings = parse_arguments(task, arguments)
    assert settings.model == spec.name == "UNet"
    assert settings.model_args == {"channels": tuple(spec.options["channels"])}
    assert parse_arguments(task, [*arguments, "--model_args", "channels=4,8"]).model_args == {"channels": (4, 8)}
    other = parse_arguments(task, [*arguments, "--model", "SegResNet"])
    assert (other.model, other.model_args) == ("SegResNet", {})


def test_settings_as_they_are_stored():
    """Types that JSON has; the task by its name."""
    settings = parse_arguments(HEATMAP, [*REQUIRED, "--init_from", "pretrained"])
    stored = settings.as_dict()
    assert (stored["task"], stored["data_path"], stored["init_from"]) == ("heatmap", ["a.h5"], "pretrained")
    assert stored["input_shape"] == [64, 64, 128] and stored["memory_gb"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "VGG"], "VGG"),
        (["--epochs", "0"], "--epochs 0"),
        (["--batch_size", "-1"], "--batch_size -1"),
        (["--use_wandb", "maybe"], "maybe"),
        (["--model_args", "channels"], "KEY=VALUE"),
        (["--model_name", "../x"], "name of a folder"),
        (["--model_name", "pretrained"], "come with the project; take another"),
        (["--model_name", "a\nb"], "in letters that show"),
        (["--model_name", "a\udcff"], "in letters that show"),
        (["--model_name", "a" * 300], "name of a folder"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**63)], "--seed"),
        (["--accumulate", "0"], "--accumulate 0"),
        (["--accumulate", str(2**63)], r"--accumulate \d+: must be .* less than 2\^31"),
        (["--clip", "nan"], "--clip nan"),
        (["--checkpoint_minutes", "inf"], "--checkpoint_minutes inf"),
        (["--memory_gb", "0"], "--memory_gb 0"),
        (["--memory_gb", "nan"], "--memory_gb nan"),
        (["--lr", "nan"], "--lr nan"),
        (["--lr", "inf"], "--lr inf"),
        (["--optimizer", "lion"], "lion"),
        (["--weight_decay", "-0.1"], r"--weight_decay -0\.1: must be at least 0"),
        (["--weight_decay", "nan"], "--weight_decay nan"),
        (["--schedule", "step"], "step"),
        (["--warmup", "-1"], "--warmup -1"),
        (["--warmup", "20", "--epochs", "20"], "--warmup 20: must be .* less than --epochs 20"),
        (["--input_shape", "64", "64"], "--input_shape"),
    ],
)
def test_wrong_values_are_named(arguments, words):
    with pytest.raises(UserError, match=words):
        parse_arguments(SEGMENTATION, REQUIRED + arguments)


@pytest.mark.parametrize("share", ["-0.1", "1.1"])
def test_bone_share_is_a_share(share):
    with pytest.raises(UserError, match="--bone_share"):
        parse_arguments(SEGMENTATION, [*REQUIRED, "--bone_share", share])


def test_a_fold_is_a_setting_of_the_run():
    settings = parse_arguments(SEGMENTATION, [*REQUIRED, "--fold", "2/5"])
    assert settings.fold == Fold(2, 5) and settings.as_dict()["fold"] == "2/5"
    assert parse_arguments(SEGMENTATION, REQUIRED).as_dict()["fold"] is None
    with pytest.raises(UserError, match=r"--fold: '6/5' is no fold; give one like 2/5, the second of five"):
        parse_arguments(SEGMENTATION, [*REQUIRED, "--fold", "6/5"])
