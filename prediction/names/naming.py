"""Step 5 of a whole scan: the mask's voxels get the labels of the vertebrae, which are measured.

VerSe's labels are those of the localiser's names; ``prediction.names.single`` found the mask of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prediction.names.column import Vertebra, missed_levels
from prediction.names.measured import MeasuredBody, measure_body
from prediction.predicted_volumes import PredictedVolumes
from prediction.working_image import WorkingImage
from utils.constants import SLAB_SLICES
from utils.geometry.working_grid import WorkingGrid
from verse_utils.labels import VERTEBRA_NAMES

if TYPE_CHECKING:
    import h5py

# Vertebrae whose names only their neighbours tell are taken where the mask holds so much of them.
_LEAST_ML = 1.0


@dataclass(frozen=True)
class NamedVertebra:
    """A vertebra of a mask.

    Attributes:
        label: VerSe's.
        name: such as L1.
        volume_ml: of the mask; 0 where it holds nothing of it.
        centre_mm: of its body, in RAS.
        height_mm: of its body along the spine, C2's with the dens; None of C1, which has none, and without mask.
        core_hu: mean around the centre of its body; None without mask, or where C1's lies within its ring.
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
        label, volume_ml = vertebra.label, float(counts[vertebra.label] * voxel_ml)
        if not vertebra.confidence and volume_ml < _LEAST_ML:
            continue
        x, y, z = (round(float(value), 2) for value in vertebra.centre_mm)
        body = MeasuredBody((x, y, z), None, None)
        if (box := volumes.boxes.get(label)) is not None and (own := labels[box.slices] == label).any():
            body = measure_body(own, box, axis_mm, image)
        height_mm = body.height_mm if label > 1 else None
        facts = round(volume_ml, 2), body.centre_mm, height_mm, body.core_hu, label in cut
        found.append(NamedVertebra(label, vertebra.name, *facts, round(vertebra.confidence, 3)))
    left_out_ml = volumes.left_out_vox * abs(np.linalg.det(image.grid.affine[:3, :3])) / 1000
    return found, _warnings(found, left_out_ml)


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


def _warnings(found: Sequence[NamedVertebra], left_out_ml: float) -> list[str]:
    """What users should know of the names."""
    told = []
    if not found:
        told.append("no vertebra was named by the localiser")
    if left_out_ml >= _LEAST_ML:
        told.append(f"{left_out_ml:.1f} ml that look like vertebrae but have no place in the sequence were left out")
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
