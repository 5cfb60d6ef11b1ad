"""Pictures that need no display: slices through the spine, straight or along its line, and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.constants import SLAB_SLICES
from utils.geometry.curved_reformat import CentreLine, Plane, centre_line, straightened
from verse_utils.files.writing import written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A window for bone: dark soft tissue, cortical bone near white.
BONE_WINDOW_HU = (-200.0, 900.0)
# Colours of reference and prediction that colour-blind readers can tell apart (Okabe and Ito 2008).
REFERENCE_COLOUR = "#56B4E9"
PREDICTION_COLOUR = "#E69F00"

# Plane -> the axis that it cuts. Of the other two, the first runs to the right in the picture, the second upwards.
_PLANES = (("sagittal", 0), ("coronal", 1), ("axial", 2))
# What is shown around the spine's line, in mm: behind and in front of it, left and right of it.
_REACH_MM: dict[Plane, tuple[int, int]] = {"sagittal": (85, 45), "coronal": (65, 65)}


def planes_through(weight: np.ndarray) -> tuple[int, int, int]:
    """Indices along X, Y, Z of the planes with most of a mask or heatmap; the middle of the grid where it is empty.

    Args:
        weight: (X, Y, Z), not negative; of integers, what is over 0 counts as 1.
    """
    sums = [np.zeros(size) for size in weight.shape]
    for planes in slabs_along_z(weight):
        slab = weight[..., planes]
        slab = slab > 0 if slab.dtype.kind in "iu" else slab
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
        through: (X, Y, Z) mask or heatmap; the planes go where most of it is.
        rows: row title -> {a matplotlib colour: (X, Y, Z) mask to outline in it, or "heatmap": (X, Y, Z) in [0, 1]}.
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


def _draw_plane(
    ax: Axes,
    image_hu: np.ndarray,
    spacing_mm: Sequence[float],
    axis: int,
    index: int,
    overlays: Mapping[str, np.ndarray],
) -> None:
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
        elif (inside := values > 0).any() and not inside.all():
            ax.contour(inside, levels=[0.5], colors=[key], linewidths=0.8)
    if axis != 0:  # the radiological view: the patient's right is on the left of the picture
        ax.invert_xaxis()
    ax.set_xticks([])
    ax.set_yticks([])


def slabs_along_z(volume: np.ndarray) -> list[slice]:
    """Slices of Z that divide a volume into slabs, as a volume on disk may not fit the memory."""
    return [slice(first, first + SLAB_SLICES) for first in range(0, volume.shape[2], SLAB_SLICES)]


def draw_comparison(
    image_hu: np.ndarray,
    spacing_mm: Sequence[float],
    prediction: np.ndarray,
    reference: np.ndarray,
    title: str,
) -> Figure:
    """Draw a test case: the spine straightened, from the side and from the front, and two axial planes.

    Both masks are outlined. Voxels of only one mask are false, and filled in the colour of that mask. The axial planes
    go through the middle of the masks, and where most voxels are false. Axes are mm along the spine's line (see
    ``utils.geometry.curved_reformat``) and mm from it; the line is that of the reference mask, or of the prediction
    where the reference is empty.

    Args:
        image_hu: (X, Y, Z), HU.
        spacing_mm: along X, Y, Z.
        prediction: (X, Y, Z) mask, 0 outside.
        reference: (X, Y, Z) mask, 0 outside.
        title: of the whole picture.
    """
    from matplotlib.figure import Figure

    prediction, reference = prediction > 0, reference > 0
    line = centre_line(reference if reference.any() else prediction, spacing_mm)
    tallest_mm = max(len(line.points_mm), 340)  # the two axial planes beside it need that much
    width_mm = 3 * sum(_REACH_MM["coronal"])
    figure = Figure(figsize=(9.0 * width_mm / tallest_mm + 2.0, 10.2), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    figure.suptitle(title, fontsize=10)
    heights = _axial_planes_of(prediction, reference)
    for column, plane in enumerate(_REACH_MM):
        ax = figure.add_subplot(grid[:, column])
        _draw_straightened(ax, image_hu, spacing_mm, line, plane, prediction, reference)
        for index in heights.values():
            ax.axhline(line.length_at(index * spacing_mm[2]), color="white", linewidth=0.6, linestyle="--", alpha=0.7)
    for row, (name, index) in enumerate(heights.items()):
        _draw_axial(figure.add_subplot(grid[row, 2]), image_hu, spacing_mm, line, index, prediction, reference, name)
    _add_legend(figure)
    return figure


def _axial_planes_of(prediction: np.ndarray, reference: np.ndarray) -> dict[str, int]:
    """Name -> index along Z of the axial planes to show."""
    false_vox = (prediction != reference).sum(axis=(0, 1))
    held = np.flatnonzero((prediction | reference).any(axis=(0, 1)))
    middle = int(held[len(held) // 2]) if len(held) else prediction.shape[2] // 2
    return {"middle": middle, "most false": int(false_vox.argmax()) if false_vox.any() else middle}


def _draw_straightened(
    ax: Axes,
    image_hu: np.ndarray,
    spacing_mm: Sequence[float],
    line: CentreLine,
    plane: Plane,
    prediction: np.ndarray,
    reference: np.ndarray,
) -> None:
    reach_mm = _REACH_MM[plane]
    image = straightened(image_hu, spacing_mm, line, plane, reach_mm, fill=float(image_hu.min()))
    masks = [straightened(m, spacing_mm, line, plane, reach_mm, fill=0, nearest=True) for m in (prediction, reference)]
    extent_mm = (-reach_mm[0] - 0.5, reach_mm[1] + 0.5, -0.5, len(image) - 0.5)
    _draw_errors(ax, extent_mm, image, *masks)
    if plane == "sagittal":
        _name_sides(ax, "P", "A", "I", "S")
    else:
        ax.invert_xaxis()
        _name_sides(ax, "R", "L", "I", "S")
    ax.set_title(f"{plane}, along the spine", fontsize=8)


def _draw_axial(
    ax: Axes,
    image_hu: np.ndarray,
    spacing_mm: Sequence[float],
    line: CentreLine,
    index: int,
    prediction: np.ndarray,
    reference: np.ndarray,
    name: str,
) -> None:
    x_mm, y_mm, _ = line.points_mm[line.length_at(index * spacing_mm[2])]
    sides_mm = [(n - 0.5) * s for n, s in zip(image_hu.shape, spacing_mm, strict=True)]
    extent_mm = (-spacing_mm[0] / 2 - x_mm, sides_mm[0] - x_mm, -spacing_mm[1] / 2 - y_mm, sides_mm[1] - y_mm)
    _draw_errors(ax, extent_mm, *(volume[..., index].T for volume in (image_hu, prediction, reference)))
    false_mm2 = int((prediction[..., index] != reference[..., index]).sum()) * spacing_mm[0] * spacing_mm[1]
    height_mm = line.length_at(index * spacing_mm[2])
    ax.set_title(f"axial at {height_mm} mm, {name}:\n{false_mm2:.0f} mm² false", fontsize=8)
    (left, right), (behind, before) = _REACH_MM["coronal"], _REACH_MM["sagittal"]
    ax.set(xlim=(right, -left), ylim=(-behind, before))
    _name_sides(ax, "R", "L", "P", "A")


def _draw_errors(
    ax: Axes,
    extent_mm: tuple[float, float, float, float],
    image: np.ndarray,
    prediction: np.ndarray,
    reference: np.ndarray,
) -> None:
    """Draw an image and two masks, each (rows, columns): outlines of both, and filled where only one of them is."""
    from matplotlib.colors import to_rgba

    low, high = BONE_WINDOW_HU
    where: dict[str, Any] = {"origin": "lower", "extent": extent_mm, "interpolation": "nearest"}
    ax.imshow(image, cmap="gray", vmin=low, vmax=high, **where)
    colours = np.zeros((*prediction.shape, 4))
    colours[prediction & ~reference] = to_rgba(PREDICTION_COLOUR, 0.55)
    colours[reference & ~prediction] = to_rgba(REFERENCE_COLOUR, 0.55)
    ax.imshow(colours, **where)
    for mask, colour in ((reference, REFERENCE_COLOUR), (prediction, PREDICTION_COLOUR)):
        if mask.any() and not mask.all():
            ax.contour(mask, levels=[0.5], colors=[colour], linewidths=0.8, origin="lower", extent=extent_mm)


def _name_sides(ax: Axes, left: str, right: str, bottom: str, top: str) -> None:
    ax.set_facecolor("black")
    ax.set_xlabel("mm", fontsize=7)
    ax.set_ylabel("mm", fontsize=7)
    ax.tick_params(labelsize=7)
    look: dict[str, Any] = {"transform": ax.transAxes, "color": "white", "fontsize": 8, "ha": "center", "va": "center"}
    for x, y, side in ((0.05, 0.5, left), (0.95, 0.5, right), (0.05, 0.02, bottom), (0.05, 0.98, top)):
        ax.text(x, y, side, **look)


def _add_legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = [
        Line2D([], [], color=REFERENCE_COLOUR, label="reference"),
        Line2D([], [], color=PREDICTION_COLOUR, label="prediction"),
        Patch(color=REFERENCE_COLOUR, alpha=0.55, label="false negative"),
        Patch(color=PREDICTION_COLOUR, alpha=0.55, label="false positive"),
        Line2D([], [], color="grey", linewidth=0.8, linestyle="--", label="axial planes"),
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def draw_curves(history: Sequence[Mapping[str, float]], score_name: str) -> Figure:
    """Draw losses and the validation score over epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss_ax, score_ax = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name, colour in (("train_loss", REFERENCE_COLOUR), ("validation_loss", PREDICTION_COLOUR)):
        loss_ax.plot(epochs, [row[name] for row in history], color=colour, label=name.replace("_", " "))
    loss_ax.set(xlabel="epoch", ylabel="loss")
    loss_ax.legend(frameon=False)
    score_ax.plot(epochs, [row[score_name] for row in history], color=PREDICTION_COLOUR)
    score_ax.set(xlabel="epoch", ylabel=score_name.replace("_", " "))
    for ax in (loss_ax, score_ax):
        ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=120)
