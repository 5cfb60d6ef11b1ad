"""How sure the network is of each connected component that it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from prediction.probabilities import of_foreground
from utils.geometry.components import Wholes

if TYPE_CHECKING:
    import h5py


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
