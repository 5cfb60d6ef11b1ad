"""What training and its test left in the folder of a finished run."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from metrics.intervals import mean_interval
from metrics.metric_handler import metrics_of
from reports.run import Run, read_json, read_run
from verse_utils.errors import UserError


@dataclass(frozen=True)
class FinishedRun(Run):
    """A run whose network was tested.

    Attributes:
        summary: metric -> mean, median, unit, direction and more, as ``MetricHandler`` summarises them.
        cases: id of a test case -> metric -> value.
    """

    summary: dict[str, dict[str, Any]]
    cases: dict[str, dict[str, float]]

    @property
    def main_metric(self) -> str:
        """The metric that cases are ranked by; higher is better."""
        return metrics_of(self.task.name, self.summary).ranked_by

    @cached_property
    def worst_first(self) -> list[str]:
        """Case ids, the worst first, by the main metric."""
        return sorted(self.cases, key=lambda case: self.cases[case].get(self.main_metric, -math.inf))

    def values(self, metric: str) -> dict[str, float]:
        """Case id -> value, for the cases that have the metric."""
        return {case: row[metric] for case, row in self.cases.items() if row.get(metric) is not None}

    def interval(self, metric: str) -> tuple[float, float] | None:
        """95 % bootstrap interval of the mean over cases; None where there are too few cases."""
        if "ci95" in self.summary[metric]:
            written = self.summary[metric]["ci95"]
            return tuple(written) if written else None
        return mean_interval(list(self.values(metric).values()))

    def worst_case(self, metric: str) -> str:
        """Id of the case with the worst value: the lowest, the highest, or the farthest from 0."""
        badness_of: dict[bool | None, Callable[[float], float]] = {True: operator.neg, False: float, None: abs}
        badness = badness_of[self.summary[metric]["higher_is_better"]]
        values = self.values(metric)
        return max(values, key=lambda case: badness(values[case]))


def read_finished_run(path: Path) -> FinishedRun:
    """Read a run by its folder, or by its name in ``trained_models``.

    Raises:
        UserError: there is no such run, it is not finished, or its files were not written by training.
    """
    run = read_run(path)
    folder = run.folder
    if not folder.test_metrics.is_file():
        raise UserError(
            f"{folder.path}: unfinished run, it has no {folder.test_metrics.name}; "
            "run the training command again to finish it"
        )
    metrics = read_json(folder.test_metrics)
    try:
        rows = {row["case"]: {key: row[key] for key in row if key != "case"} for row in metrics["cases"]}
        finished = FinishedRun(**vars(run), summary=metrics["summary"], cases=rows)
        if finished.main_metric in finished.summary and rows:
            return finished
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{folder.test_metrics}: is not as training writes it; run the training command again")
