"""Steps 2 and 4 of a whole scan: to the network's grid, and back to the scan's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from prediction.names.single import box_of_windows
from prediction.names.spine import Spine
from prediction.options import Options
from prediction.probabilities import class_indices, of_foreground
from prediction.sliding_window import Windows
from prediction.trained_model import TrainedModel
from utils.files.scans import Scan
from utils.files.scratch import Scratch, return_freed_memory
from utils.files.straight_scan import StraightScan
from utils.geometry.working_grid import WorkingGrid

if TYPE_CHECKING:
    import h5py


@dataclass(frozen=True)
class WorkingImage:
    """A part of a scan on the network's grid.

    Attributes:
        region: stored voxels (I, J, K) that it covers.
        grid: over that region.
        windows: over it, and which of them the network sees; None of a segmenter of single vertebrae.
        hu: (X, Y, Z) int16, on disk.
    """

    region: tuple[slice, slice, slice]
    grid: WorkingGrid
    windows: Windows | None
    hu: h5py.Dataset


def read_working_image(
    scan: Scan | StraightScan, segmenter: TrainedModel, spine: Spine | None, options: Options, scratch: Scratch
) -> WorkingImage:
    """Read what the windows on the spine see.

    Windows lie where they would lie for the whole scan. Those in whose middle the spine lies are chosen. A segmenter of
    single vertebrae has a window for each of the spine's.

    Args:
        scan: read in one pass, slab by slab.
        segmenter: whose grid, windows and air are taken.
        spine: of ``locate_spine``; None for the whole scan.
        options: how much windows overlap, and the margin around single vertebrae.
        scratch: holds the voxels.
    """
    grid = WorkingGrid.isotropic(scan.shape, scan.affine, segmenter.spacing_mm)
    window_shape = segmenter.spec.input_shape
    windows = None
    if spine is not None and segmenter.finds_single_vertebrae:
        centres_vox = nib.affines.apply_affine(np.linalg.inv(grid.affine), np.reshape(spine.centres_mm(), (-1, 3)))
        box = box_of_windows(centres_vox, options.margin_mm, window_shape, segmenter.spacing_mm, grid.shape)
    else:
        windows = Windows.cover(grid.shape, window_shape, options.overlap, segmenter.overhang_vox)
        if spine is not None:
            windows = windows.where(lambda middle: spine.may_touch(grid, middle))
        windows, box = windows.in_box()
    region = grid.source_region(box, margin_mm=2 * segmenter.spacing_mm)  # for smoothing at its edges
    part, air_hu = grid.part(box, region), segmenter.scaling.air_hu
    image_hu = scratch.volume("hu", part.shape, np.int16, air_hu)
    for where, part_hu in part.forward_parts(scan.slabs(region), air_hu):
        image_hu[where] = part_hu
    return WorkingImage(region, part, windows, image_hu)


def empty_volume(shape: tuple[int, int, int], dtype: type) -> np.ndarray:
    """(I, J, K) zeros in Fortran's order: a slab along K, as scans are read and written, is one piece of memory."""
    return np.zeros(shape, dtype, order="F")


def bring_to_scan(
    probabilities: Sequence[h5py.Dataset],
    image: WorkingImage,
    mask_values: Sequence[int],
    mask: np.ndarray,
    foreground: np.ndarray | None,
) -> None:
    """Fill the searched region of a mask and, where given, of probabilities of foreground, slab by slab.

    Classes are decided on the scan's grid, from interpolated probabilities: edges are smooth on fine grids.

    Args:
        probabilities: (X, Y, Z) of each channel, on the grid of the image.
        image: of a region of the scan.
        mask_values: what the mask holds for each class, the background first.
        mask: (I, J, K) uint8 of the whole scan.
        foreground: (I, J, K) float32 of the whole scan, or None.
    """
    values = np.array(mask_values, np.uint8)
    for slabs in zip(*map(image.grid.undo_slabs, probabilities), strict=True):
        first, slab = slabs[0]
        where = (..., slice(first, first + slab.shape[-1]))
        classes_KkJI = np.stack([slab.T for _, slab in slabs])  # turned, as it lies in memory: nothing has to be sorted
        mask[image.region][where] = values[class_indices(classes_KkJI)].T
        if foreground is not None:
            foreground[image.region][where] = of_foreground(classes_KkJI).T
        return_freed_memory()
