"""Step 5 of a whole scan: the mask's voxels get the labels of the vertebrae, which are measured.

VerSe's labels are those of the localiser's names; ``prediction.names.single`` found the mask of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from prediction.names.column import Vertebra, missed_levels
from prediction.predicted_volumes import PredictedVolumes
from prediction.working_image import WorkingImage
from utils.constants import SLAB_SLICES
from utils.geometry.body_centres import body_centre
from utils.geometry.boxes import Box
from utils.geometry.working_grid import WorkingGrid
from verse_utils.labels import VERTEBRA_NAMES

if TYPE_CHECKING:
    import h5py

# Vertebrae whose names only their neighbours tell are taken where the mask holds so much of them.
_LEAST_ML = 1.0
# What is measured of a body: the cylinder around its axis, and the ball around its centre.
_AXIS_MM, _CORE_MM = 8.0, 7.0


@dataclass(frozen=True)
class NamedVertebra:
    """A vertebra of a mask.

    Attributes:
        label: VerSe's.
        name: such as L1.
        volume_ml: of the mask; 0 where it holds nothing of it.
        centre_mm: of its body, in RAS.
        height_mm: of its body along the spine; None of C1, which has none, and without mask.
        core_hu: mean around the centre of its body; None without mask.
        is_cut: whether it touches the scan's edge.
        confidence: value of the localiser's heatmap in [0, 1]; 0 where only the neighbours tell the name.
    """

    label: int
    name: str
    volume_ml: float
    centre_mm: tuple[float, float, float]
    height_mm: float | None
    core_hu: float | None
    is_cut: bool
    confidence: float


def name_mask(
    mask: np.ndarray, image: WorkingImage, volumes: PredictedVolumes
) -> tuple[list[NamedVertebra], list[str]]:
    """Replace a mask's foreground by VerSe's labels, in place, and those of the volumes outside of the mask by 0.

    Args:
        mask: (I, J, K) uint8 of the whole scan, 0 is background.
        image: that the network was given, on its own grid.
        volumes: of single vertebrae, on that grid.

    Returns:
        The vertebrae from head to foot, and warnings: what has no mask, and which levels are missing.
    """
    assert volumes.labels is not None
    labels = volumes.labels
    counts = _name_voxels(mask[image.region], image.grid, labels)
    for first in range(0, labels.shape[2], SLAB_SLICES):
        planes = slice(first, first + SLAB_SLICES)
        labels[..., planes] *= volumes.components[..., planes] > 0
    voxel_ml = abs(np.linalg.det(image.grid.source_affine[:3, :3])) / 1000
    cut = {label for face in _faces(mask) for label in np.flatnonzero(np.bincount(face.reshape(-1))).tolist()}
    vertebrae = volumes.vertebrae
    axes_mm = np.tile([0.0, 0.0, 1.0], (len(vertebrae), 1))
    if len(vertebrae) > 1:
        axes_mm = np.gradient([one.centre_mm for one in vertebrae], axis=0)
    found = []
    for vertebra, axis_mm in zip(vertebrae, axes_mm, strict=True):
        volume_ml = float(counts[vertebra.label] * voxel_ml)
        if vertebra.confidence or volume_ml >= _LEAST_ML:
            measured = _measure(vertebra, volumes.boxes.get(vertebra.label), axis_mm, labels, image)
            is_cut, confidence = vertebra.label in cut, round(vertebra.confidence, 3)
            found.append(
                NamedVertebra(vertebra.label, vertebra.name, round(volume_ml, 2), *measured, is_cut, confidence)
            )
    return found, _warnings(found)


def _name_voxels(part: np.ndarray, grid: WorkingGrid, labels: h5py.Dataset) -> np.ndarray:
    """Name a mask's foreground slab by slab; returns the voxels of each label (256,)."""
    counts = np.zeros(256, np.int64)
    for first, slab in grid.undo_nearest_slabs(labels):
        where = (..., slice(first, first + slab.shape[2]))
        is_bone = part[where] > 0
        found = slab[is_bone]
        part[where][is_bone] = found
        counts += np.bincount(found, minlength=256)
    return counts


def _faces(mask: np.ndarray) -> list[np.ndarray]:
    """The outermost planes of a volume."""
    return [np.moveaxis(mask, axis, 0)[end] for axis in range(3) for end in (0, -1)]  # np.take would copy all of it


def _measure(
    vertebra: Vertebra,
    box: Box | None,
    axis_mm: np.ndarray,
    labels: h5py.Dataset,
    image: WorkingImage,
) -> tuple[tuple[float, float, float], float | None, float | None]:
    """Centre in mm, height in mm and HU of a vertebra's body; without mask, the centre of the localiser alone."""
    grid = image.grid
    x, y, z = (round(float(value), 2) for value in vertebra.centre_mm)
    own = None if box is None else labels[box.slices] == vertebra.label
    if box is None or own is None or not own.any():
        return (x, y, z), None, None
    body_vox = body_centre(own, grid.spacing_mm)
    axes = grid.affine[:3, :3]
    offsets_mm = (np.argwhere(own) - body_vox) @ axes.T
    along_mm = offsets_mm @ axis_mm / np.linalg.norm(axis_mm)
    distance_mm = np.linalg.norm(offsets_mm, axis=1)
    is_body = distance_mm**2 - along_mm**2 <= _AXIS_MM**2
    height_mm = None
    if vertebra.label > 1 and is_body.any():
        height_mm = round(float(np.ptp(along_mm[is_body])) + float(grid.spacing_mm[0]), 1)
    core = image.hu[box.slices][own][distance_mm <= _CORE_MM]
    x, y, z = (round(float(value), 2) for value in nib.affines.apply_affine(grid.affine, body_vox + box.start))
    return (x, y, z), height_mm, round(float(core.mean()), 1) if core.size else None


def _warnings(found: Sequence[NamedVertebra]) -> list[str]:
    """What users should know of the names."""
    told = []
    if not found:
        told.append("no vertebra was named by the localiser; the mask is empty")
    named_only = [one.name for one in found if one.volume_ml == 0]
    if named_only:
        told.append(f"named by the localiser, but not in the mask: {', '.join(named_only)}")
    by_neighbours = [one.name for one in found if one.confidence == 0]
    if by_neighbours:
        told.append(f"named by their neighbours alone: {', '.join(by_neighbours)}")
    missed = missed_levels([Vertebra(one.label, np.array(one.centre_mm), one.confidence) for one in found])
    if missed:
        told.append(f"not found between others: {', '.join(VERTEBRA_NAMES[label] for label in missed)}")
    return told
