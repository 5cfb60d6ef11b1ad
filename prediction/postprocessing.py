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
from utils.geometry.spinal_column import spinal_column

if TYPE_CHECKING:
    import h5py


def keep_components(
    wholes: Wholes,
    postprocess: str,
    spacing_mm: Sequence[float],
    slabs: Sequence[slice],
    components: h5py.Dataset,
    classes: Sequence[h5py.Dataset],
) -> None:
    """Turn the connected components that ``postprocess`` drops into background, slab by slab and in place.

    Args:
        wholes: which numbers are one component.
        postprocess: one of ``prediction.options.POSTPROCESSING``.
        spacing_mm: along X, Y, Z.
        slabs: planes along Z, as they were numbered.
        components: (X, Y, Z) int32, the numbers; 0 is background.
        classes: (X, Y, Z) float each, the probabilities of each channel.
    """
    is_kept = _is_kept(wholes, postprocess, spacing_mm)
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
    keep_components(
        connected.wholes(), postprocess, spacing_mm, [slice(0, cleaned.shape[3])], components, list(cleaned)
    )
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
        kept = spinal_column(wholes, wholes.large(least_vox), spacing_mm)
    is_kept: np.ndarray = kept[wholes.whole_of]
    return is_kept
