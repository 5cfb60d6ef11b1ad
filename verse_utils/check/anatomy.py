"""Checks of a case's vertebrae by what is known of a spine: the order of the levels, and the list of centroids."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import nibabel as nib
import numpy as np

from verse_utils.cases import Case
from verse_utils.centroids import Centroids, read_centroids
from verse_utils.check.findings import CaseReport
from verse_utils.errors import UserError
from verse_utils.labels import ANATOMICAL_ORDER, L6, T13, VERTEBRA_NAMES

# Centroids are those of bodies, 10 to 14 mm ahead of the middle of the vertebra's mask.
_MOST_CENTROID_OFFSET_MM = 40.0


def check_levels(report: CaseReport, case: Case, centres_mm: dict[int, np.ndarray]) -> None:
    """Remark levels that lie in another order than anatomy's, and levels that are missing between others."""
    seen = [label for label in ANATOMICAL_ORDER if label in centres_mm]
    for upper, lower in pairwise(seen):
        names = f"{VERTEBRA_NAMES[upper]} and {VERTEBRA_NAMES[lower]}"
        if centres_mm[upper][2] < centres_mm[lower][2]:
            report.remark("levels", f"{case.mask_path}: {names} lie in the wrong order from head to foot")
    for gap in missing_levels(seen):
        report.remark("levels", f"{case.mask_path}: {gap}")


def missing_levels(labels: Sequence[int]) -> list[str]:
    """The gaps in labels, which come in anatomical order, in words; T13 and L6, which few people have, never miss."""
    gaps = []
    for upper, lower in pairwise(labels):
        between = ANATOMICAL_ORDER[ANATOMICAL_ORDER.index(upper) + 1 : ANATOMICAL_ORDER.index(lower)]
        if missing := [VERTEBRA_NAMES[label] for label in between if label not in (T13, L6)]:
            gaps.append(f"{', '.join(missing)} missing between {VERTEBRA_NAMES[upper]} and {VERTEBRA_NAMES[lower]}")
    return gaps


def check_centroids(
    report: CaseReport, case: Case, shape: tuple[int, ...], affine: np.ndarray, centres_mm: dict[int, np.ndarray]
) -> None:
    """Remark a centroid list that can't be read, or does not fit its mask.

    Args:
        report: what is added to.
        case: its list of centroids is read, if it has one.
        shape: (I, J, K) of the scan.
        affine: (4, 4) of the scan, to RAS mm.
        centres_mm: middle of each label of the mask, in RAS mm.
    """
    if case.centroid_path is None:
        return
    try:
        centroids = read_centroids(case.centroid_path)
    except UserError as error:
        report.remark("centroids", str(error))
        return
    for words in _unfit_centroids(centroids, shape, affine, centres_mm):
        report.remark("centroids", f"{case.centroid_path}: {words}")


def _unfit_centroids(
    centroids: Centroids, shape: tuple[int, ...], affine: np.ndarray, centres_mm: dict[int, np.ndarray]
) -> list[str]:
    points_mm = {label: point for label, point in centroids.to_world(affine, shape).items() if label in VERTEBRA_NAMES}
    index = {label: nib.affines.apply_affine(np.linalg.inv(affine), point) for label, point in points_mm.items()}
    outside = [n for n, at in index.items() if not ((at >= -0.5) & (at <= np.array(shape) - 0.5)).all()]
    far = {
        label: float(np.linalg.norm(points_mm[label] - centres_mm[label]))
        for label in points_mm.keys() & centres_mm.keys()
        if label not in outside
    }
    far = {label: mm for label, mm in far.items() if mm > _MOST_CENTROID_OFFSET_MM}
    groups = {
        "outside of the scan": _names(outside),
        "of vertebrae that the mask lacks": _names(points_mm.keys() - centres_mm.keys() - set(outside)),
        "missing, though the mask has the vertebra": _names(centres_mm.keys() - points_mm.keys()),
        "far from the mask of its vertebra": ", ".join(f"{VERTEBRA_NAMES[n]} {far[n]:.0f} mm" for n in sorted(far)),
    }
    return [f"centroids {words}: {names}" for words, names in groups.items() if names]


def _names(labels: Collection[int]) -> str:
    return ", ".join(VERTEBRA_NAMES[label] for label in ANATOMICAL_ORDER if label in labels)
