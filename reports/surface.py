"""Surfaces of masks in millimetres: triangle meshes, their distances, and files for a 3D printer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verse_utils.files.writing import written_aside

# Finer masks are averaged to about this spacing first: a vertebra's shape needs no finer one, and pages stay small.
FINEST_MM = 0.75
# Smoothing removes the steps that voxels leave. The factors are Taubin's: the second undoes the shrinking of the first.
SMOOTHING_STEPS = 10
_SMOOTHING_FACTORS = (0.5, -0.53)


@dataclass(frozen=True)
class Surface:
    """A closed surface of triangles.

    Attributes:
        points_mm: (N, 3) float32, RAS.
        triangles: (M, 3) int32 indices of points, counter-clockwise when seen from outside.
    """

    points_mm: np.ndarray
    triangles: np.ndarray

    @property
    def area_mm2(self) -> float:
        """The sum of the triangles' areas."""
        return float(np.linalg.norm(self.scaled_normals(), axis=1).sum() / 2)

    def scaled_normals(self) -> np.ndarray:
        """(M, 3) float64 normals of the triangles, outwards, each as long as twice the triangle's area in mm²."""
        first, second, third = np.moveaxis(self.points_mm.astype(np.float64)[self.triangles], 1, 0)
        return np.cross(second - first, third - first)


def surface_of(mask: np.ndarray, affine: np.ndarray) -> Surface:
    """The surface of a mask, closed at the volume's border too: marching cubes (Lewiner et al. 2003), then smoothed.

    Args:
        mask: (I, J, K) bool.
        affine: (4, 4), voxel indices to RAS mm; may be oblique.

    Returns:
        Without points where the mask is empty.
    """
    from nibabel.affines import apply_affine, voxel_sizes
    from skimage.measure import marching_cubes

    inside = np.nonzero(mask)
    if not len(inside[0]):
        return _no_surface()
    first = np.array([axis.min() for axis in inside])
    box = mask[tuple(slice(axis.min(), axis.max() + 1) for axis in inside)]
    steps = np.maximum(np.floor(FINEST_MM / voxel_sizes(affine) + 1e-3), 1).astype(int)
    share = np.pad(_block_means(box, steps), 1)
    if share.max() <= 0.5:  # all of the mask is thinner than a block
        return _no_surface()
    vertices, triangles, _, _ = marching_cubes(share, 0.5, gradient_direction="ascent", allow_degenerate=False)
    indices = (vertices - 1) * steps + (steps - 1) / 2 + first
    if np.linalg.det(affine[:3, :3]) < 0:  # stored left-handed: the affine turns the surface inside out
        triangles = triangles[:, ::-1]
    points_mm = _smoothed(apply_affine(affine, indices), triangles)
    return Surface(points_mm.astype(np.float32), np.ascontiguousarray(triangles, np.int32))


def _no_surface() -> Surface:
    return Surface(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))


def _block_means(mask: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Share of foreground in blocks of voxels, float32; the last blocks are filled with zeros."""
    padded = np.pad(mask, [(0, -size % step) for size, step in zip(mask.shape, steps, strict=True)])
    split = [part for size, step in zip(padded.shape, steps, strict=True) for part in (size // step, step)]
    shares: np.ndarray = padded.reshape(split).mean(axis=(1, 3, 5), dtype=np.float32)
    return shares


def _smoothed(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Move points towards the mean of their neighbours and back, which flattens only details as small as a voxel.

    Taubin 1995 (10.1145/218380.218473).
    """
    from scipy.sparse import coo_array

    starts, ends = triangles.ravel(), np.roll(triangles, 1, axis=1).ravel()
    neighbours = coo_array((np.ones(len(starts)), (starts, ends)), shape=(len(points), len(points))).tocsr()
    counts = neighbours.sum(axis=1)[:, None]
    for _ in range(SMOOTHING_STEPS):
        for factor in _SMOOTHING_FACTORS:
            points = points + factor * (neighbours @ points / counts - points)
    return points


def distances_mm(surface: Surface, other: Surface) -> np.ndarray:
    """Distance of each point to the other surface, taken at its corners and the centres of its triangles.

    Args:
        surface: with N points.
        other: not empty.

    Returns:
        (N,) float32, in mm, absolute. Exactly 0 where both surfaces are the same. Too large by less than half a voxel.
    """
    from scipy.spatial import cKDTree

    centres = other.points_mm[other.triangles].mean(axis=1)
    tree = cKDTree(np.concatenate([other.points_mm, centres]))
    distances: np.ndarray = tree.query(surface.points_mm)[0].astype(np.float32)
    return distances


def reduced(surface: Surface, most_triangles: int) -> tuple[Surface, np.ndarray]:
    """A surface with a bounded number of triangles: points in one cube become their mean (Rossignac and Borrel 1993).

    Thin parts stay, which larger voxels would lose, but may end up as two sheets in one place.

    Returns:
        The surface, and for each point of the given one (N,) the index of the point that replaces it.
    """
    members = np.arange(len(surface.points_mm))
    simple = surface
    cube_mm = np.sqrt(2 * surface.area_mm2 / most_triangles)
    while len(simple.triangles) > most_triangles:
        simple, members = _merged(surface, cube_mm)
        cube_mm *= 1.05
    return simple, members


def _merged(surface: Surface, cube_mm: float) -> tuple[Surface, np.ndarray]:
    cubes = ((surface.points_mm - surface.points_mm.min(axis=0)) / cube_mm).astype(np.int64)
    numbers = np.ravel_multi_index(tuple(cubes.T), tuple(cubes.max(axis=0) + 1))
    _, members, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    means = [np.bincount(members, weights=axis) / sizes for axis in surface.points_mm.T]
    triangles = members[surface.triangles]
    first, second, third = triangles.T
    whole = (first != second) & (second != third) & (third != first)
    return Surface(np.stack(means, axis=1).astype(np.float32), triangles[whole].astype(np.int32)), members


def write_stl(surface: Surface, path: Path) -> None:
    """Write a surface as binary STL in mm of RAS, for printing; whole or not at all."""
    normals = surface.scaled_normals()
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records = np.zeros(len(normals), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
    records["normal"] = normals / np.maximum(lengths, np.finfo(np.float32).tiny)
    records["corners"] = surface.points_mm[surface.triangles]
    with written_aside(path) as aside, aside.open("wb") as stream:
        stream.write(b"surface of a mask, mm, RAS".ljust(80))
        stream.write(np.uint32(len(records)).astype("<u4").tobytes())
        records.tofile(stream)
