"""Compare runs that were tested on the same cases: python -m reports.compare RUN RUN … [--output FOLDER]."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metrics.metric import shown, shown_interval
from metrics.metric_handler import metrics_of, split_class, title_of
from reports.comparison_figure import draw_pairs
from reports.finished_run import FinishedRun, read_finished_run
from reports.folds import FoldedRun, fold_runs
from utils.misc import OneLineParser, command, counted
from utils.tasks import HEATMAP, SEGMENTATION
from verse_utils.errors import UserError
from verse_utils.files.writing import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

# With five pairs that differ, the two-sided p value can't be below 0.0625, whatever their values.
FEWEST_PAIRS = 6
WORST_SHOWN = 3
# By a metric's ``higher_is_better``.
ARROWS = {True: "↑", False: "↓", None: "→ 0"}
# Settings that change what a metric measures, by task.
_MEASURE = {SEGMENTATION: ("labels",), HEATMAP: ("heatmap_mode", "input_shape")}


def compare(folders: Sequence[Path]) -> dict[str, Any]:
    """Means, paired differences to the first run, and worst cases, in JSON's types.

    Runs whose settings differ in ``--fold`` alone are one run; the value of a case is then the mean over these folds.

    Args:
        folders: of two or more runs, or their names in ``trained_models``.

    Returns:
        ``task``; ``runs`` (name -> folder, of folds a list of them); ``cases`` that all runs share; ``left_out`` (case
        -> runs that have it); ``metrics``: metric -> unit, direction, ``runs`` (name -> mean, ci95, cases; of folds
        ``fold_means`` by fold and their standard deviation ``fold_sd``, too) and ``differences`` to the first run
        (name -> mean, ci95, cases, wilcoxon_p, and a note where there is no p value); ``values``: metric -> case -> run
        -> value; ``worst``: name -> ids of the worst cases.

    Raises:
        UserError: fewer than two runs, an unfinished run, different tasks or labels, or no common case.
    """
    if len(folders) < 2:
        raise UserError("give two or more runs to compare")
    runs = _by_name(fold_runs(_read_each_once(folders)))
    _check_comparable(list(runs.values()))
    first = next(iter(runs.values()))
    cases = [case for case in first.cases if all(case in run.cases for run in runs.values())]
    if not cases:
        raise UserError(f"{', '.join(runs)}: no common test case; test them on the same split of the same data")
    everywhere = dict.fromkeys(case for run in runs.values() for case in run.cases)
    values = {
        metric: {case: found for case in cases if (found := _values_of_case(runs, metric, case))}
        for metric in first.summary
        if all(metric in run.summary for run in runs.values())
    }
    return {
        "task": first.task.name,
        "runs": {
            name: [str(path) for path in run.paths] if isinstance(run, FoldedRun) else str(run.folder.path)
            for name, run in runs.items()
        },
        "cases": cases,
        "left_out": {
            case: [name for name, run in runs.items() if case in run.cases] for case in everywhere if case not in cases
        },
        "metrics": {metric: _compared(metric, runs, found) for metric, found in values.items()},
        "values": values,
        "worst": {
            name: [case for case in run.worst_first if case in cases][:WORST_SHOWN] for name, run in runs.items()
        },
    }


def _read_each_once(folders: Sequence[Path]) -> list[FinishedRun]:
    runs = [read_finished_run(folder) for folder in folders]
    if len({run.folder.path.resolve() for run in runs}) < len(runs):
        raise UserError(f"{', '.join(str(run.folder.path) for run in runs)}: a run is given twice; give each once")
    return runs


def _by_name(runs: list[FinishedRun]) -> dict[str, FinishedRun]:
    """Runs by their folders' names, or by their paths where names repeat."""
    named = {run.name: run for run in runs}
    if len(named) == len(runs):
        return named
    return {run.path_name if isinstance(run, FoldedRun) else str(run.folder.path): run for run in runs}


def _check_comparable(runs: list[FinishedRun]) -> None:
    first, *others = runs
    for other in others:
        paths = f"{other.folder.path} and {first.folder.path}"
        if other.task != first.task:
            raise UserError(f"{paths}: different tasks, {other.task} and {first.task}; compare runs of one task")
        for key in _MEASURE[first.task]:
            values = [run.config["settings"].get(key) for run in (other, first)]
            if values[0] == values[1]:
                continue
            problem = f"{paths}: different --{key}, {values[0]} and {values[1]}"
            if first.task == SEGMENTATION:
                raise UserError(f"{problem}, so their metrics can't be compared; compare runs with the same --{key}")
            warnings.warn(f"{problem}; only metrics of their boxes can be compared", stacklevel=2)


def _values_of_case(runs: dict[str, FinishedRun], metric: str, case: str) -> dict[str, float] | None:
    """Run -> value; None unless all have one."""
    found = {name: run.cases[case].get(metric) for name, run in runs.items()}
    return None if None in found.values() else found  # type: ignore[return-value]  # no None is left


def _compared(metric: str, runs: dict[str, FinishedRun], values: dict[str, dict[str, float]]) -> dict[str, Any]:
    columns = {name: [row[name] for row in values.values()] for name in runs}
    first, *others = runs
    facts = runs[first].summary[metric]
    return {
        "unit": facts["unit"],
        "higher_is_better": facts["higher_is_better"],
        "runs": {
            name: {**_mean(column), **_spread_of_folds(runs[name], metric, list(values))}
            for name, column in columns.items()
        },
        "differences": {
            name: _difference([b - a for a, b in zip(columns[first], columns[name], strict=True)]) for name in others
        },
    }


def _mean(values: list[float]) -> dict[str, Any]:
    import numpy as np

    from metrics.intervals import mean_interval

    mean = float(np.mean(values)) if values else None
    return {"mean": mean, "ci95": mean_interval(values), "cases": len(values)}


def _spread_of_folds(run: FinishedRun, metric: str, cases: list[str]) -> dict[str, Any]:
    """Means of the folds, and their standard deviation; nothing of a single run."""
    import numpy as np

    if not isinstance(run, FoldedRun):
        return {}
    means = run.fold_means(metric, cases)
    return {"fold_means": means, "fold_sd": float(np.std(list(means.values()), ddof=1)) if len(means) > 1 else None}


def _difference(differences: list[float]) -> dict[str, Any]:
    """Mean, interval and the p value of Wilcoxon's signed-rank test, or a note that says why there is none."""
    from scipy.stats import wilcoxon

    differing = sum(difference != 0 for difference in differences)
    p, note = None, None
    if not differing:
        note = "no case differs"
    elif differing < FEWEST_PAIRS:
        note = f"too few pairs ({differing} of at least {FEWEST_PAIRS})"
    else:
        p = float(wilcoxon(differences).pvalue)
    return {**_mean(differences), "wilcoxon_p": p} | ({"note": note} if note else {})


def print_comparison(content: dict[str, Any]) -> None:
    """Print a table with a row for each metric and run; metrics of single classes are in compare.json only."""
    first = next(iter(content["runs"]))
    header = ["metric", "run", "mean", "95 % interval", f"minus {first}", "95 % interval", "Wilcoxon p"]
    rows = [header]
    for metric, found in content["metrics"].items():
        if split_class(metric)[1]:
            continue
        title = f"{title_of(metric)} {ARROWS[found['higher_is_better']]}"
        for name, one in found["runs"].items():
            mean = shown(one["mean"], found["unit"])
            if one.get("fold_sd") is not None:
                mean += f" ± {shown(one['fold_sd'], found['unit'])}"
            row = [title, name, mean, shown_interval(one["ci95"], found["unit"])]
            if difference := found["differences"].get(name):
                p = difference["wilcoxon_p"]
                row += [
                    shown(difference["mean"], found["unit"], sign=True),
                    shown_interval(difference["ci95"], found["unit"], sign=True),
                    difference.get("note") or f"{p:.3f}" if p is None or p >= 0.001 else "< 0.001",
                ]
            rows.append(row)
            title = ""
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(header))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())
    ranked = metrics_of(content["task"], content["values"]).ranked_by
    on = counted(len(content["cases"]), "test case")
    print(f"\nOn {on}. ↑ higher is better, ↓ lower is better. p values are not corrected.")
    if any(isinstance(folders, list) for folders in content["runs"].values()):
        print("Folds are one run: the value of a case is the mean over the folds that tested it.")
        print("± is the standard deviation of the folds' means.")
    for name, worst in content["worst"].items():
        print(f"worst {title_of(ranked)} of {name}: " + ", ".join(_case(content, ranked, name, case) for case in worst))
    for case, having in content["left_out"].items():
        print(f"left out: {case}, tested only by {', '.join(having)}")


def _case(content: dict[str, Any], metric: str, name: str, case: str) -> str:
    return f"{case} {shown(content['values'][metric][case][name], content['metrics'][metric]['unit'])}"


@command
def main() -> None:
    """Read the arguments, compare, print, and write compare.json and compare.png."""
    parser = OneLineParser(description="Compare runs that were tested on the same cases, each to the first.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or its name")
    parser.add_argument(
        "--output", type=Path, default=Path("comparison"), help="folder for compare.json and compare.png"
    )
    arguments = parser.parse_args()
    content = compare(arguments.runs)
    from utils.visualize import save_figure

    print_comparison(content)
    write_json(arguments.output / "compare.json", content)
    save_figure(draw_pairs(content), arguments.output / "compare.png")
    print(arguments.output / "compare.png")


if __name__ == "__main__":
    main()
