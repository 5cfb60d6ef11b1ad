"""Connected components of masks, and which are large enough to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


class ConnectedComponents:
    """Connected components (voxels that share a face belong together) of a mask that comes in slabs along Z."""

    def __init__(self) -> None:
        self._sizes = [np.zeros(1, np.int64)]  # of components within a slab; 0 is the background
        self._outlines: list[np.ndarray] = []  # (n, 5) component, plane, voxels, and their sums of X and of Y
        self._depth = 0
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
        self._outlines.append(self._outlines_of(components))
        components[components > 0] += self._count
        self._count += count
        if self._top is not None:
            both = (self._top > 0) & (components[..., 0] > 0)
            self._touching.append(np.unique(np.stack([self._top[both], components[..., 0][both]], axis=1), axis=0))
        self._top = components[..., -1].copy()
        self._depth += components.shape[2]
        return components

    def _outlines_of(self, components: np.ndarray) -> np.ndarray:
        """Of the next slab, before its components get their numbers among all."""
        x, y, z = np.nonzero(components)
        pairs, which = np.unique(components[x, y, z] * np.int64(components.shape[2]) + z, return_inverse=True)
        number, plane = np.divmod(pairs, components.shape[2])
        sums = [np.bincount(which, weights) for weights in (None, x, y)]
        return np.stack([number + self._count, plane + self._depth, *sums], axis=1)

    def wholes(self) -> Wholes:
        """The components of all slabs, joined."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.concatenate([*self._touching, np.zeros((0, 2), np.int64)])
        nodes = self._count + 1
        links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(nodes, nodes))
        _, whole_of = connected_components(links, directed=False)
        # The background counts no voxels, so it is never large.
        sizes_vox = np.bincount(whole_of, weights=np.concatenate(self._sizes))
        return Wholes(whole_of, sizes_vox, np.concatenate([*self._outlines, np.zeros((0, 5))]))


@dataclass(frozen=True)
class Wholes:
    """Connected components, each of which may be of several numbers of ``ConnectedComponents.add``.

    Attributes:
        whole_of: (numbers + 1,) int, the component of each number; that of 0 is the background's.
        sizes_vox: (components,) float, voxels of each; 0 of the background.
    """

    whole_of: np.ndarray
    sizes_vox: np.ndarray
    _outlines: np.ndarray

    def large(self, least_vox: float = 1, least_share: float = 0.0) -> np.ndarray:
        """Which are large enough: (components,) bool.

        Args:
            least_vox: least number of voxels.
            least_share: least share of the largest component's voxels.
        """
        large: np.ndarray = (self.sizes_vox >= max(least_vox, 1)) & (
            self.sizes_vox >= least_share * self.sizes_vox.max()
        )
        return large

    def centres(self, component: int, height_vox: float) -> np.ndarray:
        """Centres of the sections into which a component is cut along Z: (n, 3) X, Y, Z in voxels, from below.

        Args:
            component: its number.
            height_vox: about which all sections of a component are high; a lower component is one section.
        """
        _, planes, voxels, x, y = self._outlines[self._component_of_row == component].T
        low, height = planes.min(), np.ptp(planes) + 1
        count = max(round(height / height_vox), 1)
        section = ((planes - low) * count // height).astype(np.int64)
        sums = [np.bincount(section, weights) for weights in (x, y, planes * voxels)]
        centres: np.ndarray = np.stack(sums, axis=1) / np.bincount(section, voxels)[:, None]
        return centres

    @cached_property
    def _component_of_row(self) -> np.ndarray:
        component: np.ndarray = self.whole_of[self._outlines[:, 0].astype(np.int64)]
        return component
