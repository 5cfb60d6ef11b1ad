"""A synthetic stand-in for VerSe: CT-like spines with masks and centroids, in VerSe's layout and header styles.

Phantoms are for trying out and testing the code; a score on them says nothing about patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np

from verse_utils.centroids import write_centroids
from verse_utils.errors import UserError
from verse_utils.names import SPLITS
from verse_utils.phantom.anatomy import Anatomy, make_anatomy
from verse_utils.phantom.case import Phantom, label_whole
from verse_utils.phantom.render import render
from verse_utils.phantom.shapes import rotation
from verse_utils.phantom.trunk.label_maps import find_masks
from verse_utils.phantom.trunk.phantom import make_trunk_phantom

# Axis codes with their number among VerSe's 374 scans.
_STORED_AXES = {"LAS": 216, "PSR": 67, "PIR": 59, "LPS": 31, "LSP": 1}
_CT_CODES = ((1, 0), (1, 1), (0, 2))  # qform and sform code: VerSe's CTs come with any of these
_MASK_CODES = ((0, 2), (1, 1))
_MOST_CASES = 100  # of a split


def make_phantom(seed: int | Sequence[int], size: str = "full") -> Phantom:
    """Draw a body and scan a part of it.

    Args:
        seed: everything follows from it.
        size: "full", a scan as VerSe has them, or "tiny", five vertebrae on coarse voxels for tests.
    """
    rng = np.random.default_rng(seed)
    anatomy = make_anatomy(rng)
    affine, shape = _grid(anatomy, rng, tiny=size == "tiny")
    image_hu, label = render(anatomy, affine, shape, rng.uniform(12, 35), int(rng.integers(2**31)))
    return label_whole(anatomy, image_hu, label, affine)


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


_MAKERS: dict[str, Callable[..., Phantom]] = {
    "spine": make_phantom,
    "trunk": make_trunk_phantom,
    "body": partial(make_trunk_phantom, whole=True),
}
FIELDS_OF_VIEW = tuple(_MAKERS)


def write_phantom_dataset(
    root: Path,
    counts: dict[str, int],
    seed: int = 0,
    workers: int = 1,
    size: str = "full",
    field_of_view: str = "spine",
    shapes: Path | None = None,
    voxel_mm: float | None = None,
) -> list[float]:
    """Write a VerSe19-shaped folder of phantoms.

    Args:
        root: folder to write to.
        counts: split -> number of cases.
        seed: of the whole data set; each case depends on it, its split and its number alone.
        workers: processes.
        size: as in ``make_phantom``.
        field_of_view: "spine", a run of vertebrae in simple surroundings, or "trunk", see ``make_trunk_phantom``, or
            "body", all of that from the skull to the pelvis.
        shapes: folder with masks whose vertebrae trunks are built around.
        voxel_mm: edge of the voxels of trunks and bodies, if it isn't to be drawn.

    Returns:
        The Dice of the mask ``HU > 150`` for each case: what a threshold alone achieves.

    Raises:
        UserError: shapes or voxels for a field of view that doesn't take them, no masks there, or masks that can't be
            used; more cases than a data set has room for.
    """
    make = _maker(field_of_view, size, shapes, voxel_mm)
    # Data sets of trunks are trained on together, so their ids must differ; those of spines are the demo's.
    kind = "phantom" if field_of_view == "spine" else f"{field_of_view if shapes is None else 'shape'}{seed}case"
    # Ids begin with 100, 200 and 300; the same number is the same body.
    too_many = [split for split in SPLITS if counts.get(split, 0) > _MOST_CASES]
    if too_many:
        raise UserError(
            f"--{too_many[0]} {counts[too_many[0]]}: at most {_MOST_CASES}; add a data set of another --seed"
        )
    jobs = [
        (split, number)
        for split_index, split in enumerate(SPLITS)
        for number in range(100 * (split_index + 1), 100 * (split_index + 1) + counts.get(split, 0))
    ]
    work = partial(_write_case, Path(root), f"sub-{kind}", seed, make)
    if workers == 1:
        return [work(job) for job in jobs]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, jobs))


def _maker(
    field_of_view: str, size: str, shapes: Path | None, voxel_mm: float | None
) -> Callable[[Sequence[int]], Phantom]:
    """What makes a phantom of its seeds; arguments as of ``write_phantom_dataset``."""
    make: Callable[..., Phantom] = partial(_MAKERS[field_of_view], size=size)
    if voxel_mm is not None:
        if field_of_view == "spine":
            raise UserError(f"--voxel_mm {voxel_mm:g}: spines have voxels of their own; add --field_of_view trunk")
        make = partial(make, voxel_mm=voxel_mm)
    if shapes is not None:
        if field_of_view != "trunk":
            raise UserError(f"--shapes {shapes}: only trunks are built around masks; add --field_of_view trunk")
        make = partial(make, masks=find_masks(shapes))
    return make


def _write_case(
    root: Path, prefix: str, seed: int, make: Callable[[Sequence[int]], Phantom], job: tuple[str, int]
) -> float:
    split, number = job
    phantom = make((seed, number))
    rng = np.random.default_rng([seed, number, 1])
    subject = f"{prefix}{number:03d}"
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
