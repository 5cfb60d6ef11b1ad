"""The folder of a finished training run, read."""

from __future__ import annotations

import csv
import json
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from utils.glossary import RANKED_BY
from utils.intervals import mean_interval
from verse_utils.errors import UserError


@dataclass(frozen=True)
class Run:
    """What training and test left behind.

    Attributes:
        folder: of the run.
        config: resolved settings, and what computed.
        history: metric -> value, of each epoch.
        summary: metric -> mean, median, unit, direction …, as ``MetricHandler`` sums them up.
        cases: case id -> metric -> value, of the test.
    """

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, float]]
    summary: dict[str, dict[str, Any]]
    cases: dict[str, dict[str, float]]

    @property
    def name(self) -> str:
        """Of the run."""
        return self.folder.resolve().name

    @property
    def task(self) -> str:
        """ "heatmap" or "segmentation"."""
        return self.config["settings"]["task"]

    @cached_property
    def worst_first(self) -> list[str]:
        """Case ids by the metric that tells most, the worst first."""
        metric = RANKED_BY[self.task]
        return sorted(self.cases, key=lambda case: self.cases[case].get(metric, -math.inf))

    def values(self, metric: str) -> dict[str, float]:
        """Case id -> value, of the cases that have the metric."""
        return {case: row[metric] for case, row in self.cases.items() if row.get(metric) is not None}

    def interval(self, metric: str) -> tuple[float, float] | None:
        """95 % bootstrap interval of the mean over cases; None where cases are too few for one."""
        if "ci95" in self.summary[metric]:
            known = self.summary[metric]["ci95"]
            return tuple(known) if known else None
        return mean_interval(list(self.values(metric).values()))

    def worst_case(self, metric: str) -> str:
        """Case id of the worst value: the least, the greatest, or the farthest from 0."""
        ways: dict[bool | None, Callable[[float], float]] = {True: operator.neg, False: float, None: abs}
        badness = ways[self.summary[metric]["higher_is_better"]]
        values = self.values(metric)
        return max(values, key=lambda case: badness(values[case]))


def read_run(path: Path) -> Run:
    """Read a run by its folder, or by its name in ``trained_models``.

    Raises:
        UserError: no run, an unfinished one, or files that are none of training's.
    """
    folder = next((f for f in (path, Path("trained_models") / path) if f.is_dir()), None)
    if folder is None:
        raise UserError(f"{path}: no such run; give its folder, or its name in trained_models")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: holds no run (config.json); give a folder that training wrote")
    if not (folder / "test_metrics.json").is_file():
        raise UserError(
            f"{folder}: unfinished, it has no test_metrics.json; the command that trained it goes on with it"
        )
    config, metrics = (_read_json(folder / name) for name in ("config.json", "test_metrics.json"))
    try:
        rows = {row["case"]: {key: row[key] for key in row if key != "case"} for row in metrics["cases"]}
        run = Run(folder, config, _read_history(folder / "metrics.csv"), metrics["summary"], rows)
        known = run.task in RANKED_BY and RANKED_BY[run.task] in run.summary and bool(rows)
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise UserError(f"{folder}: config.json, metrics.csv or test_metrics.json is none of training's; train it anew")
    return run


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path}: damaged, no JSON; the command that trained the run writes it again") from None


def _read_history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
