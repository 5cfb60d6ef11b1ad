"""Scan an anatomy on any grid: paint its solids with soft edges, as partial volume gives them, and add noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import nibabel as nib
import numpy as np

from verse_utils.phantom.anatomy import Anatomy, Part, Trunk, table
from verse_utils.phantom.shapes import Solid, union_bounds, union_distance

AIR_HU, FAT_HU, MUSCLE_HU, CARTILAGE_HU = -1000.0, -95.0, 50.0, 80.0

_THICK = 2.2  # how many times thicker a shell is where it is thick

Box = tuple[slice, slice, slice]
# (a box of voxels, indices in the box, standard deviation in HU) -> texture at the indices, float32 HU
Texture = Callable[[Box, tuple[np.ndarray, ...], float], np.ndarray]


def render(
    anatomy: Anatomy, affine: np.ndarray, shape: tuple[int, int, int], noise_hu: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scan an anatomy on a grid.

    Args:
        anatomy: what is scanned.
        affine: (4, 4) to RAS millimetres; any orientation, spacing and obliqueness.
        shape: (I, J, K) voxels.
        noise_hu: standard deviation of the noise; 0 also leaves out the texture of bone.
        seed: of noise and texture.

    Returns:
        (I, J, K) int16 HU and (I, J, K) uint8 labels of every vertebra in view, cut ones too.
    """
    rng = np.random.default_rng(seed)
    soft_mm = float(np.mean(nib.affines.voxel_sizes(affine)))  # partial volume blurs edges over about a voxel
    image = trunk_image(anatomy.trunk, affine, shape, soft_mm)
    label = np.zeros(shape, np.uint8)

    def texture(box: Box, at: tuple[np.ndarray, ...], sd_hu: float) -> np.ndarray:
        grain: np.ndarray = correlated_noise([axis.stop - axis.start for axis in box], rng, sd_hu)[at]
        return grain

    for part in (*table(anatomy), *anatomy.parts):
        box = voxel_box(part.solids, affine, shape)
        if box is not None:
            paint(part, box, affine, soft_mm, image, label, texture if noise_hu else None)
    if noise_hu:
        image += correlated_noise(shape, rng, noise_hu)
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16), label


def voxel_points(affine: np.ndarray, box: Sequence[slice]) -> list[np.ndarray]:
    """World x, y, z of a box's voxels, float32, of shapes that broadcast to (I, J, K): along an axis that a coordinate
    doesn't depend on, its length is 1."""
    index = np.ogrid[tuple(box)]
    points = []
    for row in affine[:3]:
        along = [np.asarray(row[axis] * index[axis], np.float32) for axis in range(3) if row[axis]]
        along.append((along.pop() if row[2] else np.zeros((1, 1, 1), np.float32)) + np.float32(row[3]))
        points.append(sum(along[1:], start=along[0]))
    return points


def voxel_box(
    solids: Sequence[Solid], affine: np.ndarray, stop: Sequence[int], start: Sequence[int] = (0, 0, 0)
) -> Box | None:
    """The voxels from ``start`` to ``stop`` that solids can touch; None where they are out of view."""
    low, high = union_bounds(solids)
    inverse = np.linalg.inv(affine)
    centre = nib.affines.apply_affine(inverse, (low + high) / 2)
    reach = np.abs(inverse[:3, :3]) @ ((high - low) / 2) + 2
    first = np.maximum(np.floor(centre - reach), start).astype(int)
    last = np.minimum(np.ceil(centre + reach) + 1, stop).astype(int)
    if (last <= first).any():
        return None
    x, y, z = (slice(a, b) for a, b in zip(first, last, strict=True))
    return x, y, z


def paint(
    part: Part,
    box: Box,
    affine: np.ndarray,
    soft_mm: float,
    image: np.ndarray,
    label: np.ndarray,
    texture: Texture | None,
) -> None:
    """Paint a part where it lies in a box of the image and the label, which are changed in place."""
    distance = _distance(part, box, affine, soft_mm)
    image, label = image[box], label[box]
    if part.rim_mm:
        _paint_rim(distance - np.float32(part.rim_mm), soft_mm, image)
    near = np.nonzero(distance < soft_mm / 2)
    distance = distance[near]
    in_mask = distance < 0
    if part.inset_mm:
        distance = distance + np.float32(part.inset_mm)
    inside = np.full(len(distance), part.hu, np.float32)
    if part.texture_hu and texture:
        inside += texture(box, near, part.texture_hu)
    if part.shell_hu is not None:
        shell = np.clip((distance + _shell_mm(part, box, affine, near, texture)) / soft_mm + 0.5, 0, 1)
        inside += shell * (part.shell_hu - inside)
    share = np.clip(0.5 - distance / soft_mm, 0, 1)
    image[near] += share * (inside - image[near])
    if part.label:
        label[near] = np.where(in_mask & (label[near] == 0), part.label, label[near])


def _shell_mm(
    part: Part, box: Box, affine: np.ndarray, near: tuple[np.ndarray, ...], texture: Texture | None
) -> np.ndarray | float:
    """Thickness of a part's shell at indices in a box."""
    thickness: np.ndarray | float = part.shell_mm
    if part.thick_behind is not None:
        _, forward, _ = part.thick_behind.to_local(voxel_points(affine, box))
        shape = [axis.stop - axis.start for axis in box]
        thickness = thickness * np.where(np.broadcast_to(forward, shape)[near] < 0, np.float32(_THICK), np.float32(1))
    if part.uneven and texture:
        thickness = thickness * np.clip(1 + texture(box, near, part.uneven), 0.5, 2)
    return thickness


def _distance(part: Part, box: Box, affine: np.ndarray, soft_mm: float) -> np.ndarray:
    """Signed distance to a part in mm in a box, (I, J, K) float32; not told far outside."""
    if len(part.solids) == 1:
        distance = part.solids[0].distance(voxel_points(affine, box))
    else:
        distance = np.full([axis.stop - axis.start for axis in box], np.float32(soft_mm + part.rim_mm))
        for solid in part.solids:  # each in its own small box: a rib's box is the chest
            own = voxel_box([solid], affine, [axis.stop for axis in box], [axis.start for axis in box])
            if own is not None:
                inner = tuple(slice(o.start - b.start, o.stop - b.start) for o, b in zip(own, box, strict=True))
                np.minimum(distance[inner], solid.distance(voxel_points(affine, own)), out=distance[inner])
    if part.hollow:
        distance = np.maximum(distance, -union_distance(part.hollow, voxel_points(affine, box)))
    return distance


def _paint_rim(distance: np.ndarray, soft_mm: float, image: np.ndarray) -> None:
    near = np.nonzero(distance < soft_mm / 2)
    share = np.clip(0.5 - distance[near] / soft_mm, 0, 1)
    image[near] += share * (CARTILAGE_HU - image[near])


def trunk_image(trunk: Trunk, affine: np.ndarray, shape: tuple[int, int, int], soft_mm: float) -> np.ndarray:
    """Air, fat and muscle: (I, J, K) float32 HU."""
    image = np.empty(shape, np.float32)
    for first in range(0, shape[0], 16):  # in slabs, which keeps the memory small
        slab = (slice(first, min(first + 16, shape[0])), slice(0, shape[1]), slice(0, shape[2]))
        depth = -trunk.outline.across(voxel_points(affine, slab))
        body = np.clip(depth / np.float32(soft_mm) + np.float32(0.5), 0, 1)
        muscle = np.clip((depth - np.float32(trunk.fat_mm)) / np.float32(soft_mm) + np.float32(0.5), 0, 1)
        image[slab] = AIR_HU + body * (FAT_HU - AIR_HU) + muscle * (MUSCLE_HU - FAT_HU)
    return image


def correlated_noise(shape: Sequence[int], rng: np.random.Generator, sd: float) -> np.ndarray:
    """Noise that neighbours share, as a reconstruction kernel makes it: (…) float32 of standard deviation ``sd``."""
    noise = rng.standard_normal(tuple(shape), dtype=np.float32)
    for axis in range(len(shape)):
        noise = noise + np.roll(noise, 1, axis=axis)  # a box of 2 in each axis
    return noise * np.float32(sd / 2 ** (len(shape) / 2))
