from pathlib import Path

import pytest

from networks import ARCHITECTURES
from training.arguments import HEATMAP_MODES, LOSS_NAMES, parse_arguments
from verse_utils.errors import UserError

REQUIRED = ["--data_path", "a.h5", "--model_name", "run"]


@pytest.mark.parametrize(("task", "shape"), [("heatmap", (64, 64, 128)), ("segmentation", (128, 128, 128))])
def test_names_and_defaults_that_users_know(task, shape):
    settings = parse_arguments(task, REQUIRED)
    expected = {
        "data_path": Path("a.h5"),
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
    assert settings.run_folder == Path("trained_models/run")


@pytest.mark.parametrize(
    ("arguments", "value"),
    [(["--use_wandb"], True), (["--use_wandb", "true"], True), (["--use_wandb", "false"], False), ([], False)],
)
def test_use_wandb_is_a_flag_and_takes_a_value(arguments, value):
    assert parse_arguments("heatmap", REQUIRED + arguments).use_wandb is value


def test_model_args_are_python_values():
    settings = parse_arguments("heatmap", [*REQUIRED, "--model_args", "channels=8,16", "name=plain", "deep=True"])
    assert settings.model_args == {"channels": (8, 16), "name": "plain", "deep": True}


@pytest.mark.parametrize("task", ["heatmap", "segmentation"])
def test_names_on_the_command_line_are_those_of_the_registries(task):
    """The command line lists losses and modes by itself, so that --help needs no torch."""
    from data_transforms.classes.heatmap_from_labels import HeatmapFromLabels
    from metrics.losses import HEATMAP_LOSSES, MASK_LOSSES

    losses = {"heatmap": HEATMAP_LOSSES, "segmentation": MASK_LOSSES}[task]
    assert set(LOSS_NAMES[task]) == set(losses)
    assert set(HEATMAP_MODES) == set(HeatmapFromLabels.DEFAULT_SIGMA_VOX)
    for name in ARCHITECTURES:
        assert parse_arguments(task, [*REQUIRED, "--model", name]).model == name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "VGG"], "VGG"),
        (["--epochs", "0"], "--epochs 0"),
        (["--batch_size", "-1"], "--batch_size -1"),
        (["--use_wandb", "maybe"], "maybe"),
        (["--model_args", "channels"], "KEY=VALUE"),
        (["--model_name", "../x"], "name of a folder"),
        (["--seed", "-1"], "--seed"),
        (["--accumulate", "0"], "--accumulate 0"),
        (["--memory_gb", "0"], "--memory_gb 0"),
        (["--input_shape", "64", "64"], "--input_shape"),
    ],
)
def test_wrong_values_are_named(arguments, words):
    with pytest.raises(UserError, match=words):
        parse_arguments("segmentation", REQUIRED + arguments)


@pytest.mark.parametrize("share", ["-0.1", "1.1"])
def test_bone_share_is_a_share(share):
    with pytest.raises(UserError, match="--bone_share"):
        parse_arguments("segmentation", [*REQUIRED, "--bone_share", share])
