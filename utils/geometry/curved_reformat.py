"""Slices along the spine's own line: a spine that is bent to any side lies in one plane of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# Bends shorter than this are the vertebrae's own shape, not the spine's.
SHORTEST_BEND_MM = 90.0
# A smoothing spline needs five planes (scipy).
_LEAST_PLANES = 5

Plane = Literal["sagittal", "coronal"]


@dataclass(frozen=True)
class CentreLine:
    """A line from the volume's bottom to its top, a point each millimetre along it.

    Attributes:
        points_mm: (S, 3) along X, Y, Z of the volume, from the middle of its first voxel.
    """

    points_mm: np.ndarray

    def length_at(self, z_mm: float) -> int:
        """Where along the line, in mm, the axial plane at a height is met."""
        return int(np.abs(self.points_mm[:, 2] - z_mm).argmin())


def centre_line(mask: np.ndarray, spacing_mm: Sequence[float]) -> CentreLine:
    """The line through a spine: a smoothing spline through its centre in each axial plane, straight on at both ends.

    The deeper in the mask, the more a voxel counts, by the square of its distance to the surface in the plane, so that
    the line runs through the bodies and is little moved by the processes. Gaps are bridged.

    Args:
        mask: (X, Y, Z) bool; where it is empty, the line runs through the middle of the volume.
        spacing_mm: along X, Y, Z.
    """
    spacing = np.asarray(spacing_mm, float)
    centres_mm, heights_mm, weights = _centres(mask, spacing)
    top_mm = (mask.shape[2] - 1) * spacing[2]
    z = np.linspace(0, top_mm, max(int(np.ceil(top_mm * 4)), 2))  # fine enough to measure along it
    xy = _smooth_line(heights_mm, centres_mm, weights, z)
    points = np.column_stack([xy, z])
    lengths = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    at = np.arange(0, lengths[-1] + 1e-6)
    return CentreLine(np.stack([np.interp(at, lengths, axis) for axis in points.T], axis=1))


def _centres(mask: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each axial plane that holds some of the mask: centre along X and Y, height (both mm), weight (mean 1)."""
    from scipy.ndimage import distance_transform_edt

    centres, heights, weights = [], [], []
    for index in np.flatnonzero(mask.any(axis=(0, 1))):
        plane = mask[..., index]
        sides = [np.flatnonzero(plane.any(axis=1 - axis)) for axis in (0, 1)]
        box = np.pad(plane[tuple(slice(side[0], side[-1] + 1) for side in sides)], 1)
        depth = distance_transform_edt(box, sampling=spacing[:2]) ** 2
        weight = depth.sum()
        x, y = (depth.sum(axis=1 - axis) @ np.arange(box.shape[axis]) / weight for axis in (0, 1))
        centres.append(((x + sides[0][0] - 1) * spacing[0], (y + sides[1][0] - 1) * spacing[1]))
        heights.append(index * spacing[2])
        weights.append(weight)
    if not weights:
        middle = (np.array(mask.shape[:2]) - 1) / 2 * spacing[:2]
        return middle[None], np.zeros(1), np.ones(1)
    return np.array(centres), np.array(heights), np.array(weights) / np.mean(weights)


def _smooth_line(heights: np.ndarray, centres: np.ndarray, weights: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(len(z), 2): the centres' spline where they are, its tangents beyond; their mean where they are too few."""
    from scipy.interpolate import make_smoothing_spline

    if len(heights) < _LEAST_PLANES:
        return np.tile(np.average(centres, axis=0, weights=weights), (len(z), 1))
    # Waves of frequency w are damped by 1 / (1 + stiffness * step * w^4): by half at the shortest bend.
    step = np.median(np.diff(heights))
    stiffness = (SHORTEST_BEND_MM / (2 * np.pi)) ** 4 / step
    inside = np.clip(z, heights[0], heights[-1])
    columns = []
    for centre in centres.T:  # one spline each: before scipy 1.16 it takes one coordinate only
        spline = make_smoothing_spline(heights, centre, w=weights, lam=stiffness)
        columns.append(spline(inside) + spline.derivative()(inside) * (z - inside))
    return np.column_stack(columns)


def straightened(
    volume: np.ndarray,
    spacing_mm: Sequence[float],
    line: CentreLine,
    plane: Plane,
    reach_mm: tuple[int, int],
    fill: float,
    nearest: bool = False,
) -> np.ndarray:
    """Sample a curved plane through the line, a pixel each millimetre.

    Across the line its rows lie in axial planes: rows square to it would cross or part behind a bent spine.

    Args:
        volume: (X, Y, Z).
        spacing_mm: along X, Y, Z.
        line: of this volume's grid.
        plane: "sagittal": across the line runs Y, to the front; "coronal": X, to the right.
        reach_mm: how far behind and before, or left and right of the line.
        fill: value outside the volume.
        nearest: for masks. Otherwise linear.

    Returns:
        (S, W) of the volume's dtype: rows along the line from bottom to top, columns across it; the line itself is
        column ``reach_mm[0]``.
    """
    from scipy.ndimage import map_coordinates

    across = np.eye(3)[0 if plane == "coronal" else 1]
    offsets_mm = np.arange(-reach_mm[0], reach_mm[1] + 1)
    points_mm = line.points_mm[:, None] + across * offsets_mm[:, None]
    indices = np.moveaxis(points_mm / np.asarray(spacing_mm, float), -1, 0)
    dtype = np.uint8 if volume.dtype == bool else volume.dtype
    sampled = map_coordinates(
        volume.view(dtype), indices, order=0 if nearest else 1, mode="grid-constant", cval=fill, output=dtype
    )
    of_same_type: np.ndarray = sampled.astype(volume.dtype)
    return of_same_type
