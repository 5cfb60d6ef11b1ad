"""Settings of a run that is there already, from its ``config.json``, as arguments of a command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.tasks import Task
from verse_utils.errors import UserError

# Settings that follow from another one: if that is given with another value, they don't suit it any more.
_FOLLOWING = {"optimizer": ("lr", "weight_decay"), "model": ("model_args",)}


def read_settings(path: Path, task: Task, known: Sequence[str]) -> dict[str, Any]:
    """The settings in a ``config.json``; one of an earlier version may lack some.

    Args:
        path: of the file.
        task: that they must be for.
        known: names of all settings.

    Raises:
        UserError: there is none, it is damaged, of the other task, or of another version.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a run's name, its folder, or its config.json")
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
        found = settings["task"]
        names = list(settings)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged, or not the config.json of a run; give one that training wrote") from None
    if found != task.name:
        raise UserError(f"{path}: settings of the task {found}, not of {task}; give the config.json of a {task} run")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{path}: unknown setting {unknown[0]}; the file is of another version of this project")
    return settings


def parse_with_settings(
    parser: argparse.ArgumentParser, argv: Sequence[str], settings: Mapping[str, Any], path: Path
) -> argparse.Namespace:
    """Parse a command line that is preceded by settings; what it gives itself wins.

    An architecture or an optimizer that the command line changes loses the settings that were meant for the other one.

    Args:
        parser: of the training script.
        argv: the command line.
        settings: name -> value in JSON's types; those that are no argument of the parser are left out.
        path: where they are from, for errors.

    Raises:
        UserError: a value can't be.
    """
    parser.parse_args(argv)  # mistakes in it are no mistakes of the file
    values = _parse(parser, argv, settings, path)
    following = [
        name
        for leading, names in _FOLLOWING.items()
        for name in names
        if leading in settings and getattr(values, leading) != settings[leading]
    ]
    return _parse(parser, argv, {name: value for name, value in settings.items() if name not in following}, path)


def _parse(
    parser: argparse.ArgumentParser, argv: Sequence[str], settings: Mapping[str, Any], path: Path
) -> argparse.Namespace:
    flags = {flag for action in parser._actions for flag in action.option_strings}
    words = [word for name, value in settings.items() if f"--{name}" in flags for word in _words(name, value)]
    try:
        return parser.parse_args([*words, *argv])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _words(name: str, value: Any) -> list[str]:
    """A setting as it is written on a command line."""
    if value is None or value == {}:
        return []
    if isinstance(value, dict):
        return [f"--{name}", *(f"{key}={_literal(one)}" for key, one in value.items())]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


def _literal(value: Any) -> str:
    """A value of JSON as Python's literal; lists as tuples, as a command line gives them."""
    return repr(tuple(value) if isinstance(value, list) else value)
