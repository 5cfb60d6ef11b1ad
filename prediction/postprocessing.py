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

# A component's centre may lie so many mm beside the spinal column: to the left or right, and before or behind. Both
# grow by a slope with the difference in height: lordosis and kyphosis lean by up to 45°, scoliosis less. It is at most
# what two missed vertebrae leave. The heads of the femora lie 80 mm aside and 90 mm below.
_ASIDE_MM, _SLOPE = np.array([25.0, 35.0]), np.array([0.3, 0.7])
_LARGEST_STEP_MM = 110.0
# A component of several vertebrae has a centre for each so many mm of height, about a vertebra's with its process.
_SECTION_MM = 60.0


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

    A column grows from a component by the nearest one that is near enough to it, and so on.

    Args:
        wholes: the components.
        candidates: (components,) bool.
        spacing_mm: along X, Y, Z.

    Returns:
        Numbers of the components.
    """
    height_vox, numbers = _SECTION_MM / spacing_mm[2], np.nonzero(candidates)[0].tolist()
    centres_mm = {number: wholes.centres(number, height_vox) * spacing_mm for number in numbers}
    best: list[int] = []
    for start in sorted(numbers, key=lambda number: -wholes.sizes_vox[number]):
        if start not in best:
            column = _grown(start, centres_mm)
            if wholes.sizes_vox[column].sum() > wholes.sizes_vox[best].sum():
                best = column
    return best


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
