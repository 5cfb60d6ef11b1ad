"""The list of named vertebrae: their centres in VerSe's form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import nibabel as nib
import numpy as np

from verse_utils.centroids import Centroids, write_centroids
from verse_utils.files.writing import written_aside


class Named(Protocol):
    """A vertebra with VerSe's label and its centre in RAS mm."""

    @property
    def label(self) -> int: ...

    @property
    def centre_mm(self) -> Sequence[float]: ...


def write_names(vertebrae: Sequence[Named], affine: np.ndarray, path: Path) -> None:
    """Write the centres of vertebrae as VerSe's ``*_ctd.json``, in voxels of the mask that lies beside it.

    Args:
        vertebrae: from head to foot.
        affine: (4, 4) of the mask, to RAS mm.
        path: of the list.
    """
    to_voxels = np.linalg.inv(affine)
    points_vox = {one.label: nib.affines.apply_affine(to_voxels, one.centre_mm) for one in vertebrae}
    with written_aside(path) as aside:
        write_centroids(aside, Centroids(nib.aff2axcodes(affine), points_vox))
