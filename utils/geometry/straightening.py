"""Slices of a tilted gantry, shifted so that the axes of their stack meet at right angles; and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import nibabel as nib
import numpy as np

# Axes that meet at right angles to float32's precision, as a cosine.
_RIGHT_ANGLE = 1e-4


@dataclass(frozen=True)
class Straightening:
    """A grid with right angles for a scan whose slices along K are shifted against each other.

    Slices move by whole voxels: no value is interpolated, going back gives exactly what was there, and a voxel lies at
    most half a voxel off its true place within its slice.

    Attributes:
        source_shape: (I, J, K) of the scan.
        shape: of the straightened grid; greater along I and J.
        affine: (4, 4) of the straightened grid, to RAS mm.
        shifts: (K, 2) int, where each slice's first voxel lies along I and J of the straightened grid.
        degrees: how far the line through the slices leans from their normal.
    """

    source_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    affine: np.ndarray
    shifts: np.ndarray
    degrees: float

    @classmethod
    def of(cls, shape: tuple[int, int, int], affine: np.ndarray) -> Straightening | None:
        """For a scan's grid; None where its axes meet at right angles, or I and J don't (no gantry does that)."""
        axes = affine[:3, :3]
        lengths = np.linalg.norm(axes, axis=0)
        normal = np.cross(axes[:, 0], axes[:, 1])
        normal *= np.sign(normal @ axes[:, 2]) / np.linalg.norm(normal)
        upright_mm = (axes[:, 2] @ normal) * normal
        cosine = axes[:, 0] @ axes[:, 1] / (lengths[0] * lengths[1])
        lean = axes[:, 2] @ axes[:, :2] / lengths[:2] ** 2  # voxels along I and J, from slice to slice
        leans_mm = np.abs(lean) * lengths[:2] * (shape[2] - 1)
        if abs(cosine) > _RIGHT_ANGLE or (leans_mm < _RIGHT_ANGLE * lengths[2] * shape[2]).all():
            return None
        middle = np.arange(shape[2]) - (shape[2] - 1) / 2  # rounding then errs to both sides alike
        shifts = np.floor(np.outer(middle, lean) + 0.5).astype(int)
        first = shifts.min(axis=0)
        matrix = np.column_stack([axes[:, :2], upright_mm])
        # Of the middle of the scan; there, nothing is shifted.
        origin = affine[:3, 3] + (axes[:, 2] - upright_mm) * (shape[2] - 1) / 2 + axes[:, :2] @ first
        shifts -= first
        i, j = (int(size + shift) for size, shift in zip(shape[:2], shifts.max(axis=0), strict=True))
        degrees = float(np.degrees(np.arctan2(np.linalg.norm(axes[:, 2] - upright_mm), np.linalg.norm(upright_mm))))
        return cls(shape, (i, j, shape[2]), nib.affines.from_matvec(matrix, origin), shifts, degrees)

    def forward(self, slab: np.ndarray, first: int, fill: float) -> np.ndarray:
        """Shift slices.

        Args:
            slab: (I, J, k) of the scan.
            first: index of its first slice along K.
            fill: value of voxels outside of the scan.

        Returns:
            The same slices on the straightened grid, of the slab's dtype, in Fortran's order.
        """
        straight = np.full((*self.shape[:2], slab.shape[2]), fill, slab.dtype, order="F")
        for k, where in enumerate(self._places(first, slab.shape[2])):
            straight[(*where, k)] = slab[..., k]
        return straight

    def undo(self, straight: np.ndarray) -> np.ndarray:
        """The scan's voxels (I, J, K) of an array on the straightened grid, in Fortran's order."""
        array = np.empty(self.source_shape, straight.dtype, order="F")
        for k, where in enumerate(self._places(0, self.shape[2])):
            array[..., k] = straight[(*where, k)]
        return array

    def source_region(self, region: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        """The voxels (I, J, K) of the scan of which some lie in a region of the straightened grid."""
        shifts = self.shifts[region[2]]
        parts = []
        for part, size, low, high in zip(region, self.source_shape, shifts.min(0), shifts.max(0), strict=False):
            start, stop = np.clip([part.start - high, part.stop - low], 0, size)
            parts.append(slice(int(start), int(stop)))
        return parts[0], parts[1], region[2]

    def _places(self, first: int, count: int) -> Iterator[tuple[slice, slice]]:
        i, j, _ = self.source_shape
        for shift_i, shift_j in self.shifts[first : first + count].tolist():
            yield slice(shift_i, shift_i + i), slice(shift_j, shift_j + j)
