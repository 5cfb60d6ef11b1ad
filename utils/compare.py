"""Compare runs that were tested on the same cases: python -m utils.compare RUN RUN … [--output FOLDER]."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.glossary import BETTER, MAIN_METRICS, RANKED_BY, shown, shown_interval, split_class, title_of
from utils.misc import OneLineParser, run_command, write_json
from utils.runs import Run, read_run
from verse_utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# With five pairs that differ, the two-sided p value can't get below 0.0625, whatever they are.
FEWEST_PAIRS = 6
WORST_SHOWN = 3
# By a metric's direction, as ``BETTER``.
ARROWS = {True: "↑", False: "↓", None: "→ 0"}
# Colours that colour-blind readers can tell apart (Okabe and Ito 2008), and shapes for those without any.
RUN_STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#56B4E9", "v"),
    ("#E69F00", "P"),
)
# Behind a number, so that lines don't cross it.
HALO = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
# Settings that change what a metric measures, by task.
_MEASURE = {"segmentation": ("labels",), "heatmap": ("heatmap_mode", "input_shape")}


def compare(folders: Sequence[Path]) -> dict[str, Any]:
    """Means, paired differences to the first run, and worst cases, in JSON's types.

    Args:
        folders: of two or more runs, or their names in ``trained_models``.

    Returns:
        ``task``; ``runs`` (name -> folder); ``cases`` that all runs share; ``left_out`` (case -> runs that have it);
        ``metrics``: metric -> unit, direction, ``runs`` (name -> mean, ci95, cases) and ``differences`` to the first
        run (name -> mean, ci95, cases, wilcoxon_p, and a note where there is no p value); ``values``: metric -> case ->
        run -> value; ``worst``: name -> ids of the worst cases.

    Raises:
        UserError: fewer than two runs, an unfinished one, other tasks or labels, no common case.
    """
    if len(folders) < 2:
        raise UserError("give two or more runs to compare")
    runs = _by_name([read_run(folder) for folder in folders])
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
        "task": first.task,
        "runs": {name: str(run.folder) for name, run in runs.items()},
        "cases": cases,
        "left_out": {
            case: [name for name, run in runs.items() if case in run.cases] for case in everywhere if case not in cases
        },
        "metrics": {metric: _compared(first.summary[metric], list(runs), found) for metric, found in values.items()},
        "values": values,
        "worst": {
            name: [case for case in run.worst_first if case in cases][:WORST_SHOWN] for name, run in runs.items()
        },
    }


def _by_name(runs: list[Run]) -> dict[str, Run]:
    """Runs by their folders' names, or by their paths where names repeat."""
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise UserError(f"{', '.join(str(run.folder) for run in runs)}: a run is given twice; give each once")
    named = {run.name: run for run in runs}
    return named if len(named) == len(runs) else {str(run.folder): run for run in runs}


def _check_comparable(runs: list[Run]) -> None:
    first, *others = runs
    for other in others:
        if other.task != first.task:
            raise UserError(
                f"{other.folder}: is of task {other.task}, {first.folder} of {first.task}; compare like runs"
            )
        for key in _MEASURE[first.task]:
            one, two = first.config["settings"].get(key), other.config["settings"].get(key)
            if one == two:
                continue
            if first.task == "segmentation":
                raise UserError(
                    f"{other.folder}: has --{key} {two}, {first.folder} {one}; their metrics measure not the same"
                )
            warnings.warn(
                f"{other.folder}: has --{key} {two}, {first.folder} {one}; compare their boxes, not their heatmaps",
                stacklevel=2,
            )


def _values_of_case(runs: dict[str, Run], metric: str, case: str) -> dict[str, float] | None:
    """Run -> value; None unless all have one."""
    found = {name: run.cases[case].get(metric) for name, run in runs.items()}
    return None if None in found.values() else found  # type: ignore[return-value]


def _compared(facts: dict[str, Any], names: list[str], values: dict[str, dict[str, float]]) -> dict[str, Any]:
    columns = {name: [row[name] for row in values.values()] for name in names}
    first, *others = names
    return {
        "unit": facts["unit"],
        "higher_is_better": facts["higher_is_better"],
        "runs": {name: _mean(column) for name, column in columns.items()},
        "differences": {
            name: _difference([b - a for a, b in zip(columns[first], columns[name], strict=True)]) for name in others
        },
    }


def _mean(values: list[float]) -> dict[str, Any]:
    import numpy as np

    from utils.intervals import mean_interval

    mean = float(np.mean(values)) if values else None
    return {"mean": mean, "ci95": mean_interval(values), "cases": len(values)}


def _difference(differences: list[float]) -> dict[str, Any]:
    """Mean, interval and the p value of Wilcoxon's signed-rank test, or a note that tells why there is none."""
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
    """Print a table, a block of runs a metric; metrics of single classes are left to compare.json."""
    first = next(iter(content["runs"]))
    header = ["metric", "run", "mean", "95 % interval", f"minus {first}", "95 % interval", "Wilcoxon p"]
    rows = [header]
    for metric, found in content["metrics"].items():
        if split_class(metric)[1]:
            continue
        title = f"{title_of(metric)} {ARROWS[found['higher_is_better']]}"
        for name, one in found["runs"].items():
            row = [title, name, shown(one["mean"], found["unit"]), shown_interval(one["ci95"], found["unit"])]
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
    ranked = RANKED_BY[content["task"]]
    print(f"\nOn {len(content['cases'])} test cases. ↑ higher is better, ↓ lower is better. p values aren't corrected.")
    for name, worst in content["worst"].items():
        print(f"worst {title_of(ranked)} of {name}: " + ", ".join(_case(content, ranked, name, case) for case in worst))
    for case, having in content["left_out"].items():
        print(f"left out: {case}, tested by {', '.join(having)} only")


def _case(content: dict[str, Any], metric: str, name: str, case: str) -> str:
    return f"{case} {shown(content['values'][metric][case][name], content['metrics'][metric]['unit'])}"


def draw_pairs(content: dict[str, Any]) -> Figure:
    """Draw each main metric: a line a case through all runs, and each run's mean with its interval."""
    from matplotlib.figure import Figure

    metrics = [m for m in MAIN_METRICS[content["task"]] if content["values"].get(m)]
    names = list(content["runs"])
    columns = min(len(metrics), 2)
    rows = -(-len(metrics) // columns)
    width = max(4.5, 1.1 * len(names) + 2)
    figure = Figure(figsize=(width * columns, 3.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    cases = len(content["cases"])
    figure.suptitle(f"{cases} test case{'s' * (cases > 1)}, a line each; black: mean and 95 % interval", fontsize=10)
    for ax, metric in zip(axes, metrics, strict=False):
        _draw_metric(ax, title_of(metric), content["metrics"][metric], list(content["values"][metric].items()), names)
    for ax in axes[len(metrics) :]:
        ax.remove()
    return figure


def _draw_metric(ax: Axes, title: str, found: dict[str, Any], cases: list, names: list[str]) -> None:
    alpha = max(0.35, 0.7 - 0.01 * len(cases))
    for _, of_run in cases:
        ax.plot(range(len(names)), [of_run[name] for name in names], color="0.55", alpha=alpha, linewidth=1, zorder=1)
    for x, name in enumerate(names):
        colour, marker = RUN_STYLES[x % len(RUN_STYLES)]
        ax.scatter([x] * len(cases), [of_run[name] for _, of_run in cases], color=colour, marker=marker, s=26, zorder=2)
        mean, interval = found["runs"][name]["mean"], found["runs"][name]["ci95"]
        if interval:
            ax.plot([x + 0.14] * 2, interval, color="black", linewidth=1.5, zorder=3)
        ax.plot(x + 0.14, mean, marker="_", markersize=11, markeredgewidth=2, color="black", zorder=3)
        label = shown(mean, found["unit"])
        ax.annotate(label, (x + 0.14, mean), (9, 0), textcoords="offset points", va="center", fontsize=9, bbox=HALO)
    ax.set_title(f"{title}, {BETTER[found['higher_is_better']]}", fontsize=10)
    ax.set_xticks(range(len(names)), [Path(name).name if len(name) > 24 else name for name in names], fontsize=9)
    ax.set_xlim(-0.35, len(names) - 0.35)
    ax.set_ylabel("" if found["unit"] == "1" else found["unit"])
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.92")


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
    run_command(main)
