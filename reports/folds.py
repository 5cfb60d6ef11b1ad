"""The folds of a cross-validation as one run: those whose settings differ in ``--fold`` alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from reports.finished_run import FinishedRun
from utils.files.run_folder import PLACE_AND_MACHINE
from verse_utils.splits import Fold


@dataclass(frozen=True)
class FoldedRun(FinishedRun):
    """Folds of the same settings; ``folder``, ``config`` and ``history`` are those of the first.

    Attributes:
        cases: id of a case -> metric -> mean over the folds that tested it. All folds test the cases of the test split;
            each tests another part of the validation cases.
        folds: fold, such as "2/5" -> its run.
    """

    folds: dict[str, FinishedRun]

    @property
    def count(self) -> str:
        """How many folds there are, of how many."""
        given, count = len(self.folds), Fold.parse(next(iter(self.folds))).count
        return f"{count} folds" if given == count else f"{given} of {count} folds"

    @property
    def name(self) -> str:
        """What the names of the folds begin with, and how many folds there are."""
        names = [fold.name for fold in self.folds.values()]
        columns = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
        shared = "".join(letters[0] for letters in columns)
        return f"{shared.rstrip('_-. ') or names[0]} ({self.count})"

    @property
    def path_name(self) -> str:
        """The path of the first fold, and how many folds there are."""
        return f"{self.folder.path} ({self.count})"

    @property
    def paths(self) -> list[Path]:
        """Folders of the folds."""
        return [fold.folder.path for fold in self.folds.values()]

    def fold_means(self, metric: str, cases: Sequence[str]) -> dict[str, float]:
        """Fold -> mean over those of the cases that it tested."""
        values = {name: fold.values(metric) for name, fold in self.folds.items()}
        found = {name: [of[case] for case in cases if case in of] for name, of in values.items()}
        return {name: float(np.mean(each)) for name, each in found.items() if each}


def fold_runs(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Runs in their order, with the folds of the same settings as one where the first of them was.

    Warns:
        UserWarning: a case of the test split that only some folds tested; it is left out.
    """
    groups: dict[str, list[dict[str, FinishedRun]]] = {}
    ordered: list[dict[str, FinishedRun]] = []
    for run in runs:
        fold = run.config["settings"].get("fold") or ""
        alike = groups.setdefault(_settings_but_fold(run), []) if fold else []
        group = next((group for group in alike if fold not in group), None)
        if group is None:
            group = {}
            alike.append(group)
            ordered.append(group)
        group[fold] = run
    return [_as_one(group) if len(group) > 1 else next(iter(group.values())) for group in ordered]


def _settings_but_fold(run: FinishedRun) -> str:
    """Text that is equal for folds of the same settings, number of folds and cases."""
    settings = {key: value for key, value in run.config["settings"].items() if key not in PLACE_AND_MACHINE}
    count = str(settings.pop("fold")).partition("/")[2]
    return json.dumps([settings, count, run.config.get("data")], sort_keys=True)


def _as_one(folds: dict[str, FinishedRun]) -> FoldedRun:
    first, *others = folds.values()
    ids = list(dict.fromkeys(case for fold in folds.values() for case in fold.cases))
    folded = FoldedRun(**vars(first) | {"folds": folds, "cases": {}})
    if first.config["settings"].get("test_split") != "validation":
        for case in ids:
            if lacking := [name for name, fold in folds.items() if case not in fold.cases]:
                warnings.warn(f"{folded.name}: fold {lacking[0]} lacks {case}, which is left out", stacklevel=4)
        ids = [case for case in ids if all(case in fold.cases for fold in folds.values())]
    metrics = [metric for metric in first.summary if all(metric in fold.summary for fold in others)]
    for case in ids:
        rows = [fold.cases[case] for fold in folds.values() if case in fold.cases]
        folded.cases[case] = {
            metric: float(np.mean([row[metric] for row in rows]))
            for metric in metrics
            if all(row.get(metric) is not None for row in rows)
        }
    return folded
