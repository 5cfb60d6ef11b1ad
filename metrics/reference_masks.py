"""Which reference mask in a folder belongs to a scan or to a prediction, by the names of the files."""

from __future__ import annotations

import re
from pathlib import Path

from utils.files.find_scans import IMAGE_ENDING
from verse_utils.errors import UserError
from verse_utils.files.walk import files_below

_ENDING = re.compile(r"\.nii(\.gz)?\Z", re.IGNORECASE)
# What VerSe and others append to a case's name: sub-verse008_ct.nii.gz, sub-verse008_seg-vert_msk.nii.gz.
_ROLE = re.compile(r"(_(ct|image|img|0000|seg-vert_msk|seg|msk|mask|label|vertebrae))+\Z", re.IGNORECASE)
_NO_MASK = re.compile(r"_(ct|image|img|0000|probabilities)\Z", re.IGNORECASE)


def find_reference_mask(path: Path, folder: Path) -> Path:
    """The reference mask of a scan, or of a prediction, in a folder, at any depth.

    Its name is that of the file, apart from endings such as ``_ct`` and ``_seg``.

    Raises:
        UserError: there is not exactly one.
    """
    case = case_name(path)
    own = path.resolve()
    masks = [mask for mask in find_masks(folder) if case_name(mask) == case and mask.resolve() != own]
    if len(masks) != 1:
        names = ", ".join(mask.name for mask in masks)
        found = f"{len(masks)} reference masks ({names})" if masks else "no reference mask"
        raise UserError(f"{path}: {found} of {case} in {folder}; name it {case}_mask.nii.gz")
    return masks[0]


def find_masks(folder: Path) -> list[Path]:
    """NIfTI files in a folder, as ``walk`` finds them, that aren't named as images or probabilities; sorted."""
    paths = [path for path in sorted(files_below(folder)) if _ENDING.search(path.name)]
    return [path for path in paths if not _NO_MASK.search(_ENDING.sub("", path.name))]


def case_name(path: Path) -> str:
    """A file's name without the endings that say what it holds: sub-verse008 of sub-verse008_ct_vertebrae.nii.gz."""
    return _ROLE.sub("", IMAGE_ENDING.sub("", path.name))
