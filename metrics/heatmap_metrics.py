"""How well a heatmap, and the box around the spine that follows from it, agree with their reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from metrics.metric import DISTANCE_MM, MetricTable, Pair, WhenEmpty
from utils.geometry.boxes import Box, mask_box
from utils.geometry.spinal_column import spinal_column_mask

# A distance heatmap falls below it between 1 and 2 voxels off the spine, so the box of a perfect one has a margin of 1.
BOX_THRESHOLD = 0.3
# Where a network takes a pelvis for a little of a spine, values between both thresholds join it to the spine.
CORE_THRESHOLD, GROWTH_VOX = 0.5, 2
# Connected components with fewer voxels than this share of the largest one are noise; a spine that the field of view
# divides keeps its parts.
LEAST_COMPONENT_SHARE = 0.1


class FoundSpine(NamedTuple):
    """A spine in a heatmap: (X, Y, Z) bool, and how sure the localiser is of it, in [0, 1], 0 where there is none."""

    mask: np.ndarray
    confidence: float


def spine_in_heatmap(heatmap: np.ndarray, spacing_mm: Sequence[float]) -> FoundSpine:
    """The large connected components of a heatmap that form one spinal column; its mean in them is the confidence.

    Components are those above ``CORE_THRESHOLD``, where there are any. They grow by ``GROWTH_VOX`` into what is above
    ``BOX_THRESHOLD``.

    Args:
        heatmap: (X, Y, Z) in [0, 1].
        spacing_mm: along X, Y, Z.
    """
    from scipy.ndimage import binary_dilation

    core, spine = heatmap >= CORE_THRESHOLD, heatmap >= BOX_THRESHOLD
    mask = spinal_column_mask(core if core.any() else spine, LEAST_COMPONENT_SHARE, spacing_mm)
    if core.any():
        mask = binary_dilation(mask, np.ones((3, 3, 3)), GROWTH_VOX, mask=spine)
    return FoundSpine(mask, float(heatmap[mask].mean()) if mask.any() else 0.0)


class HeatmapPair(Pair):
    """A predicted heatmap and its reference, and the boxes around the spine: one is empty where it has no box.

    Args:
        prediction, reference: (X, Y, Z) float in [0, 1].
        mask: (X, Y, Z) bool, the spine's reference mask; the reference box holds it.
        spacing_mm: of the grid, along X, Y, Z.
    """

    def __init__(
        self, prediction: np.ndarray, reference: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]
    ) -> None:
        self.prediction, self.reference, self.mask = prediction, reference, mask
        self.shape, self.spacing_mm = mask.shape, spacing_mm

    @property
    def are_empty(self) -> tuple[bool, bool]:
        return self.predicted_box is None, self.reference_box is None

    @cached_property
    def predicted_box(self) -> Box | None:
        """The smallest box around the spine in the predicted heatmap; None where there is none."""
        return mask_box(spine_in_heatmap(self.prediction, self.spacing_mm).mask)

    @cached_property
    def reference_box(self) -> Box | None:
        """The smallest box around the spine's reference mask; None where it is empty."""
        return mask_box(self.mask)

    @property
    def boxes(self) -> tuple[Box, Box]:
        """Both boxes, of metrics for which neither may be missing."""
        assert self.predicted_box is not None and self.reference_box is not None
        return self.predicted_box, self.reference_box


HEATMAP_METRICS = MetricTable(HeatmapPair)

# These compare the heatmaps' values, whether or not a box follows from them.
_computed = {"both_empty": WhenEmpty.COMPUTED, "one_empty": WhenEmpty.COMPUTED}


@HEATMAP_METRICS.metric("MAE", higher_is_better=False, scale="0 to 1", **_computed)
def mae(pair: HeatmapPair) -> float:
    """Mean absolute error of the heatmap's values."""
    return float(np.abs(pair.prediction - pair.reference).mean(dtype=np.float64))


@HEATMAP_METRICS.metric("RMSE", higher_is_better=False, scale="0 to 1", **_computed)
def rmse(pair: HeatmapPair) -> float:
    """Root of the mean squared error of the heatmap's values."""
    return float(np.sqrt(np.square(pair.prediction - pair.reference).mean(dtype=np.float64)))


@HEATMAP_METRICS.metric("R²", scale="at most 1", **_computed)
def r2(pair: HeatmapPair) -> float:
    """Share of the heatmap's variation that is explained; 0 is no better than its mean.

    Where the reference doesn't vary: 1 if it is met exactly, else 0.
    """
    reference = pair.reference
    residual = np.square(pair.prediction - reference).sum(dtype=np.float64)
    variation = np.square(reference - reference.mean(dtype=np.float64)).sum(dtype=np.float64)
    return float(1 - residual / variation) if variation else float(residual == 0)


@HEATMAP_METRICS.metric("Box IoU", is_main=True)
def box_iou(pair: HeatmapPair) -> float:
    """The volume that the predicted and the reference box share, over the volume that either holds."""
    found, reference = pair.boxes
    shared = Box(np.maximum(found.start, reference.start), np.minimum(found.stop, reference.stop)).volume_vox
    return shared / (found.volume_vox + reference.volume_vox - shared)


@HEATMAP_METRICS.metric("Spine in box", one_empty=WhenEmpty.COMPUTED, is_main=True)
def spine_in_box(pair: HeatmapPair) -> float:
    """Share of the spine that lies in the predicted box; 1 where there is no spine, 0 where there is only no box."""
    if pair.reference_box is None:
        return 1.0
    found = pair.predicted_box
    return np.count_nonzero(pair.mask[found.slices]) / np.count_nonzero(pair.mask) if found else 0.0


@HEATMAP_METRICS.metric("Box centre error", **DISTANCE_MM, is_main=True)
def box_centre_error_mm(pair: HeatmapPair) -> float:
    """Distance between the centres of the predicted and the reference box."""
    found, reference = pair.boxes
    apart_vox = (found.start + found.stop - reference.start - reference.stop) / 2
    return float(np.linalg.norm(apart_vox * np.array(pair.spacing_mm)))
