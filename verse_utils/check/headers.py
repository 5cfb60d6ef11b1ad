"""Checks of a case's headers: quick, as no voxel is read."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from verse_utils.cases import Case
from verse_utils.check.findings import CaseReport
from verse_utils.errors import GridError
from verse_utils.images import (
    CORNER_TOLERANCE_VOX,
    OnGrid,
    check_grids,
    check_slice_counts,
    corner_distance_mm,
    lacks_orientation,
    open_image,
)

# A vertebra is about 25 mm high; coarser voxels show none.
MOST_SPACING_MM = 25.0
# A scan of the whole body is 2 m long, which is 2 mm for whoever wrote metres into the header.
MOST_EXTENT_MM, LEAST_EXTENT_MM = 2500.0, 2.5
# Preprocessing takes the axes for perpendicular; an error of 5° moves the end of a 200 mm scan by 17 mm.
MOST_SHEAR_DEGREES = 5.0

_REPAIR = "repair the header, or export the scan again"


def check_headers(case: Case) -> tuple[CaseReport, Any]:
    """Check the headers of a case's files, and that these are as long as they say.

    Returns:
        What was found; and the opened CT, None where it is no image.
    """
    report, image = CaseReport(case.case_id, case.split), None
    with report.catching():
        image = open_image(case.image_path)
        check_ct_grid(image, case.image_path)
        if sheared := shear(image, case.image_path):
            raise GridError(f"{sheared}; resample the scan and its mask to a grid with right angles")
        if lacks_orientation(image):
            report.remark("grid", guessed_orientation(case.image_path))
        if disagreeing := two_grids(image, case.image_path):
            report.remark("grid", disagreeing)
        check_grids(case, image)
    return report, image


def check_ct_grid(image: OnGrid, path: Path) -> None:
    """Raise GridError where no spine can be seen on a CT's grid."""
    check_slice_counts(image.shape, path)
    spacing_mm = nib.affines.voxel_sizes(image.affine)
    extent_mm = spacing_mm * image.shape
    for axis, spacing, extent in zip("IJK", spacing_mm, extent_mm, strict=True):
        if spacing > MOST_SPACING_MM:
            raise GridError(f"{path}: spacing of {spacing:.5g} mm along {axis}, too coarse for a spine; {_REPAIR}")
        if not LEAST_EXTENT_MM <= extent <= MOST_EXTENT_MM:
            raise GridError(f"{path}: covers {extent:.4g} mm along {axis}, which is no CT of a trunk; {_REPAIR}")


def grid_warnings(image: Any, path: Path) -> list[str]:
    """What should be known of a grid that can be used, a line each."""
    lines = [guessed_orientation(path)] if lacks_orientation(image) else []
    return [*lines, *(line for line in (two_grids(image, path), shear(image, path)) if line)]


def two_grids(image: Any, path: Path) -> str | None:
    """What is said of a NIfTI whose sform and qform put its corners elsewhere, as readers take one or the other."""
    header = image.header
    if not isinstance(header, nib.Nifti1Header) or not (header["sform_code"] > 0 and header["qform_code"] > 0):
        return None
    try:
        by_qform = header.get_qform()
    except (nib.spatialimages.HeaderDataError, ValueError):  # a quaternion that is none
        return f"{path}: its qform is damaged; the sform is taken, others take the qform"
    with np.errstate(all="ignore"):
        off_mm = corner_distance_mm(image.shape, image.affine, by_qform)
    if off_mm <= CORNER_TOLERANCE_VOX * float(np.min(nib.affines.voxel_sizes(image.affine))):
        return None
    return f"{path}: its sform and qform lie up to {off_mm:.1f} mm apart; the sform is taken, others take the qform"


def shear(image: OnGrid, path: Path) -> str | None:
    """What is said of a grid whose axes are not at right angles; None where they are, within some degrees."""
    directions = image.affine[:3, :3] / nib.affines.voxel_sizes(image.affine)
    cosines = {(a, b): float(directions[:, a] @ directions[:, b]) for a, b in combinations(range(3), 2)}
    (a, b), cosine = max(cosines.items(), key=lambda item: abs(item[1]))
    degrees = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    if abs(degrees - 90) <= MOST_SHEAR_DEGREES:
        return None
    return f"{path}: sheared, its axes {'IJK'[a]} and {'IJK'[b]} meet at {degrees:.0f}°"


def guessed_orientation(path: Path) -> str:
    """What is said of a scan with neither sform nor qform."""
    return f"{path}: has neither sform nor qform, so that left and right are a guess; export it again with one"
