"""Checks of a case's voxels, taken slab by slab, so that no volume need be in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import nibabel as nib
import numpy as np

from verse_utils.cases import Case
from verse_utils.check.anatomy import check_centroids, check_levels
from verse_utils.check.findings import CaseReport
from verse_utils.check.mask_shift import find_shift
from verse_utils.hounsfield import count_hu, why_not_hu, why_unlike_ct
from verse_utils.labels import ANATOMICAL_ORDER, VERTEBRA_NAMES

# Slices that are read at a time. Of a fine scan, four in float64 take more memory than all of it at 1 mm.
SLAB_SLICES = 1
# Intensities are judged by a sample of the voxels about so far apart; labels by all of them.
SAMPLE_MM = 3.0
# A part of a vertebra's mask that lies a cell or more apart from the rest and is smaller than this is a speck.
_CELL_MM, _SPECK_MM3 = 15.0, 500.0
# No crop around a spine is filled by it: around one vertebra, a third of the voxels are foreground.
_MOST_FOREGROUND = 0.75


class VoxelChecks:
    """Looks at a case's slabs as they pass to whoever needs them, and tells at the end what is wrong with them.

    Args:
        case: that is checked.
        shape: (I, J, K).
        affine: (4, 4), to RAS mm.
    """

    def __init__(self, case: Case, shape: tuple[int, ...], affine: np.ndarray) -> None:
        self._case, self._shape, self._affine = case, shape, affine
        self._spacing_mm = nib.affines.voxel_sizes(affine)
        self._steps = np.maximum(np.rint(SAMPLE_MM / self._spacing_mm), 1).astype(int)
        self._sample_hu: list[np.ndarray] = []
        self._sample_mask: list[np.ndarray] = []
        self._limits_hu: list[int] = []
        self._cell_counts = np.ceil(np.array(shape) / self._steps).astype(np.int64)
        # Of each slab: (label, place of a sampling cell) as one number, and how many voxels the cell has in the slab.
        self._cells: list[tuple[np.ndarray, np.ndarray]] = []

    def image(self, slabs: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
        """Pass on the slabs of the CT, (first K, (I, J, k) int16 HU), and look at them on the way."""
        i, j, k = self._steps
        for first, slab in slabs:
            self._sample_hu.append(slab[::i, ::j, -first % k :: k].copy())
            self._limits_hu += [int(slab.min()), int(slab.max())]
            yield first, slab

    def label(self, slabs: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
        """Pass on the slabs of the mask, (first K, (I, J, k) uint8 labels of VerSe's), and look at them on the way."""
        i, j, k = self._steps
        counts = self._cell_counts
        for first, slab in slabs:
            self._sample_mask.append(slab[::i, ::j, -first % k :: k] > 0)
            # Turned and flat, as it lies in memory: a search along three axes takes twice as long.
            flat = slab.T.reshape(-1)
            at = np.flatnonzero(flat)
            at_K, at_J, at_I = np.unravel_index(at, slab.T.shape)
            labels = flat[at].astype(np.int64)
            places = ((labels * counts[0] + at_I // i) * counts[1] + at_J // j) * counts[2] + (at_K + first) // k
            self._cells.append(np.unique(places, return_counts=True))
            yield first, slab

    def _joined_cells(self) -> np.ndarray:
        """(N, 5) int64: label, place of a sampling cell along I, J, K, and how many voxels it has; each cell once."""
        numbers, voxels = (np.concatenate(parts) for parts in zip(*self._cells, strict=True))
        cells, cell_of = np.unique(numbers, return_inverse=True)
        label_of, place = np.divmod(cells, self._cell_counts.prod())
        counts = np.bincount(cell_of, weights=voxels, minlength=len(cells)).astype(np.int64)
        return np.stack([label_of, *np.unravel_index(place, self._cell_counts), counts], axis=1)

    def conclude(self, report: CaseReport) -> None:
        """Add what was found to a report, after the last slab of both."""
        image_hu, mask = (np.concatenate(slabs, axis=2) for slabs in (self._sample_hu, self._sample_mask))
        digest = hashlib.blake2b(image_hu.tobytes(), digest_size=16)
        digest.update(str(self._shape).encode())
        report.voxel_digest = digest.hexdigest()
        cells = self._joined_cells()
        self._check_intensities(report, image_hu)
        self._check_foreground(report, cells)
        if report.faults:
            return
        spacing_mm = self._spacing_mm * self._steps
        if (shift := find_shift(image_hu, mask, spacing_mm)) is not None:
            self._remark_shift(report, *shift)
        self._check_specks(report, cells)
        centres_mm = self._centres(cells)
        check_levels(report, self._case, centres_mm)
        check_centroids(report, self._case, self._shape, self._affine, centres_mm)

    def _check_intensities(self, report: CaseReport, image_hu: np.ndarray) -> None:
        path = self._case.image_path
        if min(self._limits_hu) == max(self._limits_hu):
            report.fault("intensities", f"{path}: constant, every voxel is {min(self._limits_hu)}; export the CT again")
            return
        counts = count_hu(image_hu)
        if reason := why_not_hu(counts):
            report.fault("intensities", f"{path}: not HU ({reason}); export the CT again, with its rescale intercept")
        elif reason := why_unlike_ct(counts):
            report.remark("intensities", f"{path}: {reason}")

    def _check_foreground(self, report: CaseReport, cells: np.ndarray) -> None:
        path, share = self._case.mask_path, cells[:, 4].sum() / np.prod(self._shape)
        if not len(cells):
            report.fault("mask", f"{path}: empty, no voxel is a vertebra; annotate the case or leave it out")
        elif share > _MOST_FOREGROUND:
            report.fault("mask", f"{path}: {share:.0%} of all voxels are vertebrae; annotate the case or leave it out")

    def _remark_shift(self, report: CaseReport, shift_mm: np.ndarray, gain: float) -> None:
        ras_mm = self._affine[:3, :3] / self._spacing_mm @ shift_mm
        words = [
            f"{abs(mm):.0f} mm {one if mm > 0 else other}"
            for mm, one, other in zip(ras_mm, ("right", "forward", "up"), ("left", "backward", "down"), strict=True)
            if abs(mm) >= 1
        ]
        report.remark(
            "mask",
            f"{self._case.mask_path}: shifted against its CT: moved {', '.join(words)}, "
            f"it would cover {gain:.1f} times as much bone",
        )

    def _check_specks(self, report: CaseReport, cells: np.ndarray) -> None:
        coarse = np.maximum(np.rint(_CELL_MM / (self._spacing_mm * self._steps)), 1).astype(int)
        voxel_mm3 = float(np.prod(self._spacing_mm))
        found = []
        for label in np.unique(cells[:, 0]):
            own = cells[cells[:, 0] == label]
            volumes: dict[tuple[int, ...], float] = {}
            for place, voxels in zip(map(tuple, (own[:, 1:4] // coarse).tolist()), own[:, 4], strict=True):
                volumes[place] = volumes.get(place, 0.0) + float(voxels) * voxel_mm3
            parts = sorted(_parts(volumes), reverse=True)
            specks = [volume for volume in parts[1:] if volume < _SPECK_MM3]
            if specks:
                found.append(f"{VERTEBRA_NAMES.get(int(label), label)} {sum(specks) / 1000:.2g} ml")
        if found:
            report.remark(
                "mask", f"{self._case.mask_path}: specks far from the rest of their vertebra: {', '.join(found)}"
            )

    def _centres(self, cells: np.ndarray) -> dict[int, np.ndarray]:
        """Middle of each label's mask, (3,) in RAS mm, from head to foot; the median, so that specks don't matter."""
        centres = {}
        for label in ANATOMICAL_ORDER:
            own = cells[cells[:, 0] == label]
            if len(own):
                middle = [_weighted_median(own[:, 1 + axis], own[:, 4]) for axis in range(3)]
                index = (np.array(middle) + 0.5) * self._steps - 0.5
                centres[label] = nib.affines.apply_affine(self._affine, index)
        return centres


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])


def _parts(volumes: dict[tuple[int, ...], float]) -> list[float]:
    """Volumes of the connected parts (cells that share a corner) of a set of cells."""
    left = dict(volumes)
    parts = []
    while left:
        place, volume = left.popitem()
        front = [place]
        while front:
            i, j, k = front.pop()
            for near in np.ndindex(3, 3, 3):
                neighbour = (i + near[0] - 1, j + near[1] - 1, k + near[2] - 1)
                if neighbour in left:
                    volume += left.pop(neighbour)
                    front.append(neighbour)
        parts.append(volume)
    return parts
