"""Real masks as shapes: the vertebrae of a label map, given tissue and a body by the generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np

from verse_utils.errors import UserError
from verse_utils.images import open_image, read_mask
from verse_utils.labels import ANATOMICAL_ORDER
from verse_utils.names import MASK, parse_file_name
from verse_utils.phantom.anatomy import Anatomy
from verse_utils.phantom.curves import draw_curves
from verse_utils.phantom.shapes import Pose, Vector
from verse_utils.phantom.trunk.body import build, vertebra, vertebral_bone
from verse_utils.phantom.trunk.person import Person, clothe, stack_spine
from verse_utils.phantom.trunk.sizes import VertebraSize, draw_size, mean_size

_EDGE_MM, _DEEP_MM = 3.0, 9.0  # widths over which a mask is averaged: near its surface, and in its depth
_MARGIN_MM = 12.0
_LEAST_ML = 5.0  # smaller pieces are what the end of a scan left of a vertebra


@dataclass(frozen=True)
class MaskShape:
    """A vertebra of a mask, as a solid.

    Attributes:
        distance_mm: (I, J, K) signed distance on the mask's grid, smooth across its voxels.
        affine: (4, 4) of that grid.
    """

    distance_mm: np.ndarray
    affine: np.ndarray

    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner."""
        ends = np.array(self.distance_mm.shape) - 1
        corners = nib.affines.apply_affine(self.affine, np.array(list(np.ndindex(2, 2, 2))) * ends)
        return corners.min(axis=0), corners.max(axis=0)

    def distance(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Signed distance in mm: between the grid's voxels by linear interpolation, and at its rim where it ends."""
        x, y, z = np.broadcast_arrays(*points)
        to_index = np.linalg.inv(self.affine).astype(np.float32)
        found = np.zeros(x.shape, np.float32)
        floors, shares = [], []
        for row, length in zip(to_index[:3], self.distance_mm.shape, strict=True):
            index = np.clip(row[0] * x + row[1] * y + row[2] * z + row[3], 0, length - 1.001)
            floors.append(index.astype(np.int32))
            shares.append(index - floors[-1])
        for corner in np.ndindex(2, 2, 2):
            weight = np.float32(1)
            for share, upper in zip(shares, corner, strict=True):
                weight = weight * (share if upper else 1 - share)
            found += weight * self.distance_mm[tuple(low + upper for low, upper in zip(floors, corner, strict=True))]
        return found


def find_masks(folder: Path) -> list[Path]:
    """The masks of a folder and its subfolders, by name.

    Raises:
        UserError: there is none.
    """
    names = ((path, parse_file_name(path.name)) for path in sorted(Path(folder).rglob("*.nii*")))
    masks = [path for path, name in names if name is not None and name.kind == MASK]
    if not masks:
        raise UserError(
            f"--shapes {folder}: holds no mask of VerSe (sub-*_seg-vert_msk.nii.gz); name a folder that does"
        )
    return masks


def make_real_shapes(mask_path: Path, rng: np.random.Generator) -> tuple[Anatomy, tuple[int, int]]:
    """A body around the vertebrae of a real mask, mirrored or not, 0.92 to 1.08 times as large.

    Returns:
        The body, and VerSe's numbers of the highest and the lowest vertebra of the mask. Vertebrae above and below are
        of the generator's own shape.

    Raises:
        UserError: the mask can't be read, or shows no whole vertebra.
    """
    label = read_mask(mask_path)
    factor = rng.uniform(0.92, 1.08)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    affine = nib.affines.from_matvec(np.diag([mirror * factor, factor, factor])) @ open_image(mask_path).affine
    shapes = {int(number): _shape(label == number, affine) for number in np.unique(label) if number}
    # C1 and C2 have no body to be placed by, and rests that the end of the scan left are no vertebrae.
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    shapes = {n: shape for n, shape in shapes.items() if n > 2 and (shape.distance_mm < 0).sum() * voxel_ml > _LEAST_ML}
    if len(shapes) < 2:
        raise UserError(f"{mask_path}: shows fewer than two whole vertebrae below C2; leave it out of --shapes")
    person, moved = _fit(shapes, rng)
    parts = [
        vertebral_bone(person, number, [moved[number]]) if number in moved else vertebra(person, number)
        for number in person.poses
    ]
    return build(person, parts), (min(moved), max(number for number in moved if number <= 24))


def _shape(mask: np.ndarray, affine: np.ndarray) -> MaskShape:
    """A vertebra's smooth signed distance on its own part of the grid."""
    spacing = nib.affines.voxel_sizes(affine)
    margin = np.ceil(_MARGIN_MM / spacing).astype(int)
    where = np.argwhere(mask)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    padded = np.pad(mask[box], [(int(m), int(m)) for m in margin]).astype(np.float32)
    # The share of mask nearby falls from 1 to 0 over the width of the average, linearly at a flat surface.
    edge, deep = ((0.5 - _averaged(padded, spacing, width)) * width for width in (_EDGE_MM, _DEEP_MM))
    distance = np.where(
        np.abs(edge) < 0.4 * _EDGE_MM, edge, np.where(edge < 0, np.minimum(edge, deep), np.maximum(edge, deep))
    )
    corner = affine @ nib.affines.from_matvec(np.eye(3), low - margin)
    return MaskShape(distance.astype(np.float32), corner)


def _averaged(values: np.ndarray, spacing: np.ndarray, width_mm: float) -> np.ndarray:
    """The mean over a box of about ``width_mm``; the ends are joined."""
    for axis, step in enumerate(spacing):
        reach = int(width_mm / step / 2)
        values = np.stack([np.roll(values, shift, axis) for shift in range(-reach, reach + 1)]).mean(axis=0)
    return values


def _body_centre(shape: MaskShape) -> Vector:
    """The middle of the thickest part of a vertebra: its body."""
    spacing = nib.affines.voxel_sizes(shape.affine)
    thick = _averaged((shape.distance_mm < 0).astype(np.float32), spacing, 20)
    where = np.argwhere(thick > 0.97 * thick.max())
    centre: Vector = nib.affines.apply_affine(shape.affine, where.mean(axis=0))
    return centre


def _frames(shapes: dict[int, MaskShape]) -> dict[int, Pose]:
    """Frames of bodies: up along the neighbours' centres, forward from the arch to the body; the lowest first."""
    order = [number for number in reversed(ANATOMICAL_ORDER) if number in shapes]
    centres = np.array([_body_centre(shapes[number]) for number in order])
    upward = np.gradient(centres, axis=0)
    frames = {}
    for number, centre, up in zip(order, centres, upward, strict=True):
        shape = shapes[number]
        whole = nib.affines.apply_affine(shape.affine, np.argwhere(shape.distance_mm < 0).mean(axis=0))
        up = up / np.linalg.norm(up)
        forward = centre - whole - up * ((centre - whole) @ up)
        forward = forward / np.linalg.norm(forward)
        frames[number] = Pose(centre, np.stack([np.cross(forward, up), forward, up], axis=1))
    return frames


def _fit(shapes: dict[int, MaskShape], rng: np.random.Generator) -> tuple[Person, dict[int, MaskShape]]:
    """A person with the mask's vertebrae in the place of their own, and these vertebrae where that person has them."""
    frames = _frames(shapes)
    measured = list(frames)
    steps = np.linalg.norm(np.diff([frames[number].origin for number in measured], axis=0), axis=1)
    pairs = list(pairwise(measured))
    usual = [0.5 * (mean_size(a).height + mean_size(b).height) + mean_size(b).disc for a, b in pairs]
    scale = float(np.clip(np.median(steps / usual), 0.85, 1.2))
    levels = [number for number in reversed(ANATOMICAL_ORDER) if number in shapes or number <= 24]
    sizes: dict[int, VertebraSize] = {number: draw_size(number, scale, 1.0, rng) for number in levels}
    stacked = stack_spine(sizes, draw_curves(rng))
    lowest, highest = measured[0], measured[-1]
    down = stacked[lowest].origin - frames[lowest].origin
    moved = {number: Pose(frame.origin + down, frame.axes) for number, frame in frames.items()}
    up = moved[highest].origin - stacked[highest].origin
    poses = {}
    for position, number in enumerate(levels):
        above = position > levels.index(highest)
        pose = stacked[number]
        poses[number] = moved.get(number, Pose(pose.origin + up, pose.axes) if above else pose)
    shifted = nib.affines.from_matvec(np.eye(3), down)
    person = clothe(poses, sizes, scale, rng.uniform(20, 90), rng)
    return person, {number: MaskShape(shape.distance_mm, shifted @ shape.affine) for number, shape in shapes.items()}
