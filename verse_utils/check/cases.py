"""All checks of a case, and of cases among each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from verse_utils.cases import Case
from verse_utils.check.findings import CaseReport
from verse_utils.check.headers import check_headers
from verse_utils.check.voxels import SLAB_SLICES, VoxelChecks
from verse_utils.errors import UserError
from verse_utils.images import hu_slabs, label_slabs
from verse_utils.names import SPLITS, is_same_scan


def check_case(case: Case) -> CaseReport:
    """Check a case's headers and, unless these are at fault, its voxels, read slab by slab to the end of both files."""
    report, image = check_headers(case)
    if report.faults:
        return report
    with report.catching():
        checks = VoxelChecks(case, image.shape, image.affine)
        for _ in checks.image(hu_slabs(image, case.image_path, thickness=SLAB_SLICES)):
            pass
        for _ in checks.label(label_slabs(case, SLAB_SLICES)):
            pass
        checks.conclude(report)
    return report


def check_all(cases: Sequence[Case], workers: int) -> Iterator[CaseReport]:
    """Reports of cases, as they are done. Raises UserError where a worker is killed."""
    if workers == 1 or len(cases) <= 1:
        yield from map(check_case, cases)
        return
    with ProcessPoolExecutor(min(workers, len(cases)), mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(check_case, case) for case in cases]):
                yield future.result()
        except BrokenProcessPool:
            raise UserError(f"a worker was killed (out of memory?); lower --workers, now {workers}") from None


def find_duplicates(reports: Iterable[CaseReport]) -> None:
    """Find cases whose scans hold the same voxels: a fault where they are in two splits, as scores would be too good.

    What can't be used then are the copies in training, and in validation where the test split has one. Scans that the
    editions of VerSe share are no fault: ``list_cases`` takes one of each.
    """
    same: dict[str, list[CaseReport]] = defaultdict(list)
    for report in reports:
        if report.voxel_digest is not None:
            same[report.voxel_digest].append(report)
    for twins in same.values():
        for report in twins:
            others = [twin for twin in twins if twin is not report]
            names, own = ", ".join(twin.name for twin in others), SPLITS.index(report.split)
            later = [twin for twin in others if SPLITS.index(twin.split) > own]
            if any(not is_same_scan(report.case_id, twin.case_id) for twin in later):
                report.fault("duplicates", f"the same scan as {names}; give both one split, or leave one out")
            elif others:
                report.remark("duplicates", f"the same scan as {names}; leave all but one out with --exclude")
