"""Settings that are taken from a run that is there already."""

import json
from pathlib import Path

import pytest

from training.arguments import parse_arguments
from utils.tasks import HEATMAP, SEGMENTATION
from verse_utils.errors import UserError

REQUIRED = ["--data_path", "b.h5", "--model_name", "new"]
FIRST_LINE = """
    --data_path a.h5 --model_name first --output elsewhere --device cuda:3 --workers 7 --epochs 7 --optimizer adamw
    --lr 2e-3 --weight_decay 0.1 --checkpointing --model_args channels=8,16 deep_supervision=True --bone_share 0.3
    --input_shape 8 16 8
"""
FIRST = FIRST_LINE.split()


@pytest.fixture
def config(tmp_path) -> Path:
    """The config.json of a run with many settings."""
    return write(tmp_path / "first" / "config.json", parse_arguments(SEGMENTATION, FIRST).as_dict())


def write(path: Path, settings: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"settings": settings}), encoding="utf-8")
    return path


def test_what_is_computed_is_taken_but_not_where(config):
    first, found = (
        parse_arguments(SEGMENTATION, FIRST),
        parse_arguments(SEGMENTATION, [*REQUIRED, "--config", str(config)]),
    )
    assert found == parse_arguments(SEGMENTATION, [*REQUIRED, "--config", str(config.parent)])
    assert {**found.identity(), "model_name": "first"} == first.identity()
    assert (found.model_args, found.epochs) == (first.model_args, 7)
    assert found.run_folder.path == Path("trained_models/new") and found.data_path == (Path("b.h5"),)
    assert (found.device, found.workers, found.checkpointing) == ("auto", 1, False)


def test_what_is_given_wins(config):
    given = ["--epochs", "9", "--lr", "3e-3", "--model_args", "channels=4,8", "--config", str(config)]
    found = parse_arguments(SEGMENTATION, [*REQUIRED, *given])
    assert (found.epochs, found.lr, found.weight_decay) == (9, 3e-3, 0.1)
    assert found.model_args == {"channels": (4, 8)} and found.bone_share == 0.3


def test_another_optimizer_or_model_has_its_own_values(config):
    found = parse_arguments(SEGMENTATION, [*REQUIRED, "--optimizer", "sgd", "--model", "VNet", "--config", str(config)])
    assert (found.lr, found.weight_decay, found.model_args) == (1e-2, 3e-5, {})
    given = parse_arguments(SEGMENTATION, [*REQUIRED, "--optimizer", "sgd", "--lr", "0.02", "--config", str(config)])
    assert (given.lr, given.weight_decay, given.model_args) == (
        0.02,
        3e-5,
        {"channels": (8, 16), "deep_supervision": True},
    )


def test_the_views_of_a_localiser_are_those_of_its_h5(tmp_path, heatmap_h5):
    settings = parse_arguments(HEATMAP, ["--data_path", "folder", "--model_name", "first", "--input_shape", *"888"])
    config = str(write(tmp_path / "config.json", settings.as_dict()))
    for data_path, shape in ((heatmap_h5, (16, 16, 32)), ("folder", (8, 8, 8))):
        arguments = ["--data_path", str(data_path), "--model_name", "new", "--config", config]
        assert parse_arguments(HEATMAP, arguments).input_shape == shape


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "config.json: no such file"),
        ("", "config.json: damaged"),
        ("[1, 2]", "config.json: damaged"),
        ('{"settings": 3}', "config.json: damaged"),
        ('{"settings": {"epochs": 3}}', "config.json: damaged"),
        ('{"settings": {"task": "heatmap"}}', "settings of the task heatmap, not of segmentation"),
        ('{"settings": {"task": "segmentation", "colour": 1}}', "unknown setting colour"),
        ('{"settings": {"task": "segmentation", "epochs": "many"}}', "config.json: argument --epochs: invalid int"),
        ('{"settings": {"task": "segmentation", "epochs": {"a": 1}}}', "config.json: argument --epochs: invalid int"),
        ('{"settings": {"task": "segmentation", "model": "Net"}}', "config.json: argument --model: invalid choice"),
        (
            '{"settings": {"task": "segmentation", "input_shape": [8, 8]}}',
            "config.json: argument --input_shape: expected",
        ),
        ('{"settings": {"task": "segmentation", "model_args": [1]}}', "--model_args 1: not of the form"),
        ('{"settings": {"task": "segmentation", "epochs": -1}}', "--epochs -1: must be greater than 0"),
    ],
)
def test_a_damaged_or_unknown_file_is_named(tmp_path, content, words):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=words) as caught:
        parse_arguments(SEGMENTATION, [*REQUIRED, "--config", str(path)])
    assert "\n" not in str(caught.value)


def test_a_run_is_named_as_elsewhere(tmp_path):
    """By name or folder; settings that an older version did not have are the defaults."""
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    write(run / "config.json", {"task": "segmentation", "epochs": 7})
    for config in ("first", run, run / "config.json"):
        arguments = [*REQUIRED, "--output", str(tmp_path / "runs"), "--config", str(config)]
        found = parse_arguments(SEGMENTATION, arguments)
        assert found.epochs == 7 and found.clip == parse_arguments(SEGMENTATION, REQUIRED).clip


def test_a_mistake_on_the_command_line_is_none_of_the_file(config):
    with pytest.raises(UserError, match=r"^argument --epochs"):
        parse_arguments(SEGMENTATION, [*REQUIRED, "--epochs", "many", "--config", str(config)])
