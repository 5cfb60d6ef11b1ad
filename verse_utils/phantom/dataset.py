"""A synthetic stand-in for VerSe: CT-like spines with masks and centroids, in VerSe's layout and header styles.

Phantoms are for trying out and testing the code; a score on them says nothing about patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np

from verse_utils.centroids import Centroids, write_centroids
from verse_utils.labels import ANATOMICAL_ORDER
from verse_utils.names import SPLITS
from verse_utils.phantom.anatomy import Anatomy, Part, Trunk, make_anatomy, table
from verse_utils.phantom.shapes import Solid, rotation, union_bounds, union_distance

AIR_HU, FAT_HU, MUSCLE_HU = -1000.0, -95.0, 50.0
# Axis codes with their number among VerSe's 374 scans.
_STORED_AXES = {"LAS": 216, "PSR": 67, "PIR": 59, "LPS": 31, "LSP": 1}
_CT_CODES = ((1, 0), (1, 1), (0, 2))  # qform and sform code: VerSe's CTs come with any of these
_MASK_CODES = ((0, 2), (1, 1))


@dataclass(frozen=True)
class Phantom:
    """A scan, on its stored grid.

    Attributes:
        image_hu: (I, J, K) int16.
        label: (I, J, K) uint8, VerSe's numbers.
        affine: (4, 4) to RAS millimetres.
        centroids: centres of the labelled bodies.
        anatomy: the body that was scanned.
    """

    image_hu: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    centroids: Centroids
    anatomy: Anatomy


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
    image = _trunk_image(anatomy.trunk, affine, shape, soft_mm)
    label = np.zeros(shape, np.uint8)
    for part in (*table(anatomy), *anatomy.parts):
        box = _box(part.solids, affine, shape)
        if box is not None:
            texture_hu = part.texture_hu if noise_hu else 0.0
            _paint(part, box, affine, soft_mm, image[box], label[box], texture_hu, rng)
    if noise_hu:
        image += _correlated_noise(shape, rng, noise_hu)
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16), label


def _points(affine: np.ndarray, box: Sequence[slice]) -> list[np.ndarray]:
    """World x, y, z of a box's voxels, each (I, J, K) float32."""
    index = np.ogrid[tuple(box)]
    along = [[np.asarray(row[axis] * index[axis], np.float32) for axis in range(3)] for row in affine[:3]]
    return [x + y + (z + np.float32(row[3])) for (x, y, z), row in zip(along, affine, strict=False)]


def _box(
    solids: Sequence[Solid], affine: np.ndarray, stop: Sequence[int], start: Sequence[int] = (0, 0, 0)
) -> tuple[slice, slice, slice] | None:
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


def _paint(
    part: Part,
    box: Sequence[slice],
    affine: np.ndarray,
    soft_mm: float,
    image: np.ndarray,
    label: np.ndarray,
    texture_hu: float,
    rng: np.random.Generator,
) -> None:
    """Paint a part into its box of the image and the label, which are changed in place."""
    distance = np.full(image.shape, np.float32(soft_mm))
    for solid in part.solids:  # each in its own small box: a rib's box is the chest
        own = _box([solid], affine, [axis.stop for axis in box], [axis.start for axis in box])
        if own is not None:
            inner = tuple(slice(o.start - b.start, o.stop - b.start) for o, b in zip(own, box, strict=True))
            np.minimum(distance[inner], solid.distance(_points(affine, own)), out=distance[inner])
    if part.hollow:
        distance = np.maximum(distance, -union_distance(part.hollow, _points(affine, box)))
    near = np.nonzero(distance < soft_mm / 2)
    distance = distance[near]
    inside = np.full(len(distance), part.hu, np.float32)
    if texture_hu:
        inside += _correlated_noise(image.shape, rng, texture_hu)[near]
    if part.shell_hu is not None:
        shell = np.clip((distance + part.shell_mm) / soft_mm + 0.5, 0, 1)
        inside += shell * (part.shell_hu - inside)
    share = np.clip(0.5 - distance / soft_mm, 0, 1)
    image[near] += share * (inside - image[near])
    if part.label:
        label[near] = np.where((distance < 0) & (label[near] == 0), part.label, label[near])


def _trunk_image(trunk: Trunk, affine: np.ndarray, shape: tuple[int, int, int], soft_mm: float) -> np.ndarray:
    """Air, fat and muscle: (I, J, K) float32 HU."""
    # Outlines at each millimetre of height; looked up, not interpolated for each voxel.
    lowest = trunk.z_mm[0]
    heights = np.arange(lowest, trunk.z_mm[-1])
    outline = np.concatenate([trunk.centre_mm, trunk.radii_mm], axis=1)
    columns = [np.interp(heights, trunk.z_mm, column).astype(np.float32) for column in outline.T]
    image = np.empty(shape, np.float32)
    for first in range(0, shape[0], 16):  # in slabs, which keeps the memory small
        slab = (slice(first, min(first + 16, shape[0])), slice(0, shape[1]), slice(0, shape[2]))
        x, y, z = _points(affine, slab)
        row = np.clip(z - np.float32(lowest), 0, len(heights) - 1).astype(np.int32)
        centre_x, centre_y, half_x, half_y = (column[row] for column in columns)
        radius = np.sqrt(np.square((x - centre_x) / half_x) + np.square((y - centre_y) / half_y))
        depth = np.minimum(half_x, half_y) * (1 - radius)
        body = np.clip(depth / np.float32(soft_mm) + np.float32(0.5), 0, 1)
        muscle = np.clip((depth - np.float32(trunk.fat_mm)) / np.float32(soft_mm) + np.float32(0.5), 0, 1)
        image[slab] = AIR_HU + body * (FAT_HU - AIR_HU) + muscle * (MUSCLE_HU - FAT_HU)
    return image


def _correlated_noise(shape: Sequence[int], rng: np.random.Generator, sd: float) -> np.ndarray:
    """Noise that neighbours share, as a reconstruction kernel makes it: (…) float32 of standard deviation ``sd``."""
    noise = rng.standard_normal(tuple(shape), dtype=np.float32)
    for axis in range(len(shape)):
        noise = noise + np.roll(noise, 1, axis=axis)  # a box of 2 in each axis
    return noise * np.float32(sd / 2 ** (len(shape) / 2))


def make_phantom(seed: int | Sequence[int], size: str = "full") -> Phantom:
    """Draw a body and scan a part of it.

    Args:
        seed: everything follows from it.
        size: "full", a scan as VerSe has them, or "tiny", five vertebrae on coarse voxels for tests.

    A vertebra whose body is cut by the end of the field of view is visible but not labelled, as in VerSe.
    """
    rng = np.random.default_rng(seed)
    anatomy = make_anatomy(rng)
    affine, shape = _grid(anatomy, rng, tiny=size == "tiny")
    image_hu, label = render(anatomy, affine, shape, rng.uniform(12, 35), int(rng.integers(2**31)))
    whole = [number for number in anatomy.body_pose if _is_whole(anatomy, number, affine, shape)]
    label[~np.isin(label, whole)] = 0
    inverse = np.linalg.inv(affine)
    points_vox = {
        number: nib.affines.apply_affine(inverse, anatomy.body_pose[number].origin)
        for number in sorted(whole, key=ANATOMICAL_ORDER.index)
    }
    direction = nib.aff2axcodes(affine)
    return Phantom(image_hu, label, affine, Centroids(direction, points_vox), anatomy)


def _is_whole(anatomy: Anatomy, number: int, affine: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the vertebra's body lies in the field of view."""
    pose, half = anatomy.body_pose[number], anatomy.body_size_mm[number] / 2
    corners = [pose.to_world(half * [x, y, z]) for x in (-0.7, 0.7) for y in (-0.7, 0.7) for z in (-1, 1)]
    index = nib.affines.apply_affine(np.linalg.inv(affine), corners)
    return bool((index > -0.5).all() and (index < np.array(shape) - 0.5).all())


def _grid(anatomy: Anatomy, rng: np.random.Generator, tiny: bool) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A field of view around a run of vertebrae, in VerSe's orientations and spacings, at times oblique."""
    order = sorted(anatomy.body_pose, key=lambda number: anatomy.body_pose[number].origin[2])
    count = 5 if tiny else int(rng.choice([5, 6, 8, 12, 17, len(order)], p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.1]))
    # Most scans show the lower back.
    first = 0 if rng.random() < 0.4 else int(rng.integers(len(order) - count + 1))
    shown = [anatomy.body_pose[number].origin for number in order[first : first + count]]
    low, high = np.min(shown, axis=0), np.max(shown, axis=0)
    ends = rng.uniform(14, 40, 2)  # beyond the outer bodies' centres; a rim may show the next vertebra cut
    across = rng.uniform(100, 130) if tiny else rng.choice([rng.uniform(130, 190), rng.uniform(220, 300)], p=[0.6, 0.4])
    ahead = 110.0 if tiny else across
    middle = (low + high) / 2 + [0, -22 if across < 200 else 30, (ends[1] - ends[0]) / 2]
    middle[:2] += rng.uniform(-8, 8, 2)
    extent_mm = np.array([across, max(ahead, high[1] - low[1] + 95), high[2] - low[2] + ends.sum()])

    shares = np.array(list(_STORED_AXES.values()))
    codes = str(rng.choice(list(_STORED_AXES), p=shares / shares.sum()))
    fine, coarse = (2.5, 3.0) if tiny else (rng.uniform(0.85, 1.1), rng.choice([1.25, 2.0, 3.0]))
    slice_axis = codes.index("S") if codes == "LAS" else 2  # sagittal slices where the third axis is R or L
    spacing_mm = np.full(3, fine)
    spacing_mm[slice_axis] = coarse
    orientation = nib.orientations.axcodes2ornt(codes)
    axes = np.zeros((3, 3))
    for stored, (world, sign) in enumerate(orientation):
        axes[int(world), stored] = sign
    if rng.random() < 0.3:  # a tilted gantry or patient
        tilt = np.deg2rad(rng.uniform(-12, 12, 3)) * [1, -1, 1]
        axes = np.linalg.multi_dot([*(rotation(axis, angle) for axis, angle in enumerate(tilt)), axes])
    ras_of_stored = orientation[:, 0].astype(int)
    shape = np.maximum(np.rint(extent_mm[ras_of_stored] / spacing_mm), 1).astype(int)
    matrix = axes * spacing_mm
    affine = nib.affines.from_matvec(matrix, middle - matrix @ ((shape - 1) / 2))
    i, j, k = (int(n) for n in shape)
    return affine, (i, j, k)


def write_phantom_dataset(
    root: Path, counts: dict[str, int], seed: int = 0, workers: int = 1, size: str = "full"
) -> list[float]:
    """Write a VerSe19-shaped folder of phantoms.

    Args:
        root: folder to write to.
        counts: split -> number of cases.
        seed: of the whole data set; each case depends on it, its split and its number alone.
        workers: processes.
        size: as in ``make_phantom``.

    Returns:
        The Dice of the mask ``HU > 150`` for each case: what a threshold alone achieves.
    """
    jobs = [
        (split, number)
        for split_index, split in enumerate(SPLITS)
        for number in range(100 * (split_index + 1), 100 * (split_index + 1) + counts.get(split, 0))
    ]
    work = partial(_write_case, Path(root), seed, size)
    if workers == 1:
        return [work(job) for job in jobs]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, jobs))


def _write_case(root: Path, seed: int, size: str, job: tuple[str, int]) -> float:
    split, number = job
    phantom = make_phantom((seed, number), size)
    rng = np.random.default_rng([seed, number, 1])
    subject = f"sub-phantom{number:03d}"
    stem = subject + ("_dir-ax" if rng.random() < 0.2 else "")
    dataset = root / f"dataset-verse19{split}"
    raw, derived = dataset / "rawdata" / subject, dataset / "derivatives" / subject
    for folder in (raw, derived):
        folder.mkdir(parents=True, exist_ok=True)
    mask_dtype = np.float64 if rng.random() < 0.3 else np.uint8
    _save(phantom.image_hu, phantom.affine, _CT_CODES[rng.integers(3)], raw / f"{stem}_ct.nii.gz")
    mask = phantom.label.astype(mask_dtype)
    _save(mask, phantom.affine, _MASK_CODES[rng.integers(2)], derived / f"{stem}_seg-vert_msk.nii.gz")
    kind = "seg-vb_ctd" if rng.random() < 0.3 else "seg-subreg_ctd"
    write_centroids(derived / f"{stem}_{kind}.json", phantom.centroids)
    return _dice(phantom.image_hu > 150, phantom.label > 0)


def _save(array: np.ndarray, affine: np.ndarray, codes: tuple[int, int], path: Path) -> None:
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine if codes[0] else None, code=codes[0])
    image.set_sform(affine if codes[1] else None, code=codes[1])
    nib.save(image, path)


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0
