"""Step 1 of a whole scan: where the spine lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import nibabel as nib
import numpy as np
from scipy.ndimage import distance_transform_edt

from metrics.heatmap_metrics import confidence_in, spine_in_heatmap
from prediction.names.column import Candidate, Steps, Vertebra, confidence_at, find_candidates, name_vertebrae
from prediction.trained_model import TrainedModel
from utils.files.scans import Scan
from utils.files.scratch import return_freed_memory
from utils.files.straight_scan import StraightScan
from utils.geometry.boxes import Box
from utils.geometry.working_grid import WorkingGrid

# A candidate with a lower value in its heatmap is noise, unless the sequence of the names takes it.
_SURE_SCORE = 0.3
# How far a vertebra reaches from the centre of its body along X, Y and Z, at most, to below and to above: transverse
# processes of the loins end 50 mm beside it, spinous processes 70 mm behind it.
_REACH_MM = np.array([[-55.0, -75.0, -50.0], [55.0, 30.0, 50.0]])
# A localiser whose confidence is less than this share of what it had in validation is in doubt. Real scans that were
# turned front to back had less or a little more, all real scans as they are more. In names it varies more: from 0.7 to
# 1.3 times the mean of 10 phantoms.
_LEAST_SHARE, _LEAST_SHARE_OF_NAMES = 0.8, 0.5


@dataclass(frozen=True)
class Spine:
    """Where the spine and a margin around it lie.

    Attributes:
        view: grid of a coarse view of the whole scan.
        mask: (X, Y, Z) bool on that grid; all True where the localiser is in doubt.
        candidates: places of vertebrae, if the localiser names them.
        vertebrae: the best sequence of names and centres from head to foot.
        steps: distances between neighbours that it learnt.
        confidence: see ``confidence_in`` and ``confidence_at``; 0 where nothing was found.
        doubt: why the localiser is in doubt; "" where it isn't.
    """

    view: WorkingGrid
    mask: np.ndarray
    candidates: list[Candidate] = field(default_factory=list)
    vertebrae: list[Vertebra] = field(default_factory=list)
    steps: Steps = field(default_factory=lambda: Steps.learn([]))
    confidence: float = 1.0
    doubt: str = ""

    def centres_mm(self) -> list[np.ndarray]:
        """Where vertebrae are, (3,) each in RAS: the sequence, and what the localiser is sure of besides."""
        sure = [candidate.place_mm for candidate in self.candidates if candidate.score >= _SURE_SCORE]
        return [*sure, *(vertebra.centre_mm for vertebra in self.vertebrae)]

    def touches(self, grid: WorkingGrid, box: Box) -> bool:
        """Whether a box of another grid's voxels over the same scan holds some of it."""
        return bool(self.mask[grid.box_in(self.view, box)].any())


def locate_spine(scan: Scan | StraightScan, localiser: TrainedModel, margin_mm: float) -> Spine:
    """Find the spine in a coarse view of the whole scan. Where the localiser is in doubt, it may be anywhere.

    Args:
        scan: read in one pass, slab by slab.
        localiser: a network for heatmaps.
        margin_mm: kept around the spine.
    """
    view = WorkingGrid.view(scan.shape, scan.affine, localiser.spec.input_shape)
    view_hu = view.forward_slabs(scan.slabs(), localiser.scaling.air_hu)
    heatmaps_KXYZ = localiser.predict(view_hu).numpy()
    return_freed_memory()
    if localiser.names_vertebrae:
        spine = _locate_by_names(view, heatmaps_KXYZ[1:], localiser.steps_mm, margin_mm)
    else:
        mask = spine_in_heatmap(heatmaps_KXYZ[0], view.spacing_mm.tolist())
        around = distance_transform_edt(~mask, sampling=view.spacing_mm) <= margin_mm if mask.any() else mask
        spine = Spine(view, around, confidence=confidence_in(heatmaps_KXYZ[0], mask))
    return _in_doubt_anywhere(spine, localiser)


def _locate_by_names(
    view: WorkingGrid,
    heatmaps_KXYZ: np.ndarray,
    steps_mm: Mapping[str, tuple[float, float]] | None,
    margin_mm: float,
) -> Spine:
    """The spine is what lies within reach of a vertebra's centre, whether or not it has a name in the sequence."""
    steps = Steps.from_json(steps_mm)
    candidates = find_candidates(heatmaps_KXYZ, view.affine)
    vertebrae = name_vertebrae(candidates, steps)
    confidence = confidence_at(vertebrae, heatmaps_KXYZ, view.affine)
    reach_mm = _REACH_MM + margin_mm * np.array([[-1.0], [1.0]])
    spine = Spine(view, np.zeros(view.shape, bool), candidates, vertebrae, steps, confidence)
    for centre_mm in spine.centres_mm():  # the axes of the view are those of RAS
        low, high = np.rint(nib.affines.apply_affine(np.linalg.inv(view.affine), centre_mm + reach_mm)).astype(int)
        spine.mask[tuple(slice(max(first, 0), max(last + 1, 0)) for first, last in zip(low, high, strict=True))] = True
    return spine


def _in_doubt_anywhere(spine: Spine, localiser: TrainedModel) -> Spine:
    """A spine as it is, or all of the view where the localiser is less sure of it than it was in validation."""
    usual = localiser.confidence
    least_share = _LEAST_SHARE_OF_NAMES if localiser.names_vertebrae else _LEAST_SHARE
    if not spine.mask[spine.view.inside_source].any():  # what lies in the padding beside the scan is none
        doubt = "no spine found by the localiser"
    elif usual is not None and spine.confidence < least_share * usual:
        doubt = f"the localiser is unsure of the spine ({spine.confidence:.2f}; in validation, {usual:.2f})"
    else:
        return spine
    return replace(spine, mask=np.ones_like(spine.mask), doubt=doubt)
