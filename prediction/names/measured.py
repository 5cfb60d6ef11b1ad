"""What is measured of a vertebra's body."""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np

from prediction.working_image import WorkingImage
from utils.geometry.body_centres import body_centre
from utils.geometry.boxes import Box

# The cylinder around a body's axis, and the ball around its centre.
_AXIS_MM, _CORE_MM = 8.0, 7.0


class MeasuredBody(NamedTuple):
    """A vertebra's body: its centre in RAS, its height along the spine, and the mean HU around its centre.

    The last two are None where nothing of the mask lies there.
    """

    centre_mm: tuple[float, float, float]
    height_mm: float | None
    core_hu: float | None


def measure_body(own: np.ndarray, box: Box, axis_mm: np.ndarray, image: WorkingImage) -> MeasuredBody:
    """Measure the body of a vertebra.

    Args:
        own: its mask (x, y, z) bool in a box, not empty.
        box: of the image's voxels.
        axis_mm: (3,) along the spine, of any length.
        image: on the network's grid.
    """
    grid = image.grid
    body_vox = body_centre(own, grid.spacing_mm)
    offsets_mm = (np.argwhere(own) - body_vox) @ grid.affine[:3, :3].T
    along_mm = offsets_mm @ axis_mm / np.linalg.norm(axis_mm)
    distance_mm = np.linalg.norm(offsets_mm, axis=1)
    is_body = distance_mm**2 - along_mm**2 <= _AXIS_MM**2
    height_mm = round(float(np.ptp(along_mm[is_body])) + float(grid.spacing_mm[0]), 1) if is_body.any() else None
    core = image.hu[box.slices][own][distance_mm <= _CORE_MM]
    x, y, z = (round(float(value), 2) for value in nib.affines.apply_affine(grid.affine, body_vox + box.start))
    return MeasuredBody((x, y, z), height_mm, round(float(core.mean()), 1) if core.size else None)
