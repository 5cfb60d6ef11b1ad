"""Which connected components of a prediction are kept, and how sure the network is of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from torch import Tensor

from prediction.probabilities import class_indices, of_background, of_foreground
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


def describe_components(
    wholes: Wholes,
    slabs: Sequence[slice],
    components: h5py.Dataset,
    classes: Sequence[h5py.Dataset],
    affine: np.ndarray,
) -> list[dict[str, Any]]:
    """The connected components that were kept, from above, in JSON's types; read slab by slab.

    Args:
        wholes: which numbers are one component.
        slabs: planes along Z.
        components: (X, Y, Z) int32, the numbers of those that are kept; 0 is background.
        classes: (X, Y, Z) float each, the probabilities of each channel.
        affine: (4, 4) of the network's grid, to RAS mm.

    Returns:
        Of each, ``volume_ml``, ``centre_mm`` (of mass; X, Y, Z of RAS) and ``confidence``: the mean probability of
        foreground in it.
    """
    count = len(wholes.sizes_vox)
    sums = np.zeros((5, count))  # of voxels, probabilities, X, Y, Z
    for planes in slabs:
        numbers = components[..., planes]
        x, y, z = np.nonzero(numbers)
        if not len(x):
            continue
        which = wholes.whole_of[numbers[x, y, z]]
        foreground = of_foreground(np.stack([volume[..., planes] for volume in classes]))[x, y, z]
        for total, weights in zip(sums, (None, foreground, x, y, z + planes.start), strict=True):
            total += np.bincount(which, weights, count)
    voxels, *totals = sums[:, sums[0] > 0]
    voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    confidences, *centres_vox = (total / voxels for total in totals)
    centres_mm = nib.affines.apply_affine(affine, np.stack(centres_vox, axis=1))
    found = [
        {
            "volume_ml": round(float(size) * voxel_ml, 2),
            "centre_mm": [round(float(mm), 1) for mm in centre_mm],
            "confidence": round(float(confidence), 3),
        }
        for size, centre_mm, confidence in zip(voxels, centres_mm, confidences, strict=True)
    ]
    return sorted(found, key=lambda one: -one["centre_mm"][2])


def without_dropped_components(probabilities_KXYZ: Tensor, spacing_mm: Sequence[float], postprocess: str) -> Tensor:
    """Turn the connected components of foreground, of whatever class, that ``postprocess`` drops into background.

    Args:
        probabilities_KXYZ: (K, X, Y, Z) float on the CPU, changed in place, as many classes take much memory; one
            channel of foreground, or K > 1 classes with the background first.
        spacing_mm: along X, Y, Z.
        postprocess: one of ``prediction.options.POSTPROCESSING``.

    Returns:
        The same.
    """
    connected, cleaned = ConnectedComponents(), probabilities_KXYZ.numpy()
    components = connected.add(class_indices(cleaned) > 0)
    keep_components(
        connected.wholes(), postprocess, spacing_mm, [slice(0, cleaned.shape[3])], components, list(cleaned)
    )
    return probabilities_KXYZ


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
