"""Gaussians at the centres of vertebrae."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def gaussian(
    shape: Sequence[int], centre_vox: Sequence[float] | np.ndarray, sigma_vox: Sequence[float] | np.ndarray
) -> np.ndarray:
    """(X, Y, Z) float32: 1 at a centre, which may lie between voxels or outside; deviations are along X, Y, Z."""
    along = [
        np.exp(-np.square(np.arange(size) - centre) / (2 * sigma**2))
        for size, centre, sigma in zip(shape, centre_vox, sigma_vox, strict=True)
    ]
    volume: np.ndarray = np.einsum("x,y,z->xyz", *along).astype(np.float32)
    return volume
