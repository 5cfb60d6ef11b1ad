"""Boxes around masks, in voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Box:
    """Voxels from ``start`` up to, not including, ``stop``: (3,) int each."""

    start: np.ndarray
    stop: np.ndarray

    @property
    def volume_vox(self) -> int:
        """Voxels in the box."""
        return int(np.prod(np.maximum(self.stop - self.start, 0)))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index into an array."""
        return tuple(slice(int(a), int(b)) for a, b in zip(self.start, self.stop, strict=True))


def mask_box(mask: np.ndarray) -> Box | None:
    """The smallest box around a mask, (X, Y, Z) bool or numbers with 0 outside; None where it is empty."""
    # Axis by axis: the index of each voxel of a mask takes many times its memory.
    held = [np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    if not held[0].size:
        return None
    return Box(np.array([along[0] for along in held]), np.array([along[-1] + 1 for along in held]))
