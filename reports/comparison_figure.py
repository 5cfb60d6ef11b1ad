"""A picture of runs that were tested on the same cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from metrics.metric import BETTER, shown
from metrics.metric_handler import metrics_of, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that colour-blind readers can tell apart (Okabe and Ito 2008), and shapes for prints without colour.
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


def draw_pairs(content: dict[str, Any]) -> Figure:
    """Draw each main metric: a line through all runs for each case, and the mean of each run with its interval.

    Args:
        content: as ``reports.compare.compare`` returns it.
    """
    from matplotlib.figure import Figure

    metrics = [m for m in metrics_of(content["task"], content["values"]).main if content["values"].get(m)]
    names = list(content["runs"])
    columns = min(len(metrics), 2)
    rows = -(-len(metrics) // columns)
    width = max(4.5, 1.1 * len(names) + 2)
    figure = Figure(figsize=(width * columns, 3.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    cases = len(content["cases"])
    title = f"{cases} test case{'s' * (cases > 1)}, one line each; black: mean and 95 % interval"
    if any(isinstance(folders, list) for folders in content["runs"].values()):
        title += "\nof folds, a case's mean over them; grey ticks: mean of each fold"
    figure.suptitle(title, fontsize=10)
    for ax, metric in zip(axes, metrics, strict=False):
        _draw_metric(ax, title_of(metric), content["metrics"][metric], list(content["values"][metric].items()), names)
    for ax in axes[len(metrics) :]:
        ax.remove()
    return figure


def _draw_metric(
    ax: Axes, title: str, found: dict[str, Any], cases: list[tuple[str, dict[str, float]]], names: list[str]
) -> None:
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
        fold_means = list(found["runs"][name].get("fold_means", {}).values())
        ax.scatter([x - 0.14] * len(fold_means), fold_means, marker="_", s=90, color="0.3", zorder=3)
        label = shown(mean, found["unit"])
        ax.annotate(label, (x + 0.14, mean), (9, 0), textcoords="offset points", va="center", fontsize=9, bbox=HALO)
    ax.set_title(f"{title}, {BETTER[found['higher_is_better']]}", fontsize=10)
    ax.set_xticks(range(len(names)), [_tick(name) for name in names], fontsize=9)
    ax.set_xlim(-0.35, len(names) - 0.35)
    ax.set_ylabel("" if found["unit"] == "1" else found["unit"])
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.92")


def _tick(name: str) -> str:
    """A run's name for an axis: of a path, its end; of folds, their number in a line of its own."""
    short = Path(name).name if len(name) > 24 else name
    return short.replace(" (", "\n(") if short.endswith("folds)") else short
