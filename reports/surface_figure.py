"""3D figures of masks: a prediction coloured by its errors, or the labels of one mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.surface import Surface, distances_mm, reduced, surface_of
from verse_utils.files.writing import written_aside
from verse_utils.labels import ANATOMICAL_ORDER, VERTEBRA_NAMES, label_colours

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# What a page may hold for each case: about a megabyte.
PREDICTION_TRIANGLES = 40_000
REFERENCE_TRIANGLES = 20_000
# Upper end of the colour scale, the same for all cases, so that their pictures can be compared.
WORST_MM = 5.0
# Sequential and safe for colour-blind readers (ColorBrewer); correct parts are as pale as bone.
ERROR_COLOURS = "YlOrRd"
# A surface of which nothing is to be told (Okabe and Ito 2008).
_PLAIN = "#E69F00"
# The camera is in front of the patient and a little to the left.
_VIEW = np.array([-0.43, 0.9, 0.1])
_WALL = {"backgroundcolor": "#f6f6f6", "gridcolor": "#dddddd"}
_LIGHT = {
    "lighting": {"ambient": 0.5, "diffuse": 0.6, "specular": 0.05, "roughness": 0.9},
    "lightposition": {"x": 0, "y": 0, "z": 1e5},  # in the viewer's coordinates: the light comes from the viewer
}


def error_figure(prediction: np.ndarray, reference: np.ndarray, affine: np.ndarray, title: str) -> Figure:
    """A 3D figure: the prediction's surface, coloured by its distance to the reference, which is transparent grey.

    A click in the legend switches a surface off and on. Distances are absolute, in mm; the colour scale ends at
    ``WORST_MM``. A vertebra that was missed altogether shows as grey alone. Each point of the reduced surface has the
    largest distance of all points that it replaces.

    Args:
        prediction: (I, J, K) mask, 0 outside; where it is empty, the reference is shown alone.
        reference: mask on the same grid.
        affine: (4, 4), voxel indices to RAS mm.
        title: of the figure.
    """
    return _figure(_error_traces(surface_of(prediction > 0, affine), surface_of(reference > 0, affine)), title)


def label_figure(mask: np.ndarray, affine: np.ndarray, title: str, names: Mapping[int, str] | None = None) -> Figure:
    """A 3D figure of one mask: each label in its own colour, which the legend names.

    Args:
        mask: (I, J, K), 0 outside.
        affine: (4, 4), voxel indices to RAS mm.
        title: of the figure.
        names: of the labels; VerSe's where none are given.
    """
    return _figure(_label_traces(mask, affine, names or VERTEBRA_NAMES), title)


def _figure(traces: list[Any], title: str) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure(traces)
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        legend={"x": 0, "y": 1, "itemsizing": "constant"},
        margin={"l": 0, "r": 0, "t": 40, "b": 0},
        template="plotly_white",
    )
    if traces:
        _set_scene(figure)
    else:
        figure.update_layout(xaxis_visible=False, yaxis_visible=False)
        figure.add_annotation(text="empty: no vertebra", showarrow=False)
    return figure


def _error_traces(prediction: Surface, reference: Surface) -> list[Any]:
    traces = []
    if len(prediction.points_mm):
        simple, members = reduced(prediction, PREDICTION_TRIANGLES)
        if len(reference.points_mm):
            worst_mm = np.zeros(len(simple.points_mm), np.float32)
            np.maximum.at(worst_mm, members, distances_mm(prediction, reference))
            colours = {
                "intensity": worst_mm,
                "cmin": 0.0,
                "cmax": WORST_MM,
                "colorscale": ERROR_COLOURS,
                "colorbar": {"title": {"text": "distance to<br>the reference (mm)"}, "len": 0.6, "thickness": 16},
                "hovertemplate": "%{intensity:.1f} mm from the reference<extra></extra>",
            }
        else:
            colours = {"color": _PLAIN, "hoverinfo": "skip"}
        traces.append(_trace(simple, "prediction", **colours))
    if len(reference.points_mm):
        simple, _ = reduced(reference, REFERENCE_TRIANGLES)
        traces.append(_trace(simple, "reference", color="#888888", opacity=0.25, hoverinfo="skip"))
    return traces


def _label_traces(mask: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> list[Any]:
    labels = [int(label) for label in np.unique(mask) if label]
    labels.sort(key=lambda label: ANATOMICAL_ORDER.index(label) if label in ANATOMICAL_ORDER else label)
    colours = label_colours(ANATOMICAL_ORDER if set(labels) <= set(ANATOMICAL_ORDER) else labels)
    traces = []
    for label in labels:
        surface, _ = reduced(surface_of(mask == label, affine), PREDICTION_TRIANGLES // len(labels))
        name = names.get(label, f"label {label}") if len(labels) > 1 else "mask"
        colour = _PLAIN if len(labels) == 1 else "#{:02x}{:02x}{:02x}".format(*colours[label])
        traces.append(_trace(surface, name, color=colour, hovertemplate=f"{name}<extra></extra>"))
    return traces


def _trace(surface: Surface, name: str, **look: Any) -> Any:
    from plotly.graph_objects import Mesh3d

    x, y, z = surface.points_mm.T
    # Plotly stores arrays as they lie in memory: 16 bits for each corner, where they suffice, halve the page.
    i, j, k = surface.triangles.T.astype(np.uint16 if len(surface.points_mm) < 2**16 else np.int32)
    return Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, name=name, showlegend=True, **_LIGHT, **look)


def _set_scene(figure: Figure) -> None:
    """Give all axes one scale, show the whole spine, and mark its six sides with letters."""
    points = [np.stack([trace.x, trace.y, trace.z]) for trace in figure.data]
    low, high = np.min([p.min(axis=1) for p in points], axis=0), np.max([p.max(axis=1) for p in points], axis=0)
    margin_mm = 0.06 * (high - low).max()
    low, high = low - margin_mm, high + margin_mm
    ratio = (high - low) / (high - low).max()
    axes = {
        f"{name}axis": {
            "range": [float(low[n]), float(high[n])],
            "nticks": 3 + int(5 * ratio[n]),
            "title": {"text": "mm"},
            **_WALL,
        }
        for n, name in enumerate("xyz")
    }
    eye = _VIEW * (0.35 + 1.05 * np.linalg.norm(ratio))  # a whole spine and a single vertebra both fill the page
    camera = {"eye": dict(zip("xyz", eye.tolist(), strict=True)), "up": {"x": 0, "y": 0, "z": 1}}
    aspect = dict(zip("xyz", ratio.tolist(), strict=True))
    figure.update_layout(scene={**axes, "aspectmode": "manual", "aspectratio": aspect, "camera": camera})
    figure.add_trace(_side_letters(low, high, margin_mm))


def _side_letters(low: np.ndarray, high: np.ndarray, margin_mm: float) -> Any:
    from plotly.graph_objects import Scatter3d

    ends = np.tile((low + high) / 2, (6, 1))
    for axis in range(3):
        ends[2 * axis : 2 * axis + 2, axis] = low[axis] + margin_mm / 2, high[axis] - margin_mm / 2
    ends[:4, 2] = low[2] + margin_mm / 2
    x, y, z = ends.T
    look = {"mode": "text", "textfont": {"size": 16}, "showlegend": False, "hoverinfo": "skip"}
    return Scatter3d(x=x, y=y, z=z, text=list("LRPAIS"), **look)


def write_page(figure: Figure, path: Path) -> None:
    """Write a figure as one HTML file that needs nothing else, plotly.js included; whole or not at all."""
    with written_aside(path) as aside:
        figure.write_html(aside, include_plotlyjs=True, config={"displaylogo": False, "responsive": True})
