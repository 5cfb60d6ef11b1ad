"""Which connected components form the spinal column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.geometry.components import ConnectedComponents, Wholes

# A component's centre may lie so many mm beside the spinal column: to the left or right, and before or behind. Both
# grow by a slope with the difference in height: lordosis and kyphosis lean by up to 45°, scoliosis less. It is at most
# what two missed vertebrae leave. The heads of the femora lie 80 mm aside and 90 mm below.
_ASIDE_MM, _SLOPE = np.array([25.0, 35.0]), np.array([0.3, 0.7])
_LARGEST_STEP_MM = 110.0
# A component of several vertebrae has a centre for each so many mm of height, about a vertebra's with its process.
_SECTION_MM = 60.0
# The largest ones that are looked at: a spine has fewer pieces, and a network that has learnt little leaves thousands.
_MOST_COMPONENTS = 40


def spinal_column(wholes: Wholes, candidates: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """The connected components that form one column: of all that do, those with the most voxels.

    A column grows from a component by the nearest one that is near enough to it, and so on. Of more than
    ``_MOST_COMPONENTS`` candidates, the largest are looked at.

    Args:
        wholes: the components.
        candidates: (components,) bool.
        spacing_mm: along X, Y, Z.

    Returns:
        (components,) bool.
    """
    height_vox = _SECTION_MM / spacing_mm[2]
    numbers = sorted(np.nonzero(candidates)[0].tolist(), key=lambda number: -wholes.sizes_vox[number])
    centres_mm = {number: wholes.centres(number, height_vox) * spacing_mm for number in numbers[:_MOST_COMPONENTS]}
    best: list[int] = []
    for start in centres_mm:
        if start not in best:
            column = _grown(start, centres_mm)
            if wholes.sizes_vox[column].sum() > wholes.sizes_vox[best].sum():
                best = column
    is_column = np.zeros(len(candidates), bool)
    is_column[best] = True
    return is_column


def spinal_column_mask(mask: np.ndarray, least_share: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """The voxels (X, Y, Z) bool of a mask whose connected components form one column.

    Args:
        mask: (X, Y, Z) bool.
        least_share: of the largest component's voxels; smaller ones are left out.
        spacing_mm: along X, Y, Z.
    """
    connected = ConnectedComponents()
    components = connected.add(mask)
    wholes = connected.wholes()
    column = spinal_column(wholes, wholes.large(least_share=least_share), spacing_mm)
    is_column: np.ndarray = column[wholes.whole_of][components]
    return is_column


def _grown(start: int, centres_mm: dict[int, np.ndarray]) -> list[int]:
    column, centres = [start], centres_mm[start]
    others = {number: other for number, other in centres_mm.items() if number != start}
    while others:
        distance_mm, number = min((_distance_mm(centres, other), number) for number, other in others.items())
        if distance_mm == np.inf:
            break
        column.append(number)
        centres = np.concatenate([centres, others.pop(number)])
    return column


def _distance_mm(column: np.ndarray, component: np.ndarray) -> float:
    """Between the two centres, of (n, 3) mm each, that are nearest in height; infinite if they are no column."""
    steps = np.abs(column[:, None] - component).reshape(-1, 3)
    step = steps[np.lexsort((np.hypot(*steps.T[:2]), steps[:, 2]))[0]]
    if step[2] > _LARGEST_STEP_MM or (step[:2] > _ASIDE_MM + _SLOPE * step[2]).any():
        return np.inf
    return float(np.linalg.norm(step))
