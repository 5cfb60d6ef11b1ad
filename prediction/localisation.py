"""Step 1 of a whole scan: where the spine lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from metrics.heatmap_metrics import spine_in_heatmap
from prediction.trained_model import TrainedModel
from utils.files.scans import Scan
from utils.files.straight_scan import StraightScan
from utils.geometry.boxes import Box
from utils.geometry.working_grid import WorkingGrid


@dataclass(frozen=True)
class Spine:
    """Where the spine and a margin around it lie.

    Attributes:
        view: grid of a coarse view of the whole scan.
        mask: (X, Y, Z) bool on that grid; all False where no spine was found.
    """

    view: WorkingGrid
    mask: np.ndarray

    def touches(self, grid: WorkingGrid, box: Box) -> bool:
        """Whether a box of another grid's voxels over the same scan holds some of it."""
        return bool(self.mask[grid.box_in(self.view, box)].any())


def locate_spine(scan: Scan | StraightScan, localiser: TrainedModel, margin_mm: float) -> Spine:
    """Find the spine in a coarse view of the whole scan.

    Args:
        scan: read in one pass, slab by slab.
        localiser: a network for heatmaps.
        margin_mm: kept around the spine.
    """
    view = WorkingGrid.view(scan.shape, scan.affine, localiser.spec.input_shape)
    view_hu = view.forward_slabs(scan.slabs(), localiser.scaling.air_hu)
    mask = spine_in_heatmap(localiser.predict(view_hu)[0].numpy(), view.spacing_mm)
    if mask.any():
        mask = distance_transform_edt(~mask, sampling=view.spacing_mm) <= margin_mm
    return Spine(view, mask)
