"""Step 1 of a whole scan: where the spine lies."""

from __future__ import annotations

import torch
from scipy.ndimage import distance_transform_edt

from metrics.heatmap_metrics import spine_in_heatmap
from prediction.names.spine import Spine, spine_of_names
from prediction.trained_model import TrainedModel
from utils.files.scans import Scan
from utils.files.scratch import return_freed_memory
from utils.files.straight_scan import StraightScan
from utils.geometry.working_grid import WorkingGrid


def locate_spine(scan: Scan | StraightScan, localiser: TrainedModel, margin_mm: float) -> Spine:
    """Find the spine in a coarse view of the whole scan. Where the localiser is in doubt, it may be anywhere.

    Args:
        scan: read in one pass, slab by slab.
        localiser: a network for heatmaps.
        margin_mm: kept around the spine.
    """
    view = WorkingGrid.view(scan.shape, scan.affine, localiser.spec.input_shape)
    view_hu = view.forward_slabs(scan.slabs(), localiser.scaling.air_hu)
    # 27 heatmaps take much memory. Their values between 0 and 1 are known to a two-thousandth in 16 bits.
    dtype = torch.float16 if localiser.names_vertebrae else torch.float32
    heatmaps_KXYZ = localiser.predict_window(localiser.scaled(view_hu)[:, :, :, :], dtype=dtype).numpy()
    return_freed_memory()
    usual = localiser.confidence
    if localiser.names_vertebrae:
        return spine_of_names(view, heatmaps_KXYZ[1:], localiser.steps_mm, usual, margin_mm)
    mask, confidence = spine_in_heatmap(heatmaps_KXYZ[0], view.spacing_mm.tolist())
    around = distance_transform_edt(~mask, sampling=view.spacing_mm) <= margin_mm if mask.any() else mask
    return Spine(view, around, confidence=confidence, usual_confidence=usual)
