"""Pictures: three planes through the spine, and training curves. Works without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.constants import SLAB_SLICES
from utils.misc import written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A window for bone: dark soft tissue, cortical bone near white.
BONE_WINDOW_HU = (-200.0, 900.0)
# Categorical colours of target and prediction that colour-blind readers can tell apart (Okabe and Ito 2008).
TARGET_COLOUR = "#56B4E9"
PREDICTION_COLOUR = "#E69F00"

# Plane name, axis that it cuts; of the other two the first runs right and the second up in the picture.
_PLANES = (("sagittal", 0), ("coronal", 1), ("axial", 2))


def planes_through(weight: np.ndarray) -> tuple[int, int, int]:
    """The three indices at which planes hold most of a mask or heatmap; the middle of the box where it is empty.

    Args:
        weight: (X, Y, Z), not negative.
    """
    sums = [np.zeros(size) for size in weight.shape]
    for planes in _slabs(weight):
        slab = weight[..., planes]
        sums[0] += slab.sum(axis=(1, 2), dtype=np.float64)
        sums[1] += slab.sum(axis=(0, 2), dtype=np.float64)
        sums[2][planes] = slab.sum(axis=(0, 1), dtype=np.float64)
    x, y, z = (int(s.argmax()) if s.any() else len(s) // 2 for s in sums)
    return x, y, z


def draw_planes(
    image_hu: np.ndarray,
    spacing_mm: Sequence[float],
    through: np.ndarray,
    rows: Mapping[str, Mapping[str, np.ndarray]],
    title: str,
) -> Figure:
    """Draw rows of three planes through the spine.

    Args:
        image_hu: (X, Y, Z), HU.
        spacing_mm: along X, Y, Z.
        through: (X, Y, Z) mask or heatmap that tells where the planes go.
        rows: row title -> {"outline in this matplotlib colour": (X, Y, Z) mask, or "heatmap": (X, Y, Z) in [0, 1]}.
        title: of the whole picture.
    """
    from matplotlib.figure import Figure

    where = planes_through(through)
    extents_mm = np.array(image_hu.shape) * np.array(spacing_mm)
    widths = [extents_mm[1], extents_mm[0], extents_mm[0]]
    row_height = 9.0 * max(extents_mm[2], extents_mm[1]) / sum(widths)
    height = min(max(row_height, 1.5), 4.5) * len(rows) + 0.5
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False, gridspec_kw={"width_ratios": widths})
    figure.suptitle(title, fontsize=10)
    for row_axes, (row_title, overlays) in zip(axes, rows.items(), strict=True):
        for (plane, axis), ax in zip(_PLANES, row_axes, strict=True):
            _draw_plane(ax, image_hu, spacing_mm, axis, where[axis], overlays)
            ax.set_title(f"{row_title}, {plane}", fontsize=8)
    return figure


def _draw_plane(ax: Axes, image_hu, spacing_mm, axis: int, index: int, overlays: Mapping[str, np.ndarray]) -> None:
    across, up = (other for other in range(3) if other != axis)

    def plane(volume: np.ndarray) -> np.ndarray:
        return np.asarray(volume[tuple(index if other == axis else slice(None) for other in range(3))].T, np.float32)

    aspect = spacing_mm[up] / spacing_mm[across]
    low, high = BONE_WINDOW_HU
    ax.imshow(plane(image_hu), cmap="gray", vmin=low, vmax=high, origin="lower", aspect=aspect)
    for key, volume in overlays.items():
        values = plane(volume)
        if key == "heatmap":
            ax.imshow(
                values, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(values, 0, 1) * 0.7, origin="lower", aspect=aspect
            )
        elif values.min() < 0.5 <= values.max():
            ax.contour(values, levels=[0.5], colors=[key], linewidths=0.8)
    if axis != 0:  # as radiologists look at it: the patient's right is on the left
        ax.invert_xaxis()
    ax.set_xticks([])
    ax.set_yticks([])


def draw_mask(image_hu: np.ndarray, spacing_mm: Sequence[float], mask: np.ndarray, title: str) -> Figure:
    """Draw a found mask: three planes through it, and the scan's projection from the front, all with its outline.

    Args:
        image_hu: (X, Y, Z), HU; an array, or a volume of ``Scratch``.
        spacing_mm: along X, Y, Z.
        mask: (X, Y, Z), 0 where nothing was found; likewise.
        title: of the whole picture.
    """
    from matplotlib.figure import Figure

    where = planes_through(mask)
    extents_mm = np.array(image_hu.shape) * np.array(spacing_mm)
    widths = [extents_mm[1], extents_mm[0], extents_mm[0], extents_mm[0]]
    height = min(max(12.0 * max(extents_mm[2], extents_mm[1]) / sum(widths), 2.0), 12.0) + 0.5
    figure = Figure(figsize=(12, height), layout="constrained")
    axes = figure.subplots(1, 4, gridspec_kw={"width_ratios": widths})
    figure.suptitle(title, fontsize=10)
    for (plane, axis), ax in zip(_PLANES, axes, strict=False):
        _draw_plane(ax, image_hu, spacing_mm, axis, where[axis], {PREDICTION_COLOUR: mask})
        ax.set_title(plane, fontsize=8)
    front = _seen_from_front(image_hu), _seen_from_front(mask)
    _draw_plane(axes[3], front[0], spacing_mm, 1, 0, {PREDICTION_COLOUR: front[1]})
    axes[3].set_title("projection", fontsize=8)
    return figure


def _seen_from_front(volume: np.ndarray) -> np.ndarray:
    """(X, 1, Z) maximum along Y."""
    return np.concatenate([volume[..., planes].max(axis=1, keepdims=True) for planes in _slabs(volume)], axis=2)


def _slabs(volume: np.ndarray) -> list[slice]:
    """Slabs along Z that make up a volume, which may lie on disk."""
    return [slice(first, first + SLAB_SLICES) for first in range(0, volume.shape[2], SLAB_SLICES)]


def draw_curves(history: Sequence[Mapping[str, float]], score_name: str) -> Figure:
    """Draw losses and the validation score over epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss_ax, score_ax = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name, colour in (("train_loss", TARGET_COLOUR), ("validation_loss", PREDICTION_COLOUR)):
        loss_ax.plot(epochs, [row[name] for row in history], color=colour, label=name.replace("_", " "))
    loss_ax.set(xlabel="epoch", ylabel="loss")
    loss_ax.legend(frameon=False)
    score_ax.plot(epochs, [row[score_name] for row in history], color=PREDICTION_COLOUR)
    score_ax.set(xlabel="epoch", ylabel=score_name.replace("_", " "))
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=120)
