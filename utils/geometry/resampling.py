"""Separable resampling of volumes, plane by plane: sparse weights along each axis, no volume in memory whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array

# A Gaussian of this sigma has a full width at half maximum of 1 (1 / (2 sqrt(2 ln 2))).
_SIGMA_OF_UNIT_FWHM = 0.42466
# More than rounding makes of a position in float64, and less than any real distance.
_ROUNDING_VOX = 1e-9


def nearest_voxel(position: np.ndarray) -> np.ndarray:
    """The voxel that holds each position, int; where two meet, the upper one, whatever way rounding errors go."""
    return np.floor(position + (0.5 + _ROUNDING_VOX)).astype(int)


def is_inside(position: np.ndarray, size: int) -> np.ndarray:
    """Whether positions lie in an axis of ``size`` voxels, whose outer ones reach half their width beyond centres."""
    voxel = nearest_voxel(position)
    return (voxel >= 0) & (voxel < size)


def linear_weights(position: np.ndarray, size: int) -> csr_array:
    """Weights of linear interpolation.

    Args:
        position: (N,) where to sample, in voxels of an axis.
        size: voxels along that axis.

    Returns:
        (N, size) float64; rows outside the axis are empty.
    """
    inside = np.clip(position, 0, size - 1)
    low = inside.astype(int)
    share = inside - low  # 0 on the last voxel, beyond which there is none
    return _weights(position, size, np.stack([low, low + 1]), np.stack([1 - share, share]))


def nearest_weights(position: np.ndarray, size: int) -> csr_array:
    """Weights of the nearest voxel; arguments and result as of ``linear_weights``."""
    return _weights(position, size, nearest_voxel(position)[None], np.ones((1, len(position))))


def _weights(position: np.ndarray, size: int, columns: np.ndarray, values: np.ndarray) -> csr_array:
    rows = np.broadcast_to(np.arange(len(position)), columns.shape)
    kept = (values > 0) & is_inside(position, size)
    return csr_array((values[kept], (rows[kept], columns[kept])), shape=(len(position), size))


def smoothing_weights(size: int, scale: float) -> csr_array:
    """Weights of the Gaussian that keeps fine structure from aliasing on an axis that loses resolution.

    Its sigma makes the point spread of the source voxel that of the working voxel, both taken as Gaussians whose full
    width at half maximum is one voxel (Cardoso et al. 2015, 10.1007/978-3-319-24571-3_81).

    Args:
        size: voxels along the axis.
        scale: width of a working voxel in source voxels; up to 1 there is nothing to smooth.

    Returns:
        (size, size) float64.
    """
    identity = np.eye(size)
    if scale <= 1:
        return csr_array(identity)
    sigma_vox = _SIGMA_OF_UNIT_FWHM * np.sqrt(scale**2 - 1)
    return csr_array(gaussian_filter1d(identity, sigma_vox, axis=0, mode="nearest", truncate=3))


class PlaneResampler:
    """Resamples a volume whose planes across its last axis come one after the other.

    Every sum is taken voxel by voxel in the order of the planes, so that the result doesn't depend on how many planes
    are given at a time, nor on how large a region of a scan they show: training and inference get the same numbers.

    Args:
        weights_I, weights_J, weights_K: (new size, old size) along each axis.
    """

    def __init__(self, weights_I: csr_array, weights_J: csr_array, weights_K: csr_array) -> None:
        self._weights_I, self._weights_J = weights_I.astype(np.float32), weights_J.astype(np.float32)
        self._readers_K = weights_K.astype(np.float32).tocsc()
        self._planes_to_come = np.diff(weights_K.indptr)
        self._sums: dict[int, np.ndarray] = {}

    def add(self, index: int, plane: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Take the plane (I, J) at an index of the last axis; each index once.

        Yields:
            (new index, (new I, new J) float32): the new planes that need no plane more.
        """
        entries = slice(*self._readers_K.indptr[index : index + 2])
        if entries.start == entries.stop:
            return
        # A scan is stored with I contiguous, so the turned plane is read without a copy.
        plane_JI = self._weights_J @ np.ascontiguousarray(plane.T, np.float32)
        plane_IJ = self._weights_I @ np.ascontiguousarray(plane_JI.T)
        for new, weight in zip(self._readers_K.indices[entries].tolist(), self._readers_K.data[entries], strict=True):
            share = plane_IJ * weight
            self._sums[new] = self._sums[new] + share if new in self._sums else share
            self._planes_to_come[new] -= 1
            if not self._planes_to_come[new]:
                yield new, self._sums.pop(new)
