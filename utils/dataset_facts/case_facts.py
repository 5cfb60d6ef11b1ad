"""Facts of a case from one pass over it: grid, HU in and outside of vertebrae, volume of each vertebra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import nibabel as nib
import numpy as np

from utils.files.find_scans import ScanSource
from utils.files.h5_cases import CHUNK_EDGE, H5Cases
from utils.files.scans import open_scan
from utils.geometry.working_grid import ras_shape_and_spacing
from verse_utils.cases import Case
from verse_utils.errors import UserError
from verse_utils.hounsfield import count_hu, why_not_hu
from verse_utils.images import check_grids, label_slabs
from verse_utils.labels import ANATOMICAL_ORDER, T13, VERTEBRA_NAMES
from verse_utils.names import SPLITS

# A histogram's bins cover what 12 bits of a CT hold; values beyond count in the first and the last bin.
FIRST_EDGE_HU, LAST_EDGE_HU, BIN_HU = -1024, 3072, 32
_INT16 = np.iinfo(np.int16)
_INT16_VALUES = _INT16.max - _INT16.min + 1


@dataclass(frozen=True)
class HuFacts:
    """HU of some voxels. A percentile is the lowest value that at least this share of them does not exceed."""

    voxels: int
    min: int
    p1: int
    median: int
    mean: float
    p99: int
    max: int
    histogram: list[int]  # voxels in each bin from FIRST_EDGE_HU to LAST_EDGE_HU

    @classmethod
    def of_counts(cls, counts: np.ndarray) -> HuFacts | None:
        """Facts from the (65536,) numbers of voxels of each int16 value; None where there are no voxels."""
        total = int(counts.sum())
        if total == 0:
            return None
        values_hu = np.arange(_INT16_VALUES) + _INT16.min
        p1, median, p99 = np.quantile(values_hu, [0.01, 0.5, 0.99], weights=counts, method="inverted_cdf").tolist()
        seen = np.flatnonzero(counts)
        mean = round(float(counts @ values_hu) / total, 1)
        low, high = int(values_hu[seen[0]]), int(values_hu[seen[-1]])
        return cls(total, low, p1, median, mean, p99, high, _histogram(counts))


@dataclass(frozen=True)
class CaseFacts:
    """A case in numbers.

    Attributes:
        case_id: as in the file names.
        patient: the subject.
        split: training, validation or test.
        has_centroids: whether the case has a centroid list; None if unknown (an H5 does not store it).
        orientation: axis codes of the scan as it was stored, such as "LAS".
        size_vox: of the scan along X, Y, Z of RAS.
        spacing_mm: of the scan along X, Y, Z of RAS.
        field_of_view_mm: of the scan along X, Y, Z of RAS; of oblique scans along the axes nearest to these.
        volume_ml: of each labelled vertebra by its name, from head to foot.
        hu_in_bone: where the mask is a vertebra; None where there is none.
        hu_outside: everywhere else in the scan; None where there is nothing else.
        not_hu: why the values can't be HU; None where they can.
    """

    case_id: str
    patient: str
    split: str
    has_centroids: bool | None
    orientation: str
    size_vox: list[int]
    spacing_mm: list[float]
    field_of_view_mm: list[float]
    volume_ml: dict[str, float]
    hu_in_bone: HuFacts | None
    hu_outside: HuFacts | None
    not_hu: str | None = None


class StoredName(NamedTuple):
    """Where a case lies in an H5."""

    split: str
    case_id: str


@dataclass(frozen=True)
class FailedCase:
    """A case that can't be read, and the reason in one line."""

    case_id: str
    split: str
    error: str


AnyCase = TypeVar("AnyCase", Case, StoredName)


def facts_or_failure(case: AnyCase, read: Callable[[AnyCase], CaseFacts]) -> CaseFacts | FailedCase:
    """The facts that ``read`` returns, or the error that the user has to correct."""
    try:
        return read(case)
    except UserError as error:
        return FailedCase(case.case_id, case.split, str(error))


def scan_facts(case: Case) -> CaseFacts:
    """Facts of a CT and its mask, read slab by slab. Raises UserError."""
    scan = open_scan(ScanSource(case.image_path, case.case_id))
    check_grids(case, scan)
    pairs = zip(scan.slabs(), label_slabs(case), strict=True)
    counts = _count((image_hu, label) for (_, image_hu), (_, label) in pairs)
    has_centroids = case.centroid_path is not None
    return _facts(case, case.patient, has_centroids, scan.shape, scan.affine, scan.affine, counts)


def stored_facts(name: StoredName, h5_path: Path) -> CaseFacts:
    """Facts of a case in an H5, read one row of chunks at a time. Raises UserError.

    The grid is that of the original scan. HU and volumes are computed from the stored arrays without their padding. In
    an H5 for heatmaps, whose voxels are several millimetres wide, HU are smoothed and volumes are approximate.
    """
    store = H5Cases(h5_path)
    case = store.case(name.split, name.case_id)
    counts = _count(_stored_slabs(store, name, case.grid.inside_source))
    grid = case.grid
    return _facts(name, case.patient, None, grid.source_shape, grid.source_affine, grid.affine, counts)


def _stored_slabs(
    store: H5Cases, name: StoredName, inside: tuple[slice, slice, slice]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    x, y, z = inside
    for first in range(0, x.stop, CHUNK_EDGE):
        start, stop = max(first, x.start), min(first + CHUNK_EDGE, x.stop)
        if start < stop:
            yield store.read(*name, (slice(start, stop), y, z))


class _Counts(NamedTuple):
    """Numbers of voxels: of each int16 value of HU in bone and outside (65536,), of each label (29,)."""

    in_bone: np.ndarray
    outside: np.ndarray
    of_label: np.ndarray


def _count(slabs: Iterable[tuple[np.ndarray, np.ndarray]]) -> _Counts:
    """Count in slabs of (int16 HU, uint8 label) of any shape."""
    everywhere, in_bone = np.zeros((2, _INT16_VALUES), np.int64)
    of_label = np.zeros(T13 + 1, np.int64)
    for image_hu, label in slabs:
        everywhere += count_hu(image_hu)
        in_bone += count_hu(image_hu[label > 0])
        of_label += np.bincount(label.reshape(-1), minlength=T13 + 1)
    return _Counts(in_bone, everywhere - in_bone, of_label)


def _histogram(counts: np.ndarray) -> list[int]:
    first, last = ((edge - _INT16.min) // BIN_HU for edge in (FIRST_EDGE_HU, LAST_EDGE_HU))
    bins = counts.reshape(-1, BIN_HU).sum(axis=1)
    inner = bins[first:last].copy()
    inner[0] += bins[:first].sum()
    inner[-1] += bins[last:].sum()
    return [int(n) for n in inner]


def _facts(
    case: Case | StoredName,
    patient: str,
    has_centroids: bool | None,
    scan_shape: tuple[int, int, int],
    scan_affine: np.ndarray,
    counted_affine: np.ndarray,
    counts: _Counts,
) -> CaseFacts:
    size_vox, spacing_mm = ras_shape_and_spacing(scan_shape, scan_affine)
    voxel_ml = float(abs(np.linalg.det(counted_affine[:3, :3]))) / 1000
    seen = [label for label in ANATOMICAL_ORDER if counts.of_label[label]]
    return CaseFacts(
        case_id=case.case_id,
        patient=patient,
        split=case.split,
        has_centroids=has_centroids,
        orientation="".join(nib.aff2axcodes(scan_affine)),
        size_vox=[int(n) for n in size_vox],
        spacing_mm=[round(float(mm), 4) for mm in spacing_mm],
        field_of_view_mm=[round(float(mm), 1) for mm in size_vox * spacing_mm],
        volume_ml={VERTEBRA_NAMES[n]: round(float(counts.of_label[n]) * voxel_ml, 2) for n in seen},
        hu_in_bone=HuFacts.of_counts(counts.in_bone),
        hu_outside=HuFacts.of_counts(counts.outside),
        not_hu=why_not_hu(counts.in_bone + counts.outside),
    )


def histograms(cases: Sequence[CaseFacts], place: str) -> dict[str, list[int]]:
    """Histograms of ``hu_in_bone`` or ``hu_outside``, summed over the cases of each split that has any."""
    sums = {}
    for split in SPLITS:
        members = [getattr(case, place) for case in cases if case.split == split]
        if counted := [facts.histogram for facts in members if facts]:
            sums[split] = [int(n) for n in np.sum(counted, axis=0)]
    return sums
