"""The grid on which a scan is worked on, and the way back to the scan's own: a pair of forward and undo."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from utils.boxes import Box
from utils.constants import SLAB_SLICES

# A Gaussian of this sigma has a full width at half maximum of 1 (1 / (2 sqrt(2 ln 2))).
_SIGMA_OF_UNIT_FWHM = 0.42466


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
    def _centred(cls, source_shape, source_affine, shape: np.ndarray, scale: np.ndarray) -> WorkingGrid:
        ras_shape, _ = ras_shape_and_spacing(source_shape, source_affine)
        offset = (ras_shape - 1) / 2 - scale * (shape - 1) / 2
        x, y, z = (int(n) for n in shape)
        return cls(tuple(source_shape), np.asarray(source_affine, float), (x, y, z), scale, offset)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) affine of the working grid, to RAS millimetres."""
        orientation = nib.io_orientation(self.source_affine)
        ras_affine = self.source_affine @ nib.orientations.inv_ornt_aff(orientation, self.source_shape)
        return ras_affine @ nib.affines.from_matvec(np.diag(self.scale), self.offset)

    @property
    def spacing_mm(self) -> np.ndarray:
        """(3,) spacing along X, Y, Z."""
        return nib.affines.voxel_sizes(self.affine)

    def forward(self, array: np.ndarray, fill: float, nearest: bool = False) -> np.ndarray:
        """Bring a stored array to the working grid.

        Args:
            array: (I, J, K) in the scan's stored order.
            fill: value outside the scan.
            nearest: for labels. Otherwise linear, after a Gaussian along the axes that lose resolution.

        Returns:
            (X, Y, Z) of the array's dtype.
        """
        self._check(array, self.source_shape)
        turned = nib.apply_orientation(array, nib.io_orientation(self.source_affine))
        if not nearest:
            turned = _smooth(turned, self.scale)
        return _sample(turned, self.scale, self.offset, self.shape, fill, nearest, array.dtype)

    def undo(self, array: np.ndarray, fill: float, nearest: bool = False) -> np.ndarray:
        """Bring an (X, Y, Z) array of the working grid back to the scan's stored (I, J, K)."""
        self._check(array, self.shape)
        ras_shape, _ = ras_shape_and_spacing(self.source_shape, self.source_affine)
        scale, offset = 1 / self.scale, -self.offset / self.scale
        turned = _sample(array, scale, offset, tuple(int(n) for n in ras_shape), fill, nearest, array.dtype)
        ras = np.array([[0, 1], [1, 1], [2, 1]])
        back = nib.orientations.ornt_transform(ras, nib.io_orientation(self.source_affine))
        return np.ascontiguousarray(nib.apply_orientation(turned, back))

    def forward_slabs(self, slabs: Iterable[tuple[int, np.ndarray]], fill: float) -> np.ndarray:
        """``forward`` of a scan that comes in slabs, so that it never has to be in memory whole; linear, smoothed.

        Args:
            slabs: (first K, (I, J, k) numbers), which together are the scan in stored order.
            fill: value outside the scan.

        Returns:
            (X, Y, Z) float32.
        """
        working = np.full(self.shape, fill, np.float32)
        for where, part in self.forward_parts(slabs, fill):
            working[where] = part
        return working

    def forward_parts(
        self, slabs: Iterable[tuple[int, np.ndarray]], fill: float
    ) -> Iterator[tuple[tuple[slice, slice, slice], np.ndarray]]:
        """``forward_slabs`` in parts, each as soon as it is known, so that neither grid has to be in memory whole.

        Yields:
            (where in (X, Y, Z), (x, y, z) float32). Voxels in no part lie outside the scan.
        """
        axes = self._stored_axes()
        matrices = [_smoothing(axis.source_size, axis.scale, axis.to_working) for axis in axes]
        to_ras = np.argsort([axis.ras_axis for axis in axes])
        reads = matrices[2] != 0
        ends = np.where(reads.any(axis=1), axes[2].source_size - reads[:, ::-1].argmax(axis=1), 0)
        unfinished: dict[int, np.ndarray] = {}  # planes across K that later slabs add to
        for first, slab in slabs:
            stop = first + slab.shape[2]
            reached = np.flatnonzero(reads[:, first:stop].any(axis=1))
            planes = _along_axes((matrices[0], matrices[1], matrices[2][reached, first:stop]), slab)
            for plane, row in enumerate(reached.tolist()):
                so_far = unfinished.get(row)
                unfinished[row] = planes[..., plane] if so_far is None else so_far + planes[..., plane]
            finished = sorted(row for row in unfinished if ends[row] <= stop)
            if not finished:
                continue
            part = np.stack([unfinished.pop(row) for row in finished], axis=-1)
            part[~axes[0].is_inside_source] = fill
            part[:, ~axes[1].is_inside_source] = fill
            where = [slice(0, axis.working_size) for axis in axes]
            where[2] = slice(finished[0], finished[-1] + 1)
            x, y, z = (where[axis] for axis in to_ras)
            yield (x, y, z), part.transpose(to_ras)

    def undo_slabs(self, array: np.ndarray, thickness: int = SLAB_SLICES) -> Iterator[tuple[int, np.ndarray]]:
        """``undo`` by linear interpolation, slab by slab; 0 outside the working grid.

        Args:
            array: (X, Y, Z) numbers of the working grid, or a volume of ``Scratch``.
            thickness: slices along K in a slab.

        Yields:
            (first K, (I, J, k) float32), in the scan's stored order.
        """
        self._check(array, self.shape)
        axes = self._stored_axes()
        matrices = [axis.to_source for axis in axes]
        for first in range(0, axes[2].source_size, thickness):
            along_k = matrices[2][first : first + thickness]
            reached = np.flatnonzero(along_k.any(axis=0))
            planes = slice(reached[0], reached[-1] + 1) if len(reached) else slice(0)
            where = [slice(None)] * 3
            where[axes[2].ras_axis] = planes
            stored = array[tuple(where)].transpose([axis.ras_axis for axis in axes])
            yield first, _along_axes((matrices[0], matrices[1], along_k[:, planes]), stored)

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
        """(working_size,) position of each working voxel in stored voxels."""
        position = self.scale * np.arange(self.working_size) + self.offset
        return self.source_size - 1 - position if self.flipped else position

    @property
    def is_inside_source(self) -> np.ndarray:
        """(working_size,) bool: whether a working voxel lies in the scan."""
        return _is_inside(self._position, self.source_size)

    @property
    def to_working(self) -> np.ndarray:
        """(working_size, source_size) linear interpolation of stored voxels; 0 outside."""
        return _interpolation(self._position, self.source_size)

    @property
    def to_source(self) -> np.ndarray:
        """(source_size, working_size) linear interpolation of working voxels; 0 outside."""
        index = np.arange(self.source_size)
        ras_index = self.source_size - 1 - index if self.flipped else index
        return _interpolation((ras_index - self.offset) / self.scale, self.working_size)


def _is_inside(position: np.ndarray, size: int) -> np.ndarray:
    return (position >= -0.5) & (position <= size - 0.5)  # a voxel reaches half its width beyond its centre


def _interpolation(position: np.ndarray, size: int) -> np.ndarray:
    """(len(position), size) float32 weights of linear interpolation; rows of zeros outside."""
    inside = np.clip(position, 0, size - 1)
    low = np.minimum(inside.astype(int), max(size - 2, 0))
    share = inside - low
    matrix = np.zeros((len(position), size), np.float32)
    rows = np.arange(len(position))
    matrix[rows, low] = 1 - share
    matrix[rows, np.minimum(low + 1, size - 1)] += share
    matrix[~_is_inside(position, size)] = 0
    return matrix


def _smoothing(size: int, scale: float, interpolation: np.ndarray) -> np.ndarray:
    """Smoothing of an axis by ``_smooth``'s Gaussian, then its interpolation, as one matrix."""
    return interpolation @ _smooth(np.eye(size, dtype=np.float32), np.array([scale, 1.0]))


def _along_axes(matrices: Sequence[np.ndarray], array: np.ndarray) -> np.ndarray:
    """Multiply each axis of a 3D array by its matrix."""
    # By torch, whose threads are those of the networks: numpy's would go on spinning beside what comes next.
    import torch

    # Axes are taken from the last to the first: as scans are stored, the first is contiguous, and nothing is copied.
    array_KJI = torch.from_numpy(np.ascontiguousarray(array.T, np.float32))
    i, j, k = (torch.from_numpy(np.ascontiguousarray(matrix)) for matrix in matrices)
    along_i = array_KJI @ i.T
    along_j = j @ along_i
    return torch.tensordot(k, along_j, dims=([1], [0])).numpy().T


def ras_shape_and_spacing(source_shape, source_affine) -> tuple[np.ndarray, np.ndarray]:
    """Shape (X, Y, Z) and spacing in mm of a scan after its axes are turned to RAS."""
    to_ras = nib.io_orientation(source_affine)[:, 0].astype(int)
    shape, spacing_mm = np.empty(3, int), np.empty(3)
    shape[to_ras] = source_shape
    spacing_mm[to_ras] = nib.affines.voxel_sizes(source_affine)
    return shape, spacing_mm


def _smooth(array: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Blur the axes that lose resolution, so that fine structure doesn't alias.

    The sigma makes the point spread of the source voxel that of the working voxel, both taken as Gaussians whose full
    width at half maximum is one voxel (Cardoso et al. 2015, 10.1007/978-3-319-24571-3_81).
    """
    sigma_vox = _SIGMA_OF_UNIT_FWHM * np.sqrt(np.maximum(np.square(scale) - 1, 0))
    if not sigma_vox.any():
        return array
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(array, sigma_vox, output=np.float32, mode="nearest", truncate=3)


def _sample(
    array: np.ndarray, scale, offset, shape: tuple[int, ...], fill: float, nearest: bool, dtype: np.dtype
) -> np.ndarray:
    """Sample ``array`` at ``scale * index + offset`` for each index of ``shape``; rounded for integer dtypes."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))  # SimpleITK's arrays are Z, Y, X
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in shape])
    resampler.SetOutputSpacing([float(s) for s in scale])
    resampler.SetOutputOrigin([float(o) for o in offset])
    resampler.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    resampler.SetDefaultPixelValue(float(fill))
    resampler.SetOutputPixelType(image.GetPixelID() if nearest else sitk.sitkFloat32)
    sampled = sitk.GetArrayFromImage(resampler.Execute(image)).T
    if np.issubdtype(dtype, np.integer) and sampled.dtype != dtype:
        sampled = np.rint(sampled)
    return np.ascontiguousarray(sampled, dtype=dtype)
