"""Results scored by true masks that lie in a folder."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np

from metrics.metric_handler import MASK_METRICS, MetricHandler
from utils.scans import Scan, ScanSource
from verse_utils.errors import UserError
from verse_utils.images import check_same_grid, open_image, read_mask

_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
# What VerSe and others append to a case's name: sub-verse008_ct.nii.gz, sub-verse008_seg-vert_msk.nii.gz.
_ROLE = re.compile(r"(_(ct|image|img|0000|seg-vert_msk|seg|msk|mask|label|vertebrae))+$", re.IGNORECASE)
_NO_MASK = re.compile(r"_(ct|image|img|0000|probabilities)$", re.IGNORECASE)


def score_scan(mask: np.ndarray, scan: Scan, path: Path) -> dict[str, float]:
    """Score a mask by the true one of its scan, both taken as "vertebra or not", in mm on the scan's own grid.

    Args:
        mask: (I, J, K) uint8.
        scan: that it was found in.
        path: of the true mask.

    Raises:
        UserError: no mask, or one on another grid.
    """
    check_same_grid(scan, open_image(path), scan.path, path)
    handler = MetricHandler(MASK_METRICS)
    spacing_mm = nib.affines.voxel_sizes(scan.affine)
    handler.update(scan.path.name, prediction=mask, target=read_mask(path), spacing_mm=spacing_mm)
    return {name: value for name, value in handler.rows[0].items() if isinstance(value, float)}


def find_true_mask(source: ScanSource, folder: Path) -> Path:
    """The mask of a scan, or of a prediction, in a folder, at any depth.

    Its name is that of the scan, apart from endings as ``_ct`` and ``_seg``.

    Raises:
        UserError: there is not exactly one.
    """
    case = case_name(source.path)
    own = source.path.resolve()
    masks = [path for path in find_masks(folder) if case_name(path) == case and path.resolve() != own]
    if len(masks) != 1:
        found = "no true mask" if not masks else f"{len(masks)} true masks ({', '.join(p.name for p in masks)})"
        raise UserError(f"{source.path}: {found} of {case} in {folder}; name it {case}_mask.nii.gz")
    return masks[0]


def find_masks(folder: Path) -> list[Path]:
    """NIfTI files in a folder, at any depth, that aren't named as images or probabilities; sorted."""
    paths = [path for path in sorted(folder.rglob("[!.]*")) if _ENDING.search(path.name)]
    return [path for path in paths if not _NO_MASK.search(_ENDING.sub("", path.name))]


def case_name(path: Path) -> str:
    """A file's name without what tells its role: sub-verse008 of sub-verse008_ct_vertebrae.nii.gz."""
    return _ROLE.sub("", _ENDING.sub("", path.name))
