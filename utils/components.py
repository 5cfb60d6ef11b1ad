"""Connected components of masks: which blobs are big enough to be kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from utils.probabilities import class_indices, of_background


class Blobs:
    """Connected components (voxels that share a face belong together) of a mask that comes in slabs along Z."""

    def __init__(self) -> None:
        self._sizes = [np.zeros(1, np.int64)]  # of components within a slab; 0 is the background
        self._count = 0
        self._touching: list[np.ndarray] = []  # (n, 2) components of neighbouring slabs that are one
        self._top: np.ndarray | None = None

    def add(self, mask: np.ndarray) -> np.ndarray:
        """Take the next slab, (X, Y, z) bool; returns its components' numbers, (X, Y, z) int32, 0 outside."""
        from scipy.ndimage import label

        components, count = label(mask)
        # Plane by plane: bincount makes eight bytes of each voxel.
        sizes = np.sum([np.bincount(plane.reshape(-1), minlength=count + 1) for plane in components], axis=0)
        self._sizes.append(sizes[1:])
        components[components > 0] += self._count
        self._count += count
        if self._top is not None:
            both = (self._top > 0) & (components[..., 0] > 0)
            self._touching.append(np.unique(np.stack([self._top[both], components[..., 0][both]], axis=1), axis=0))
        self._top = components[..., -1].copy()
        return components

    def large(self, least_vox: float = 1, least_share: float = 0.0) -> np.ndarray:
        """Which components belong to a blob that is large enough.

        Args:
            least_vox: voxels that a blob needs.
            least_share: share of the largest blob's voxels that it needs, too.

        Returns:
            (components + 1,) bool, to be indexed by what ``add`` returned.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.concatenate([*self._touching, np.zeros((0, 2), np.int64)])
        nodes = self._count + 1
        links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(nodes, nodes))
        _, blob_of = connected_components(links, directed=False)
        sizes = np.bincount(blob_of, weights=np.concatenate(self._sizes))
        large = ((sizes >= max(least_vox, 1)) & (sizes >= least_share * sizes.max()))[blob_of]
        large[0] = False
        return large


def large_components(mask: np.ndarray, least_vox: float = 1, least_share: float = 0.0) -> np.ndarray:
    """The mask, (X, Y, Z) bool, without its small components; arguments as of ``Blobs.large``."""
    blobs = Blobs()
    components = blobs.add(mask)
    return blobs.large(least_vox, least_share)[components]


def without_small_blobs(probabilities_KXYZ: Tensor, spacing_mm: Sequence[float], least_mm3: float) -> Tensor:
    """Turn every blob of foreground, of whatever class, that has less than a volume into background.

    Args:
        probabilities_KXYZ: (K, X, Y, Z) float; one channel of foreground, or K > 1 classes with the background first.
        spacing_mm: along X, Y, Z.
        least_mm3: volume that a blob needs to be kept.

    Returns:
        (K, X, Y, Z) float.
    """
    foreground = class_indices(probabilities_KXYZ.numpy()) > 0
    kept = large_components(foreground, least_vox=least_mm3 / float(np.prod(spacing_mm)))
    dropped = torch.from_numpy(foreground & ~kept)
    cleaned = probabilities_KXYZ.clone()
    for probability, background in zip(cleaned, of_background(len(cleaned)), strict=True):
        probability.masked_fill_(dropped, background)
    return cleaned
