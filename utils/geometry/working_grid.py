"""The grid that networks work on: from a scan's own grid (forward) and back (undo)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import nibabel as nib
import numpy as np
from scipy.sparse import csr_array

from utils.constants import SLAB_SLICES
from utils.geometry.boxes import Box
from utils.geometry.resampling import (
    PlaneResampler,
    is_inside,
    linear_weights,
    nearest_weights,
    smoothing_weights,
)

# Scales are whole multiples of this. Positions on a grid are then exact in float64, whichever part of it is looked at.
_SCALE_STEP = 2.0**-40


@dataclass(frozen=True)
class WorkingGrid:
    """An axis-aligned grid in RAS order over a scan with any orientation, spacing and obliqueness.

    Source voxels are permuted and flipped to RAS (exactly), then sampled along each axis: index ``o`` of the working
    grid lies at index ``scale * o + offset`` of the RAS-ordered source. All is done in index space, so an oblique or
    slightly sheared affine costs no accuracy. A negative offset is padding, a positive one a crop.

    Attributes:
        source_shape: (I, J, K) of the stored scan.
        source_affine: (4, 4) of the stored scan, to RAS millimetres.
        shape: (X, Y, Z) of the working grid.
        scale: source voxels per working voxel along X, Y, Z.
        offset: position of working voxel 0 in RAS-ordered source voxels.
    """

    source_shape: tuple[int, int, int]
    source_affine: np.ndarray
    shape: tuple[int, int, int]
    scale: np.ndarray
    offset: np.ndarray

    @classmethod
    def isotropic(cls, source_shape: tuple[int, int, int], source_affine: np.ndarray, spacing_mm: float) -> WorkingGrid:
        """The grid of one spacing that covers the whole scan."""
        ras_shape, ras_spacing_mm = ras_shape_and_spacing(source_shape, source_affine)
        shape = np.maximum(np.rint(ras_shape * ras_spacing_mm / spacing_mm), 1).astype(int)
        return cls._centred(source_shape, source_affine, shape, spacing_mm / ras_spacing_mm)

    @classmethod
    def view(
        cls, source_shape: tuple[int, int, int], source_affine: np.ndarray, shape: tuple[int, int, int]
    ) -> WorkingGrid:
        """The grid of a given shape that shows the whole scan, padded to the shape's ratio; its voxels are cubes."""
        ras_shape, ras_spacing_mm = ras_shape_and_spacing(source_shape, source_affine)
        spacing_mm = np.max(ras_shape * ras_spacing_mm / np.array(shape))
        return cls._centred(source_shape, source_affine, np.array(shape), spacing_mm / ras_spacing_mm)

    @classmethod
    def _centred(
        cls, source_shape: tuple[int, int, int], source_affine: np.ndarray, shape: np.ndarray, scale: np.ndarray
    ) -> WorkingGrid:
        ras_shape, _ = ras_shape_and_spacing(source_shape, source_affine)
        scale = np.rint(scale / _SCALE_STEP) * _SCALE_STEP
        offset = (ras_shape - 1) / 2 - scale * (shape - 1) / 2
        i, j, k = source_shape
        x, y, z = (int(n) for n in shape)
        return cls((i, j, k), np.asarray(source_affine, float), (x, y, z), scale, offset)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) affine of the working grid, to RAS millimetres."""
        orientation = nib.io_orientation(self.source_affine)
        ras_affine = self.source_affine @ nib.orientations.inv_ornt_aff(orientation, self.source_shape)
        affine: np.ndarray = ras_affine @ nib.affines.from_matvec(np.diag(self.scale), self.offset)
        return affine

    @property
    def spacing_mm(self) -> np.ndarray:
        """(3,) spacing along X, Y, Z."""
        sizes_mm: np.ndarray = nib.affines.voxel_sizes(self.affine)
        return sizes_mm

    def forward(self, array: np.ndarray, fill: float, nearest: bool = False) -> np.ndarray:
        """Bring a stored array (I, J, K) to the working grid; see ``forward_slabs``."""
        self._check(array, self.source_shape)
        firsts = range(0, array.shape[2], SLAB_SLICES)
        return self.forward_slabs(((first, array[..., first : first + SLAB_SLICES]) for first in firsts), fill, nearest)

    def forward_slabs(self, slabs: Iterable[tuple[int, np.ndarray]], fill: float, nearest: bool = False) -> np.ndarray:
        """Bring a scan that comes in slabs to the working grid.

        Args:
            slabs: (first K, (I, J, k)), which together are the scan in stored order; of one dtype.
            fill: value outside the scan.
            nearest: for labels. Otherwise linear, after a Gaussian along the axes that lose resolution.

        Returns:
            (X, Y, Z) of the slabs' dtype, rounded where that is an integer. The values don't depend on the slabs'
            thickness.
        """
        slabs = iter(slabs)
        first_slab = next(slabs)
        working = np.full(self.shape, fill, first_slab[1].dtype)
        for where, part in self.forward_parts(chain([first_slab], slabs), fill, nearest):
            working[where] = part
        return working

    def forward_parts(
        self, slabs: Iterable[tuple[int, np.ndarray]], fill: float, nearest: bool = False
    ) -> Iterator[tuple[tuple[slice, slice, slice], np.ndarray]]:
        """``forward_slabs`` in parts, each as soon as it is known, so that neither grid has to be in memory whole.

        Yields:
            (where in (X, Y, Z), (x, y, z) of the slabs' dtype). Voxels in no part lie outside the scan.
        """
        axes = self._stored_axes()
        resampler = PlaneResampler(*(axis.to_working(nearest) for axis in axes))
        outside_I, outside_J, _ = (~axis.is_inside_source for axis in axes)
        to_ras = np.argsort([axis.ras_axis for axis in axes])
        for first, slab in slabs:
            planes = dict(chain.from_iterable(resampler.add(first + k, slab[..., k]) for k in range(slab.shape[2])))
            if not planes:
                continue
            indices = sorted(planes)
            part_KIJ = np.empty((len(indices), len(outside_I), len(outside_J)), slab.dtype)
            for plane_IJ, index in zip(part_KIJ, indices, strict=True):
                plane_IJ[...] = np.rint(planes[index]) if slab.dtype.kind in "iu" else planes[index]
            part_KIJ[:, outside_I] = fill
            part_KIJ[:, :, outside_J] = fill
            where = [slice(0, axis.working_size) for axis in axes]
            where[2] = slice(indices[0], indices[-1] + 1)
            x, y, z = (where[axis] for axis in to_ras)
            yield (x, y, z), np.moveaxis(part_KIJ, 0, -1).transpose(to_ras)

    def undo_slabs(self, array: np.ndarray, thickness: int = SLAB_SLICES) -> Iterator[tuple[int, np.ndarray]]:
        """Bring an array back to the scan's own grid by linear interpolation, slab by slab; 0 outside the working grid.

        Args:
            array: (X, Y, Z) numbers of the working grid, or a volume of ``Scratch``.
            thickness: slices along K in a slab.

        Yields:
            (first K, (I, J, k) float32), in the scan's stored order.
        """
        self._check(array, self.shape)
        axes = self._stored_axes()
        weights_I, weights_J, weights_K = (axis.to_source() for axis in axes)
        for first in range(0, axes[2].source_size, thickness):
            weights = weights_K[first : first + thickness]
            planes = slice(weights.indices.min(), weights.indices.max() + 1) if weights.nnz else slice(0)
            resampler = PlaneResampler(weights_I, weights_J, weights[:, planes])
            where = [slice(None)] * 3
            where[axes[2].ras_axis] = planes
            stored = array[tuple(where)].transpose([axis.ras_axis for axis in axes])
            # Fortran's order, as scans are stored: a plane is one piece of memory.
            slab = np.zeros((*self.source_shape[:2], weights.shape[0]), np.float32, order="F")
            for k in range(stored.shape[2]):
                for index, plane in resampler.add(k, stored[..., k]):
                    slab[..., index] = plane
            yield first, slab

    def undo_nearest_slabs(self, array: np.ndarray, thickness: int = SLAB_SLICES) -> Iterator[tuple[int, np.ndarray]]:
        """Bring labels back to the scan's own grid, each voxel that of the nearest working voxel, slab by slab.

        Args:
            array: (X, Y, Z) labels of the working grid, or a volume of ``Scratch``.
            thickness: slices along K in a slab.

        Yields:
            (first K, (I, J, k) of the array's dtype), in the scan's stored order.
        """
        self._check(array, self.shape)
        axes = self._stored_axes()
        nearest_I, nearest_J, nearest_K = (axis.nearest_working for axis in axes)
        for first in range(0, axes[2].source_size, thickness):
            planes = nearest_K[first : first + thickness]
            where = [slice(None)] * 3
            where[axes[2].ras_axis] = slice(int(planes.min()), int(planes.max()) + 1)
            stored = array[tuple(where)].transpose([axis.ras_axis for axis in axes])
            yield first, stored[np.ix_(nearest_I, nearest_J, planes - planes.min())]

    def part(self, box: Box, region: tuple[slice, slice, slice]) -> WorkingGrid:
        """A box of this grid's own voxels, as a grid over a region (I, J, K) of the stored scan."""
        to_region = np.array([part.start for part in region])
        lost = np.empty(3)  # along each axis of RAS, source voxels before the region
        for axis, part in zip(self._stored_axes(), region, strict=True):
            lost[axis.ras_axis] = axis.source_size - part.stop if axis.flipped else part.start
        affine = self.source_affine.copy()
        affine[:3, 3] += affine[:3, :3] @ to_region
        i, j, k = (part.stop - part.start for part in region)
        x, y, z = (int(size) for size in box.stop - box.start)
        return WorkingGrid((i, j, k), affine, (x, y, z), self.scale, self.offset + self.scale * box.start - lost)

    def box_in(self, other: WorkingGrid, box: Box) -> tuple[slice, ...]:
        """The voxels of another grid over the same scan that a box of this one's touches."""
        edges = (self.scale * (np.stack([box.start, box.stop]) - 0.5) + self.offset - other.offset) / other.scale + 0.5
        low = np.clip(np.floor(edges[0]), 0, other.shape).astype(int)
        high = np.clip(np.ceil(edges[1]), 0, other.shape).astype(int)
        return Box(low, high).slices

    @property
    def inside_source(self) -> tuple[slice, slice, slice]:
        """The working voxels along X, Y, Z that lie in the scan; the others are padding."""
        inside = [slice(0)] * 3
        for axis in self._stored_axes():
            where = np.flatnonzero(axis.is_inside_source)
            inside[axis.ras_axis] = slice(int(where[0]), int(where[-1]) + 1)
        return inside[0], inside[1], inside[2]

    def source_region(self, box: Box, margin_mm: float) -> tuple[slice, slice, slice]:
        """The stored voxels (I, J, K) that a box of working voxels covers, and a margin around it, inside the scan."""
        region = []
        for axis in self._stored_axes():
            margin = margin_mm / (self.spacing_mm[axis.ras_axis] / axis.scale)
            low = axis.scale * (box.start[axis.ras_axis] - 0.5) + axis.offset - margin
            high = axis.scale * (box.stop[axis.ras_axis] - 0.5) + axis.offset + margin
            if axis.flipped:
                low, high = axis.source_size - 1 - high, axis.source_size - 1 - low
            first = int(np.clip(np.floor(low), 0, axis.source_size - 1))
            region.append(slice(first, int(np.clip(np.ceil(high) + 1, first + 1, axis.source_size))))
        return region[0], region[1], region[2]

    def _stored_axes(self) -> list[_StoredAxis]:
        """The axes I, J, K of the stored scan."""
        return [
            _StoredAxis(size, int(ras), flip < 0, self.shape[int(ras)], self.scale[int(ras)], self.offset[int(ras)])
            for size, (ras, flip) in zip(self.source_shape, nib.io_orientation(self.source_affine), strict=True)
        ]

    @staticmethod
    def _check(array: np.ndarray, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise ValueError(f"array of shape {array.shape} does not lie on a grid of shape {shape}")


@dataclass(frozen=True)
class _StoredAxis:
    """One axis of the stored scan, and where it goes."""

    source_size: int
    ras_axis: int
    flipped: bool
    working_size: int
    scale: float
    offset: float

    @property
    def _position(self) -> np.ndarray:
        """(working_size,) position of each working voxel in source voxels, in RAS order."""
        return self.scale * np.arange(self.working_size) + self.offset

    @property
    def is_inside_source(self) -> np.ndarray:
        """(working_size,) bool: whether a working voxel lies in the scan."""
        return is_inside(self._position, self.source_size)

    def to_working(self, nearest: bool) -> csr_array:
        """(working_size, source_size) weights of stored voxels: the nearest one, or smoothed and interpolated."""
        if nearest:
            weights = nearest_weights(self._position, self.source_size)
        else:
            weights = linear_weights(self._position, self.source_size)
            weights = weights @ smoothing_weights(self.source_size, self.scale)
        return weights[:, ::-1] if self.flipped else weights

    def to_source(self) -> csr_array:
        """(source_size, working_size) weights of linear interpolation from working voxels to stored ones."""
        position = (np.arange(self.source_size) - self.offset) / self.scale
        weights = linear_weights(position, self.working_size)
        return weights[::-1] if self.flipped else weights

    @property
    def nearest_working(self) -> np.ndarray:
        """(source_size,) int: the nearest working voxel to each stored one."""
        position = np.rint((np.arange(self.source_size) - self.offset) / self.scale)
        nearest: np.ndarray = np.clip(position, 0, self.working_size - 1).astype(int)
        return nearest[::-1] if self.flipped else nearest


def ras_shape_and_spacing(source_shape: Sequence[int], source_affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape (X, Y, Z) and spacing in mm of a scan after its axes are turned to RAS."""
    to_ras = nib.io_orientation(source_affine)[:, 0].astype(int)
    shape, spacing_mm = np.empty(3, int), np.empty(3)
    shape[to_ras] = source_shape
    spacing_mm[to_ras] = nib.affines.voxel_sizes(source_affine)
    return shape, spacing_mm
