"""Pictures of a data set: its grids, its intensities, its vertebrae."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.dataset_facts.case_facts import BIN_HU, FIRST_EDGE_HU, LAST_EDGE_HU, CaseFacts, histograms
from utils.dataset_facts.outliers import FEWEST_VALUES
from utils.misc import counted
from utils.visualize import PREDICTION_COLOUR, REFERENCE_COLOUR
from verse_utils.labels import ANATOMICAL_ORDER, VERTEBRA_NAMES
from verse_utils.names import SPLITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Colours that colour-blind readers can tell apart (Okabe and Ito 2008), and shapes for those who see none.
_COLOURS = {"training": REFERENCE_COLOUR, "validation": PREDICTION_COLOUR, "test": "#009E73"}
_MARKERS = {"training": "o", "validation": "s", "test": "^"}
_AXIS_NAMES = ("X\nleft-right", "Y\nback-front", "Z\ndown-up")
# Bars and points grow no wider than they are with so many orientations or vertebrae.
_FEWEST_ROWS, _FEWEST_COLUMNS = 4, 14
# HU that fewer voxels of every split have, in percent, are left out at both ends.
_SHOWN_FROM_PERCENT = 0.02
# Steps of the golden ratio spread points evenly, however many there are.
_GOLDEN = 0.618034


def draw_grids(cases: Sequence[CaseFacts]) -> Figure:
    """Draw spacings and fields of view, a point for each scan, and how many scans are stored in which orientation."""
    figure, (spacing_ax, view_ax, orientation_ax) = _figure(1, 3, 4.2, cases, width_ratios=(3, 3, 2))
    _draw_along_axes(spacing_ax, cases, "spacing_mm", "spacing of the scan in mm")
    _draw_along_axes(view_ax, cases, "field_of_view_mm", "field of view in mm")
    orientations = [code for code, _ in Counter(case.orientation for case in cases).most_common()]
    places = np.arange(len(orientations))
    left = np.zeros(len(orientations))
    for split, members in _splits(cases).items():
        counts = np.array([sum(case.orientation == code for case in members) for code in orientations])
        bars = orientation_ax.barh(places, counts, left=left, height=0.7, color=_COLOURS[split])
        left += counts
    orientation_ax.bar_label(bars, [f"{n:.0f}" for n in left], padding=2, fontsize=8)
    orientation_ax.set_yticks(places, orientations)
    orientation_ax.set_ylim(_limits(len(orientations), _FEWEST_ROWS)[::-1])
    orientation_ax.set(xlabel="scans", ylabel="axes as stored")
    _whole_numbers(orientation_ax.xaxis)
    return figure


def _draw_along_axes(ax: Axes, cases: Sequence[CaseFacts], quantity: str, label: str) -> None:
    splits = _splits(cases)
    width = 0.8 / len(splits)
    for axis in range(3):
        for position, (split, members) in enumerate(splits.items()):
            centre = axis + (position - (len(splits) - 1) / 2) * width
            values = [getattr(case, quantity)[axis] for case in members]
            _draw_points(ax, _beside(centre, width, len(values)), values, split)
            _draw_median(ax, centre, width, values)
    ax.set_xticks(range(3), _AXIS_NAMES)
    ax.tick_params(axis="x", length=0)
    ax.set(ylabel=label, xlim=(-0.5, 2.5), ylim=(0, None))


def draw_intensities(cases: Sequence[CaseFacts]) -> Figure:
    """Draw which share of a split's voxels has which HU, in bone and outside of it."""
    figure, axes = _figure(1, 2, 4.2, cases, has_medians=False)
    edges_hu = np.arange(FIRST_EDGE_HU, LAST_EDGE_HU + 1, BIN_HU)
    for ax, place, title in zip(
        axes, ("hu_in_bone", "hu_outside"), ("in vertebrae", "outside of vertebrae"), strict=True
    ):
        percents = {split: 100 * np.array(n) / sum(n) for split, n in histograms(cases, place).items()}
        for split, percent in percents.items():
            ax.stairs(percent, edges_hu, color=_COLOURS[split], linewidth=1.6)
        if percents:
            shown = np.flatnonzero(np.max([*percents.values()], axis=0) >= _SHOWN_FROM_PERCENT)
            ax.set_xlim(edges_hu[shown[0]] - BIN_HU, edges_hu[shown[-1] + 1] + BIN_HU)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="HU", ylabel=f"% of voxels in bins of {BIN_HU} HU", ylim=(0, None))
    return figure


def draw_vertebrae(cases: Sequence[CaseFacts]) -> Figure:
    """Draw how many scans show each vertebra, and its volumes, a point for each scan with a line at their median."""
    figure, (count_ax, volume_ax) = _figure(2, 1, 6.5, cases, sharex=True)
    seen = {level for case in cases for level in case.volume_ml}
    levels = [VERTEBRA_NAMES[label] for label in ANATOMICAL_ORDER if VERTEBRA_NAMES[label] in seen]
    places = np.arange(len(levels))
    bottom = np.zeros(len(levels))
    for split, members in _splits(cases).items():
        counts = np.array([sum(level in case.volume_ml for case in members) for level in levels])
        bars = count_ax.bar(places, counts, bottom=bottom, width=0.8, color=_COLOURS[split])
        bottom += counts
    count_ax.bar_label(bars, [f"{n:.0f}" for n in bottom], padding=1, fontsize=8)
    for place, level in enumerate(levels):
        shown = [case for case in cases if level in case.volume_ml]
        along = _beside(place, 0.8, len(shown))
        for split, members in _splits(shown).items():
            mine = [x for x, case in zip(along, shown, strict=True) if case.split == split]
            _draw_points(volume_ax, mine, [case.volume_ml[level] for case in members], split)
        _draw_median(volume_ax, place, 0.8, [case.volume_ml[level] for case in shown])
    count_ax.margins(y=0.1)
    count_ax.set_ylabel("scans that show it")
    _whole_numbers(count_ax.yaxis)
    volume_ax.set_xticks(places, levels)
    volume_ax.set(ylabel="volume in ml", xlim=_limits(len(levels), _FEWEST_COLUMNS), ylim=(0, None))
    return figure


def _limits(number: int, fewest: int) -> tuple[float, float]:
    """Limits of an axis with so many bars, which stay in its middle where they are few."""
    margin = 0.6 + max(0, fewest - number) / 2
    return -margin, number - 1 + margin


def _beside(centre: float, width: float, number: int) -> np.ndarray:
    """Places of so many points, side by side around ``centre``."""
    return centre + 0.75 * width * ((np.arange(number) * _GOLDEN + 0.5) % 1 - 0.5)


def _draw_points(ax: Axes, places: Sequence[float] | np.ndarray, values: Sequence[float], split: str) -> None:
    ax.scatter(places, values, s=24, alpha=0.75, color=_COLOURS[split], marker=_MARKERS[split], linewidths=0)


def _draw_median(ax: Axes, centre: float, width: float, values: Sequence[float]) -> None:
    if len(values) >= FEWEST_VALUES:
        ax.hlines(np.median(values), centre - 0.45 * width, centre + 0.45 * width, color="black", linewidth=1)


def _splits(cases: Sequence[CaseFacts]) -> dict[str, list[CaseFacts]]:
    """The cases of each split that has any."""
    members = {split: [case for case in cases if case.split == split] for split in SPLITS}
    return {split: found for split, found in members.items() if found}


def _figure(
    rows: int,
    columns: int,
    height: float,
    cases: Sequence[CaseFacts],
    has_medians: bool = True,
    sharex: bool = False,
    **ratios: Sequence[float],
) -> tuple[Figure, np.ndarray]:
    """A figure with a legend of the splits below its panels, and its axes."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=sharex, gridspec_kw=ratios)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], ls="", marker=_MARKERS[split], ms=7, color=_COLOURS[split], label=_name(split, members))
        for split, members in _splits(cases).items()
    ]
    if has_medians and len(cases) >= FEWEST_VALUES:
        handles.append(Line2D([], [], color="black", lw=1, label=f"median of {FEWEST_VALUES} or more"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure, axes


def _name(split: str, members: Sequence[CaseFacts]) -> str:
    patients = len({case.patient for case in members})
    return f"{split}: {counted(len(members), 'scan')} of {counted(patients, 'patient')}"


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
