"""Labels on the voxels of another mask, where these are stored in another order or lie on another grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from utils.geometry.resampling import nearest_voxel
from verse_utils.errors import GridError
from verse_utils.images import OnGrid, check_same_grid


@dataclass(frozen=True)
class _Grid:
    """A grid alone, without values."""

    shape: tuple[int, ...]
    affine: np.ndarray


def match_grid(
    labels: np.ndarray, predicted: OnGrid, reference: OnGrid, paths: tuple[Path, Path], resample: bool
) -> np.ndarray:
    """Labels on the grid of a reference mask.

    The same voxels in another order of the axes, as tools store them that turn scans to RAS or LPS, only change places.

    Args:
        labels: (I, J, K) of the prediction.
        predicted: the prediction's grid.
        reference: the reference mask's grid.
        paths: of the prediction and the reference mask, for messages.
        resample: on any other grid, each voxel of the reference mask gets the label of the nearest voxel, 0 outside.

    Returns:
        The labels, of the reference mask's shape and the prediction's dtype.

    Raises:
        GridError: another grid, and it isn't to be resampled; or the two share no space.
    """
    turns = nib.orientations.ornt_transform(*map(nib.io_orientation, (predicted.affine, reference.affine)))
    turned: np.ndarray = nib.orientations.apply_orientation(labels, turns)
    grid = _Grid(turned.shape, predicted.affine @ nib.orientations.inv_ornt_aff(turns, labels.shape))
    try:
        remedy = "give --resample, which takes the nearest voxel's label"
        check_same_grid(reference, grid, paths[1], paths[0], "the reference mask", remedy)
    except GridError:
        if not resample:
            raise
        return _nearest(labels, predicted, reference, paths)
    return turned


def _nearest(labels: np.ndarray, predicted: OnGrid, reference: OnGrid, paths: tuple[Path, Path]) -> np.ndarray:
    """The label at the centre of each voxel of the reference mask, slice by slice along its last axis."""
    to_predicted = np.linalg.inv(predicted.affine) @ reference.affine
    found = np.zeros(reference.shape, labels.dtype)
    columns = np.indices(reference.shape[:2]).reshape(2, -1)
    is_shared = False
    for k in range(reference.shape[2]):
        indices = np.vstack([columns, np.full(columns.shape[1], k)])
        nearest = nearest_voxel(nib.affines.apply_affine(to_predicted, indices.T))
        inside: np.ndarray = np.all((nearest >= 0) & (nearest < labels.shape), axis=1)
        found[..., k][inside.reshape(reference.shape[:2])] = labels[tuple(nearest[inside].T)]
        is_shared |= bool(inside.any())
    if not is_shared:
        raise GridError(f"{paths[0]}: shares no space with the reference mask {paths[1]}; give masks of one scan")
    return found
