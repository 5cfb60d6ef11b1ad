"""Line charts as SVG for a web page: sharp at any size, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 480, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 464, 16, 236


def line_chart(label: str, epochs: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """Lines over epochs; the n-th line has the class ``line-n``, which gives it its colour.

    Args:
        label: what a screen reader says.
        epochs: (N,) of the points, ascending.
        lines: name -> (N,) values; those that are not finite are left out.
    """
    known = [value for values in lines.values() for value in values if math.isfinite(value)]
    if not known:
        return ""
    y_ticks = ticks(min(known), max(known))
    x_ticks = [tick for tick in ticks(epochs[0], epochs[-1]) if epochs[0] <= tick <= epochs[-1] and tick == int(tick)]
    across = _scale(epochs[0], epochs[-1], _LEFT + 8, _RIGHT - 8)
    up = _scale(y_ticks[0], y_ticks[-1], _BOTTOM, _TOP)
    decimals = max(len(f"{tick:g}".partition(".")[2]) for tick in y_ticks)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in y_ticks:
        y = up(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4.5:.1f}" text-anchor="end">{tick:.{decimals}f}</text>')
    for tick in x_ticks or epochs[:1]:
        parts.append(f'<text x="{across(tick):.1f}" y="{_BOTTOM + 20}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{_RIGHT}" y="{HEIGHT - 4}" text-anchor="end">epoch</text>')
    for number, (name, values) in enumerate(lines.items(), start=1):
        points = [(across(x), up(y), x, y) for x, y in zip(epochs, values, strict=True) if math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
        parts.append(f'<g class="line-{number}"><polyline points="{path}"/>')
        for x, y, epoch, value in points:
            told = f"{escape(name)} after epoch {epoch:g}: {value:.4g}"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{told}</title></circle>')
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers, steps of 1, 2 or 5 times a power of ten, that reach from ``low`` to ``high``."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= rough * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _scale(low: float, high: float, start: float, stop: float):
    """The straight line that maps ``low`` to ``start`` and ``high`` to ``stop``; the middle where both are one."""
    if high == low:
        return lambda value: (start + stop) / 2
    return lambda value: start + (value - low) / (high - low) * (stop - start)
