"""What can be told of a mask by its voxels and its grid."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from utils.geometry.boxes import mask_box


def mask_facts(mask: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    """Volumes and extents, in JSON's types.

    Args:
        mask: (I, J, K) uint8, 0 where nothing was found.
        affine: (4, 4), to RAS mm.

    Returns:
        ``spacing_mm`` along I, J, K; ``volume_ml`` and ``volume_ml_of_label`` for each label; ``extent_mm`` of the box
        around the mask along X (left–right), Y (back–front) and Z (up), or None where it is empty.
    """
    spacing_mm = nib.affines.voxel_sizes(affine)
    voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    # Plane by plane: bincount makes eight bytes of each voxel.
    counts = np.sum([np.bincount(plane.reshape(-1), minlength=256) for plane in mask], axis=0)
    extent_mm = None
    if (box := mask_box(mask)) is not None:
        sides_mm = (box.stop - box.start) * spacing_mm
        axes_of_ras = nib.io_orientation(affine)[:, 0].astype(int)
        extent_mm = {"XYZ"[ras]: round(float(mm), 1) for ras, mm in zip(axes_of_ras, sides_mm, strict=True)}
    return {
        "spacing_mm": [round(float(mm), 4) for mm in spacing_mm],
        "volume_ml": round(float(counts[1:].sum()) * voxel_ml, 2),
        "volume_ml_of_label": {str(n): round(float(c) * voxel_ml, 2) for n, c in enumerate(counts) if n and c},
        "extent_mm": extent_mm,
    }
