"""What training left in the folder of a run so far."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.files.run_folder import RUNS_FOLDER, RunFolder, find_run_folder
from utils.tasks import TASKS, Task
from verse_utils.errors import UserError

# Columns of the history that hold no numbers.
_TEXT_COLUMNS = ("chosen_by", "left_out")


@dataclass(frozen=True)
class Run:
    """A run that may go on still.

    Attributes:
        folder: where the run's files lie.
        config: resolved settings, hardware and versions.
        columns: of the history.
        history: column -> number or text for each epoch; without empty cells.
    """

    folder: RunFolder
    config: dict[str, Any]
    columns: list[str]
    history: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Name of the run: that of its folder."""
        return self.folder.path.resolve().name

    @property
    def task(self) -> Task:
        """The task that the network is trained for."""
        return TASKS[self.config["settings"]["task"]]

    @property
    def score_name(self) -> str:
        """Column of ``history`` with the score of the validation in each epoch; "" where there is none."""
        scores = (name for name in self.columns if name.startswith("validation_") and name != "validation_loss")
        return next(scores, "")

    @property
    def best_epoch(self) -> tuple[int, str] | None:
        """The best epoch so far, and the column by which it was chosen; None where none was chosen yet."""
        if not self.history:
            return None
        if "chosen_by" in self.columns:
            chosen = [(int(row["epoch"]), row["chosen_by"]) for row in self.history if "chosen_by" in row]
            return chosen[-1] if chosen else None
        best = max(self.history, key=lambda row: row.get(self.score_name, -math.inf))  # of a run before 0.3.0
        return int(best["epoch"]), self.score_name

    @property
    def left_out(self) -> list[str]:
        """Patches without a finite loss, by case, that were left out in some epoch."""
        return list(dict.fromkeys(case for row in self.history for case in row.get("left_out", "").split("; ") if case))


def read_run(path: Path) -> Run:
    """Read a run by its folder, or by its name in ``trained_models``.

    Raises:
        UserError: there is no such run, or its files were not written by training.
    """
    folder = find_run_folder(path)
    if folder is None:
        raise UserError(f"{path}: no such run; give its folder, or its name in {RUNS_FOLDER}")
    if not folder.config.is_file():
        raise UserError(f"{folder.path}: not a run, it has no {folder.config.name}; give a folder that training wrote")
    config = read_json(folder.config)
    try:
        run = Run(folder, config, *_read_history(folder.history))
        if run.task and all("epoch" in row for row in run.history):
            return run
    except (KeyError, TypeError, ValueError):
        pass
    names = f"{folder.config.name} or {folder.history.name}"
    raise UserError(f"{folder.path}: {names} is not as training writes it; train the network again")


def read_json(path: Path) -> Any:
    """Read a file of JSON. Raises UserError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path}: damaged, not valid JSON; run the training command again to rewrite it") from None


def _read_history(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows."""
    if not path.is_file():
        return [], []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = [
            {name: value if name in _TEXT_COLUMNS else float(value) for name, value in row.items() if value}
            for row in reader
        ]
    return list(reader.fieldnames or []), rows
