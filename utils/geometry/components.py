"""Connected components of masks, and which are large enough to be kept."""

from __future__ import annotations

import numpy as np


class ConnectedComponents:
    """Connected components (voxels that share a face belong together) of a mask that comes in slabs along Z."""

    def __init__(self) -> None:
        self._sizes = [np.zeros(1, np.int64)]  # of components within a slab; 0 is the background
        self._count = 0
        self._touching: list[np.ndarray] = []  # (n, 2) components of neighbouring slabs that are one
        self._top: np.ndarray | None = None

    def add(self, mask: np.ndarray) -> np.ndarray:
        """Take the next slab, (X, Y, z) bool; returns its components' numbers, (X, Y, z) int32, 0 outside."""
        from scipy.ndimage import label

        components: np.ndarray
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
        """Which components are large enough, those of all slabs joined.

        Args:
            least_vox: least number of voxels.
            least_share: least share of the largest component's voxels.

        Returns:
            (components + 1,) bool, to be indexed by what ``add`` returned.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.concatenate([*self._touching, np.zeros((0, 2), np.int64)])
        nodes = self._count + 1
        links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(nodes, nodes))
        _, whole_of = connected_components(links, directed=False)
        sizes = np.bincount(whole_of, weights=np.concatenate(self._sizes))
        # The background counts no voxels, so it is never large.
        large: np.ndarray = ((sizes >= max(least_vox, 1)) & (sizes >= least_share * sizes.max()))[whole_of]
        return large


def large_components(mask: np.ndarray, least_vox: float = 1, least_share: float = 0.0) -> np.ndarray:
    """The mask, (X, Y, Z) bool, without its small components; arguments as of ``ConnectedComponents.large``."""
    connected = ConnectedComponents()
    components = connected.add(mask)
    kept: np.ndarray = connected.large(least_vox, least_share)[components]
    return kept
