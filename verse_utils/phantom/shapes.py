"""Solids that a phantom is made of: each tells its signed distance in mm, negative inside, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Vector = np.ndarray  # (3,) float64, mm
Point = Sequence[float] | Vector


class Solid(Protocol):
    """A body in RAS millimetres."""

    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner of a box that holds it."""

    def distance(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Signed distance in mm (near the surface; a bound of it far away) at the points x, y, z; float32."""


def rotation(axis: int, angle: float) -> np.ndarray:
    """The (3, 3) matrix that turns by ``angle`` (radians) about axis 0, 1 or 2, by the right-hand rule."""
    first, second = ((1, 2), (2, 0), (0, 1))[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


@dataclass(frozen=True)
class Pose:
    """A frame in space.

    Attributes:
        origin: (3,) mm.
        axes: (3, 3), columns are the frame's right, forward and up.
    """

    origin: Vector
    axes: np.ndarray

    def to_world(self, point: Point) -> Vector:
        """A point of the frame in RAS millimetres."""
        world: np.ndarray = self.origin + self.axes @ np.asarray(point, float)
        return world

    def to_local(self, points: Sequence[np.ndarray]) -> list[np.ndarray]:
        """World points x, y, z in the frame, as float32. Shapes need only broadcast, and do so in what is returned."""
        offsets = [np.asarray(p - o, np.float32) for p, o in zip(points, self.origin, strict=True)]
        terms = ([np.float32(a) * offset for a, offset in zip(axis, offsets, strict=True) if a] for axis in self.axes.T)
        return [sum(term[1:], start=term[0]) for term in terms]


@dataclass(frozen=True)
class Capsule:
    """A rod with round ends from ``start`` to ``end``; along ``flat_axis`` it measures ``flatness`` times less."""

    start: Vector
    end: Vector
    start_radius: float
    end_radius: float
    flat_axis: Vector | None = None
    flatness: float = 1.0

    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner."""
        reach = max(self.start_radius, self.end_radius) / min(self.flatness, 1.0)
        return np.minimum(self.start, self.end) - reach, np.maximum(self.start, self.end) + reach

    def distance(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Signed distance in mm."""
        along = self.end - self.start
        from_start = [np.asarray(p - s, np.float32) for p, s in zip(points, self.start, strict=True)]
        length2 = float(along @ along)
        share = sum(np.float32(a) * f for a, f in zip(along, from_start, strict=True)) / np.float32(length2)
        share = np.clip(share, 0, 1)
        off = [f - share * np.float32(a) for f, a in zip(from_start, along, strict=True)]
        square = off[0] ** 2 + off[1] ** 2 + off[2] ** 2
        if self.flat_axis is not None:
            across = sum(np.float32(a) * o for a, o in zip(self.flat_axis, off, strict=True))
            square += np.float32(self.flatness**2 - 1) * across**2
        radius = np.float32(self.start_radius) + share * np.float32(self.end_radius - self.start_radius)
        distance: np.ndarray = np.sqrt(np.maximum(square, 0)) - radius
        return distance


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with semi-axes ``radii`` along the axes of its pose."""

    pose: Pose
    radii: Vector

    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner."""
        reach = np.sqrt(np.square(self.pose.axes * self.radii).sum(axis=1))
        return self.pose.origin - reach, self.pose.origin + reach

    def distance(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Signed distance in mm, to first order (Quilez, iquilezles.org/articles/ellipsoids)."""
        local = self.pose.to_local(points)
        first = np.sqrt(sum(np.square(p / np.float32(r)) for p, r in zip(local, self.radii, strict=True)))
        second = np.sqrt(sum(np.square(p / np.float32(r**2)) for p, r in zip(local, self.radii, strict=True)))
        distance: np.ndarray = first * (first - 1) / np.maximum(second, np.float32(1e-6))
        return distance


@dataclass(frozen=True)
class Drum:
    """An upright drum with rounded-square ends and a waist, as a vertebral body has: ``size`` is x, y, z in mm."""

    pose: Pose
    size: Vector
    waist: float = 0.0

    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner."""
        reach = (np.abs(self.pose.axes) * (self.size / 2)).sum(axis=1)
        return self.pose.origin - reach, self.pose.origin + reach

    def distance(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Signed distance in mm."""
        x, y, z = self.pose.to_local(points)
        half_x, half_y, half_z = (np.float32(s / 2) for s in self.size)
        # A superellipse of exponent 2.5 lies between an ellipse and a rectangle.
        radius = (np.abs(x / half_x) ** 2.5 + np.abs(y / half_y) ** 2.5) ** np.float32(0.4)
        narrow = 1 - np.float32(self.waist) * np.maximum(1 - np.square(z / half_z), 0)
        distance: np.ndarray = np.maximum((radius - narrow) * min(half_x, half_y), np.abs(z) - half_z)
        return distance


@dataclass(frozen=True)
class Column:
    """A column along Z with an ellipse at each height, as a body's outline has.

    Attributes:
        z_mm: heights at which the others are given, ascending.
        centre_mm: (N, 2) x and y.
        radii_mm: (N, 2) semi-axes.
    """

    z_mm: np.ndarray
    centre_mm: np.ndarray
    radii_mm: np.ndarray

    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner."""
        low, high = (self.centre_mm - self.radii_mm).min(axis=0), (self.centre_mm + self.radii_mm).max(axis=0)
        return np.array([*low, self.z_mm[0]]), np.array([*high, self.z_mm[-1]])

    def across(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Signed distance in mm in the planes of constant Z; the column's ends go on for ever."""
        x, y, z = points
        # Outlines at each millimetre of height; looked up, not interpolated for each voxel.
        lowest = self.z_mm[0]
        heights = np.arange(lowest, self.z_mm[-1])
        ellipses = np.concatenate([self.centre_mm, self.radii_mm], axis=1)
        columns = [np.interp(heights, self.z_mm, column).astype(np.float32) for column in ellipses.T]
        row = np.clip(z - np.float32(lowest), 0, len(heights) - 1).astype(np.int32)
        centre_x, centre_y, half_x, half_y = (column[row] for column in columns)
        radius = np.sqrt(np.square((x - centre_x) / half_x) + np.square((y - centre_y) / half_y))
        distance: np.ndarray = np.minimum(half_x, half_y) * (radius - 1)
        return distance

    def distance(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Signed distance in mm."""
        middle, half = np.float32((self.z_mm[0] + self.z_mm[-1]) / 2), np.float32((self.z_mm[-1] - self.z_mm[0]) / 2)
        distance: np.ndarray = np.maximum(self.across(points), np.abs(points[2] - middle) - half)
        return distance


def union_distance(solids: Sequence[Solid], points: Sequence[np.ndarray]) -> np.ndarray:
    """Signed distance in mm of several solids taken as one."""
    distance = solids[0].distance(points)
    for solid in solids[1:]:
        distance = np.minimum(distance, solid.distance(points))
    return distance


def union_bounds(solids: Sequence[Solid]) -> tuple[Vector, Vector]:
    """Lowest and highest corner of several solids."""
    lows, highs = zip(*(solid.bounds() for solid in solids), strict=True)
    return np.min(lows, axis=0), np.max(highs, axis=0)
