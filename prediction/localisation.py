"""Step 1 of a whole scan: where the spine lies."""

from __future__ import annotations

from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from scipy.ndimage import distance_transform_edt

from metrics.heatmap_metrics import spine_in_heatmap
from prediction.names.column import Steps, Vertebra, find_candidates, name_vertebrae
from prediction.trained_model import TrainedModel
from utils.files.scans import Scan
from utils.files.straight_scan import StraightScan
from utils.geometry.boxes import Box
from utils.geometry.working_grid import WorkingGrid

# A candidate with a lower value in its heatmap is noise, unless the sequence of the names takes it.
_SURE_SCORE = 0.3
# No part of a vertebra lies farther from the centre of its body: spinous processes of the loins end 70 mm behind it.
_REACH_MM = 75.0


@dataclass(frozen=True)
class Spine:
    """Where the spine and a margin around it lie.

    Attributes:
        view: grid of a coarse view of the whole scan.
        mask: (X, Y, Z) bool on that grid; all False where no spine was found.
        vertebrae: their names and centres from head to foot, if the localiser names them.
        steps: distances between neighbours that it learnt.
    """

    view: WorkingGrid
    mask: np.ndarray
    vertebrae: list[Vertebra] = field(default_factory=list)
    steps: Steps = field(default_factory=lambda: Steps.learn([]))

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
    heatmaps_KXYZ = localiser.predict(view_hu).numpy()
    if localiser.names_vertebrae:
        return _locate_by_names(view, heatmaps_KXYZ[1:], Steps.from_json(localiser.steps_mm), margin_mm)
    mask = spine_in_heatmap(heatmaps_KXYZ[0], view.spacing_mm.tolist())
    if mask.any():
        mask = distance_transform_edt(~mask, sampling=view.spacing_mm) <= margin_mm
    return Spine(view, mask)


def _locate_by_names(view: WorkingGrid, heatmaps_KXYZ: np.ndarray, steps: Steps, margin_mm: float) -> Spine:
    """The spine is what lies within reach of a vertebra's centre, whether or not it has a name in the sequence."""
    candidates = find_candidates(heatmaps_KXYZ, view.affine)
    vertebrae = name_vertebrae(candidates, steps)
    centres_mm = [candidate.place_mm for candidate in candidates if candidate.score >= _SURE_SCORE]
    centres_mm += [vertebra.centre_mm for vertebra in vertebrae]
    is_centre = np.zeros(view.shape, bool)
    for centre_mm in centres_mm:
        voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(view.affine), centre_mm)).astype(int)
        is_centre[tuple(np.clip(voxel, 0, np.array(view.shape) - 1))] = True
    if not centres_mm:
        return Spine(view, is_centre)
    mask = distance_transform_edt(~is_centre, sampling=view.spacing_mm) <= _REACH_MM + margin_mm
    return Spine(view, mask, vertebrae, steps)
