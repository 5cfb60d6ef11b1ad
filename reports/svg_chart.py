"""Line charts as SVG inside a page: sharp at any size, in the colours of the page's style sheet."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

# Colours that matplotlib draws with -> what the page's style sheet calls them, for light and dark mode.
_INK, _GRID, _LINES = "#000001", "#000002", ("#000003", "#000004")
_PAGE_COLOURS = {_INK: "var(--soft)", _GRID: "var(--rule)", _LINES[0]: "var(--line-1)", _LINES[1]: "var(--line-2)"}
_STYLES = ("-", "--")
# With more epochs, markers would hide their line and make up most of the file.
MOST_MARKERS = 50
# Equal charts give equal text (hash salt, no metadata). Words stay text, so that they take the page's font.
_SETTINGS: Any = {"svg.hashsalt": "report", "svg.fonttype": "none", "font.sans-serif": "DejaVu Sans", "font.size": 13}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def line_chart(epochs: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """Draw one or two lines over epochs.

    Args:
        epochs: (N,) epoch numbers, ascending.
        lines: name -> (N,) values; values that are not finite are left out.

    Returns:
        An ``<svg>`` element; nothing where no value is finite.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not any(map(math.isfinite, (value for values in lines.values() for value in values))):
        return ""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(6.6, 3.9), layout="constrained")
        figure.patch.set_visible(False)
        ax = figure.subplots()
        marker = "o" if len(epochs) <= MOST_MARKERS else ""
        for values, colour, style in zip(lines.values(), _LINES, _STYLES, strict=False):
            known = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if math.isfinite(value)]
            ax.plot(
                [epoch for epoch, _ in known],
                [value for _, value in known],
                style,
                color=colour,
                linewidth=2,
                marker=marker,
                markersize=4,
                clip_on=False,
            )
        ax.set_facecolor("none")
        ax.set_xlabel("epoch", loc="right", color=_INK)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.tick_params(length=0, labelcolor=_INK)
        ax.grid(axis="y", color=_GRID)
        ax.spines[:].set_visible(False)
        stream = StringIO()
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    return _in_page_colours(stream.getvalue())


def _in_page_colours(svg: str) -> str:
    """The element alone, without the ids of its groups, which would repeat in a page with two charts."""
    element = re.sub(r' id="[a-z0-9_.]+_\d+"', "", svg[svg.index("<svg") :])
    for drawn, named in _PAGE_COLOURS.items():
        element = element.replace(drawn, named)
    return element
