"""Which connected components of a prediction are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prediction.probabilities import class_indices, of_background
from utils.constants import LEAST_COMPONENT_MM3
from utils.geometry.boxes import mask_box
from utils.geometry.components import ConnectedComponents, Wholes

if TYPE_CHECKING:
    import h5py

# How far, in mm, a component may lie beside the line of the spinal column: to the left or right, and before or behind.
# Along its gap to the column's end, both grow by a slope: lordosis and kyphosis lean by up to 45°, scoliosis less.
# The gap is that which two missed vertebrae leave at most. The heads of the femora lie 80 mm aside and 90 mm below.
_ASIDE_MM, _SLOPE = np.array([30.0, 40.0]), np.array([0.3, 0.7])
_LARGEST_GAP_MM = 80.0
# Height over which the line is averaged: a vertebra's centre lies in its body in some planes, in its process in others.
_HEIGHT_MM = 40.0


def keep_components(
    connected: ConnectedComponents,
    postprocess: str,
    spacing_mm: Sequence[float],
    slabs: Sequence[slice],
    components: h5py.Dataset,
    classes: Sequence[h5py.Dataset],
) -> None:
    """Turn the connected components that ``postprocess`` drops into background, slab by slab and in place.

    Args:
        connected: that numbered the components.
        postprocess: one of ``prediction.options.POSTPROCESSING``.
        spacing_mm: along X, Y, Z.
        slabs: planes along Z, as they were numbered.
        components: (X, Y, Z) int32, the numbers; 0 is background.
        classes: (X, Y, Z) float each, the probabilities of each channel.
    """
    is_kept = _is_kept(connected.wholes(), postprocess, spacing_mm)
    for planes in slabs:
        numbers = components[..., planes]
        dropped = (numbers > 0) & ~is_kept[numbers]
        if (box := mask_box(dropped)) is not None:
            x, y, z = box.slices
            where = x, y, slice(planes.start + z.start, planes.start + z.stop)
            for volume, value in zip([components, *classes], [0, *of_background(len(classes))], strict=True):
                volume[where] = np.where(dropped[box.slices], value, volume[where])


def without_dropped_components(probabilities_KXYZ: Tensor, spacing_mm: Sequence[float], postprocess: str) -> Tensor:
    """Turn the connected components of foreground, of whatever class, that ``postprocess`` drops into background.

    Args:
        probabilities_KXYZ: (K, X, Y, Z) float; one channel of foreground, or K > 1 classes with the background first.
        spacing_mm: along X, Y, Z.
        postprocess: one of ``prediction.options.POSTPROCESSING``.

    Returns:
        (K, X, Y, Z) float.
    """
    connected, cleaned = ConnectedComponents(), probabilities_KXYZ.clone().numpy()
    components = connected.add(class_indices(cleaned) > 0)
    keep_components(connected, postprocess, spacing_mm, [slice(0, cleaned.shape[3])], components, cleaned)
    return torch.from_numpy(cleaned)


def _is_kept(wholes: Wholes, postprocess: str, spacing_mm: Sequence[float]) -> np.ndarray:
    """(numbers + 1,) bool: which numbers of components are kept."""
    least_vox = LEAST_COMPONENT_MM3 / float(np.prod(spacing_mm))
    if postprocess == "none":
        kept = wholes.large()
    elif postprocess == "largest":
        kept = wholes.large(least_share=1.0)
    elif postprocess == "blobs":
        kept = wholes.large(least_vox)
    else:
        kept = np.zeros(len(wholes.sizes_vox), bool)
        kept[spinal_column(wholes, wholes.large(least_vox), spacing_mm)] = True
    is_kept: np.ndarray = kept[wholes.whole_of]
    return is_kept


def spinal_column(wholes: Wholes, candidates: np.ndarray, spacing_mm: Sequence[float]) -> list[int]:
    """The connected components that form one column: of all that do, those with the most voxels.

    A column grows from a component by the nearest one that lies beside its line or in line with its end, and so on.

    Args:
        wholes: the components.
        candidates: (components,) bool.
        spacing_mm: along X, Y, Z.

    Returns:
        Numbers of the components.
    """
    lines = {int(number): wholes.centre_line(int(number)) * spacing_mm for number in np.nonzero(candidates)[0]}
    best: list[int] = []
    for start in sorted(lines, key=lambda number: -wholes.sizes_vox[number]):
        if start not in best:
            column = _grown(start, lines)
            if wholes.sizes_vox[column].sum() > wholes.sizes_vox[best].sum():
                best = column
    return best


def _grown(start: int, lines: dict[int, np.ndarray]) -> list[int]:
    column, line = [start], lines[start]
    others = {number: other for number, other in lines.items() if number != start}
    while others:
        distance_mm, number = min((_distance_mm(line, other), number) for number, other in others.items())
        if distance_mm == np.inf:
            break
        column.append(number)
        line = np.concatenate([line, others.pop(number)])
    return column


def _distance_mm(column: np.ndarray, line: np.ndarray) -> float:
    """Between a column's line and a component's, (n, 3) mm each; infinite if they can't be of one column."""
    low, high = (max(column[:, 2].min(), line[:, 2].min()), min(column[:, 2].max(), line[:, 2].max()))
    gap_mm = max(low - high, 0.0)  # where they overlap in height, they are compared in the middle of that
    aside_mm = np.abs(_at(column, (low + high) / 2) - _at(line, (low + high) / 2))
    if gap_mm > _LARGEST_GAP_MM or (aside_mm > _ASIDE_MM + _SLOPE * gap_mm).any():
        return np.inf
    return float(np.hypot(gap_mm, np.hypot(*aside_mm)))


def _at(line: np.ndarray, height_mm: float) -> np.ndarray:
    """Where a line is at a height, or where it comes nearest to it: (2,) X and Y in mm."""
    height_mm = line[np.argmin(np.abs(line[:, 2] - height_mm)), 2]
    where: np.ndarray = line[np.abs(line[:, 2] - height_mm) <= _HEIGHT_MM / 2, :2].mean(axis=0)
    return where
