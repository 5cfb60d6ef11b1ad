"""The picture beside each mask, drawn in a moment: volumes on disk are read once, and no plotting library is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from utils.visualize import BONE_WINDOW_HU, PREDICTION_COLOUR, slabs_along_z
from verse_utils.files.writing import written_aside
from verse_utils.labels import label_colours

if TYPE_CHECKING:
    from PIL import Image

# Most pixels of all planes side by side, and of a plane from top to bottom; the room above them for their names.
_MOST_WIDTH, _MOST_HEIGHT, _CAPTION = 1440, 1000, 36
_GAP = 6
_LETTERS = 11  # height of vertebrae's names in pixels


class _View(NamedTuple):
    """A plane, or a projection, with the axis to the right first, then the one upwards; labels are 0 outside."""

    name: str
    hu: np.ndarray
    labels: np.ndarray
    size_mm: tuple[float, float]


def draw_mask(
    image_hu: np.ndarray,
    spacing_mm: Sequence[float],
    mask: np.ndarray,
    title: str,
    names: Mapping[int, str] | None = None,
) -> Image.Image:
    """Draw a predicted mask's outline on three planes through most of it, and on the scan's projection from the front.

    Args:
        image_hu: (X, Y, Z), HU; an array, or a volume on disk (``Scratch``).
        spacing_mm: along X, Y, Z.
        mask: (X, Y, Z), 0 outside; an array, or a volume on disk.
        title: of the whole picture.
        names: of VerSe's labels in the mask: each is outlined in its own colour, that of the label tables, and named.
            Without any, the mask is outlined as a whole.
    """
    from PIL import Image, ImageDraw

    views = _views(image_hu, mask, np.array(image_hu.shape) * np.array(spacing_mm))
    wide_mm, high_mm = sum(view.size_mm[0] for view in views), max(view.size_mm[1] for view in views)
    pixels_per_mm = min((_MOST_WIDTH - 5 * _GAP) / wide_mm, _MOST_HEIGHT / high_mm)
    panels = [_panel(view, pixels_per_mm, names or {}) for view in views]
    width = sum(panel.width + _GAP for panel in panels) + _GAP
    picture = Image.new("RGB", (width, max(panel.height for panel in panels) + _CAPTION + _GAP), "white")
    pen, left = ImageDraw.Draw(picture), _GAP
    pen.text((_GAP, 3), title.encode("latin-1", "replace").decode("latin-1"), fill="black")
    for view, panel in zip(views, panels, strict=True):
        pen.text((left, _CAPTION // 2 + 2), view.name, fill="black")
        picture.paste(panel, (left, _CAPTION))
        left += panel.width + _GAP
    return picture


def save_preview(picture: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with written_aside(path) as aside:
        picture.save(aside, format="PNG", compress_level=3)


def _views(image_hu: np.ndarray, mask: np.ndarray, size_mm: np.ndarray) -> list[_View]:
    (x, y, z), front = _most_and_front(mask)
    hu_front = np.concatenate([image_hu[..., planes].max(axis=1) for planes in slabs_along_z(image_hu)], axis=1)
    x_mm, y_mm, z_mm = (float(size) for size in size_mm)
    # The radiological view: the patient's right is on the left of the picture.
    return [
        _View("sagittal", image_hu[x], mask[x], (y_mm, z_mm)),
        _View("coronal", image_hu[:, y][::-1], mask[:, y][::-1], (x_mm, z_mm)),
        _View("axial", image_hu[..., z][::-1], mask[..., z][::-1], (x_mm, y_mm)),
        _View("projection", hu_front[::-1], front[::-1], (x_mm, z_mm)),
    ]


def _most_and_front(mask: np.ndarray) -> tuple[tuple[int, int, int], np.ndarray]:
    """Where along X, Y, Z most of a mask lies, the middle if it is empty; and (X, Z), its highest labels along Y."""
    counts, front = [np.zeros(size, np.int64) for size in mask.shape], []
    for planes in slabs_along_z(mask):
        labels = mask[..., planes]
        inside = labels != 0
        of_XZ = np.count_nonzero(inside, axis=1)
        counts[0] += of_XZ.sum(axis=1)
        counts[1] += np.count_nonzero(inside, axis=(0, 2))
        counts[2][planes] = of_XZ.sum(axis=0)
        front.append(labels.max(axis=1))
    x, y, z = (int(count.argmax()) if count.any() else len(count) // 2 for count in counts)
    return (x, y, z), np.concatenate(front, axis=1)


def _panel(view: _View, pixels_per_mm: float, names: Mapping[int, str]) -> Image.Image:
    from PIL import Image, ImageColor, ImageDraw, ImageFont

    size = [max(1, round(side * pixels_per_mm)) for side in view.size_mm]
    low, high = BONE_WINDOW_HU
    grey = _enlarged((np.clip(view.hu, low, high) - low) * (255 / (high - low)), size)
    colours, middles, colour_of = np.repeat(grey[..., None], 3, axis=2), {}, label_colours()
    without_name = ~np.isin(view.labels, [0, *names])
    colours[_outline(_enlarged(255 * without_name, size) > 127)] = ImageColor.getrgb(PREDICTION_COLOUR)
    for label in names.keys() & set(np.unique(view.labels).tolist()):
        inside = _enlarged(255 * (view.labels == label), size) > 127
        colours[_outline(inside)] = colour_of[label]
        if inside.any():
            middles[label] = [float(np.median(places)) for places in np.nonzero(inside)]
    panel = Image.fromarray(colours)
    pen = ImageDraw.Draw(panel)
    look: dict[str, Any] = {
        "font": ImageFont.load_default(_LETTERS),
        "anchor": "mm",
        "stroke_width": 1,
        "stroke_fill": "black",
    }
    for label, (row, column) in middles.items():
        pen.text((column, row), names[label], fill=colour_of[label], **look)
    return panel


def _enlarged(plane: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A plane of values from 0 to 255 as rows and columns of uint8, the upwards axis from top to bottom.

    Args:
        plane: the axis to the right first, then the one upwards.
        size: columns and rows.
    """
    from PIL import Image

    rows = Image.fromarray(plane.astype(np.uint8).T[::-1].copy())
    return np.array(rows.resize((size[0], size[1]), Image.Resampling.BILINEAR))


def _outline(inside: np.ndarray) -> np.ndarray:
    """Pixels of a mask that have a neighbour outside of it."""
    around = np.pad(inside, 1, mode="edge")
    outline: np.ndarray = inside & ~(around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:])
    return outline
