"""The picture beside each mask, drawn in a moment: volumes on disk are read once, and no plotting library is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from utils.misc import written_aside
from utils.visualize import BONE_WINDOW_HU, PREDICTION_COLOUR, slabs_along_z

if TYPE_CHECKING:
    from PIL import Image

# Most pixels of all planes side by side, and of a plane from top to bottom; the room above them for their names.
_MOST_WIDTH, _MOST_HEIGHT, _CAPTION = 1440, 1000, 36
_GAP = 6


class _View(NamedTuple):
    """A plane, or a projection, with the axis to the right first, then the one upwards."""

    name: str
    hu: np.ndarray
    mask: np.ndarray
    size_mm: tuple[float, float]


def draw_mask(image_hu: np.ndarray, spacing_mm: Sequence[float], mask: np.ndarray, title: str) -> Image.Image:
    """Draw a predicted mask's outline on three planes through most of it, and on the scan's projection from the front.

    Args:
        image_hu: (X, Y, Z), HU; an array, or a volume on disk (``Scratch``).
        spacing_mm: along X, Y, Z.
        mask: (X, Y, Z), 0 outside; an array, or a volume on disk.
        title: of the whole picture.
    """
    from PIL import Image, ImageDraw

    views = _views(image_hu, mask, np.array(image_hu.shape) * np.array(spacing_mm))
    wide_mm, high_mm = sum(view.size_mm[0] for view in views), max(view.size_mm[1] for view in views)
    pixels_per_mm = min((_MOST_WIDTH - 5 * _GAP) / wide_mm, _MOST_HEIGHT / high_mm)
    panels = [_panel(view, pixels_per_mm) for view in views]
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
    (x, y, z), mask_front = _most_and_front(mask)
    hu_front = np.concatenate([image_hu[..., planes].max(axis=1) for planes in slabs_along_z(image_hu)], axis=1)
    x_mm, y_mm, z_mm = (float(size) for size in size_mm)
    # The radiological view: the patient's right is on the left of the picture.
    return [
        _View("sagittal", image_hu[x], mask[x] != 0, (y_mm, z_mm)),
        _View("coronal", image_hu[:, y][::-1], mask[:, y][::-1] != 0, (x_mm, z_mm)),
        _View("axial", image_hu[..., z][::-1], mask[..., z][::-1] != 0, (x_mm, y_mm)),
        _View("projection", hu_front[::-1], mask_front[::-1], (x_mm, z_mm)),
    ]


def _most_and_front(mask: np.ndarray) -> tuple[tuple[int, int, int], np.ndarray]:
    """Where along X, Y, Z most of a mask lies, the middle if it is empty; and (X, Z) bool, it seen from the front."""
    counts, front = [np.zeros(size, np.int64) for size in mask.shape], []
    for planes in slabs_along_z(mask):
        inside = mask[..., planes] != 0
        of_XZ = np.count_nonzero(inside, axis=1)
        counts[0] += of_XZ.sum(axis=1)
        counts[1] += np.count_nonzero(inside, axis=(0, 2))
        counts[2][planes] = of_XZ.sum(axis=0)
        front.append(of_XZ > 0)
    x, y, z = (int(count.argmax()) if count.any() else len(count) // 2 for count in counts)
    return (x, y, z), np.concatenate(front, axis=1)


def _panel(view: _View, pixels_per_mm: float) -> Image.Image:
    from PIL import Image, ImageColor

    low, high = BONE_WINDOW_HU
    grey = ((np.clip(view.hu, low, high) - low) * (255 / (high - low))).astype(np.uint8)
    width, height = (max(1, round(side * pixels_per_mm)) for side in view.size_mm)
    image, inside = (
        np.array(Image.fromarray(plane.T[::-1].copy()).resize((width, height), Image.Resampling.BILINEAR))
        for plane in (grey, np.where(view.mask, np.uint8(255), np.uint8(0)))
    )
    colours = np.repeat(image[..., None], 3, axis=2)
    colours[_outline(inside > 127)] = ImageColor.getrgb(PREDICTION_COLOUR)
    return Image.fromarray(colours)


def _outline(inside: np.ndarray) -> np.ndarray:
    """Pixels of a mask that have a neighbour outside of it."""
    around = np.pad(inside, 1, mode="edge")
    outline: np.ndarray = inside & ~(around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:])
    return outline
