"""Where the spine lies in a scan, and what its vertebrae are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import nibabel as nib
import numpy as np

from prediction.names.column import Candidate, Steps, Vertebra, confidence_at, find_candidates, name_vertebrae
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
        mask: (X, Y, Z) bool on that grid.
        candidates: places of vertebrae; None of a localiser that doesn't name them.
        vertebrae: the best sequence of names and centres from head to foot.
        steps: distances between neighbours that the localiser learnt.
        confidence: see ``spine_in_heatmap`` and ``confidence_at``; 0 where nothing was found.
        usual_confidence: its mean in validation, if it is known.
    """

    view: WorkingGrid
    mask: np.ndarray
    candidates: list[Candidate] | None = None
    vertebrae: list[Vertebra] = field(default_factory=list)
    steps: Steps = field(default_factory=lambda: Steps.learn([]))
    confidence: float = 1.0
    usual_confidence: float | None = None

    @cached_property
    def doubt(self) -> str:
        """Why the localiser is less sure of the spine than it was in validation; "" where it isn't."""
        usual = self.usual_confidence
        least_share = _LEAST_SHARE if self.candidates is None else _LEAST_SHARE_OF_NAMES
        if not self.mask[self.view.inside_source].any():  # what lies in the padding beside the scan is none
            return "no spine found by the localiser"
        if usual is not None and self.confidence < least_share * usual:
            return f"the localiser is unsure of the spine ({self.confidence:.2f}; in validation, {usual:.2f})"
        return ""

    def centres_mm(self) -> list[np.ndarray]:
        """Where vertebrae are, (3,) each in RAS: the sequence, and what the localiser is sure of besides."""
        sure = [candidate.place_mm for candidate in self.candidates or () if candidate.score >= _SURE_SCORE]
        return [*sure, *(vertebra.centre_mm for vertebra in self.vertebrae)]

    def may_touch(self, grid: WorkingGrid, box: Box) -> bool:
        """Whether a box of another grid's voxels over the same scan may hold some of it: in doubt, every box."""
        return bool(self.doubt) or bool(self.mask[grid.box_in(self.view, box)].any())


def spine_of_names(
    view: WorkingGrid,
    heatmaps_KXYZ: np.ndarray,
    steps_mm: Mapping[str, tuple[float, float]] | None,
    usual_confidence: float | None,
    margin_mm: float,
) -> Spine:
    """The spine is what lies within reach of a vertebra's centre, whether or not it has a name in the sequence.

    Args:
        view: of the whole scan.
        heatmaps_KXYZ: (26, X, Y, Z) in [0, 1], in ``ANATOMICAL_ORDER``.
        steps_mm: of ``Steps``, as checkpoints hold them.
        usual_confidence: of ``Spine``.
        margin_mm: kept around the spine.
    """
    steps = Steps.from_json(steps_mm)
    candidates = find_candidates(heatmaps_KXYZ, view.affine)
    vertebrae = name_vertebrae(candidates, steps)
    confidence = confidence_at(vertebrae, heatmaps_KXYZ, view.affine)
    spine = Spine(view, np.zeros(view.shape, bool), candidates, vertebrae, steps, confidence, usual_confidence)
    reach_mm = _REACH_MM + margin_mm * np.array([[-1.0], [1.0]])
    for centre_mm in spine.centres_mm():  # the axes of the view are those of RAS
        low, high = np.rint(nib.affines.apply_affine(np.linalg.inv(view.affine), centre_mm + reach_mm)).astype(int)
        spine.mask[tuple(slice(max(first, 0), max(last + 1, 0)) for first, last in zip(low, high, strict=True))] = True
    return spine
