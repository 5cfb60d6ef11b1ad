"""How well a heatmap, and the box that follows from it, find the spine.

All take (X, Y, Z) float prediction and target in [0, 1], the spine's bool mask, and the spacing in mm. The predicted
box holds the heatmap above ``BOX_THRESHOLD``; the true box holds the spine's mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.boxes import Box, mask_box
from utils.components import large_components

# A distance heatmap falls below it between 1 and 2 voxels off the spine, so the box of a perfect one has a margin of 1.
BOX_THRESHOLD = 0.3
# Blobs with fewer voxels than this share of the largest are taken for noise; a spine that the field of view breaks
# up keeps its parts.
LEAST_COMPONENT_SHARE = 0.1


def heatmap_box(heatmap: np.ndarray) -> Box | None:
    """The smallest box around the spine in a heatmap; None where there is none."""
    return mask_box(spine_in_heatmap(heatmap))


def spine_in_heatmap(heatmap: np.ndarray) -> np.ndarray:
    """The large blobs of a heatmap (X, Y, Z) that lie above the threshold: (X, Y, Z) bool."""
    return large_components(heatmap >= BOX_THRESHOLD, least_share=LEAST_COMPONENT_SHARE)


def measure_heatmaps(
    prediction: np.ndarray, target: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]
) -> dict[str, float]:
    """All metrics below."""
    functions = (mae, rmse, r2, box_iou, spine_in_box, box_centre_error_mm)
    return {function.__name__: function(prediction, target, mask, spacing_mm) for function in functions}


def mae(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Mean absolute error, in [0, 1]."""
    return float(np.abs(prediction - target).mean(dtype=np.float64))


def rmse(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Root of the mean squared error, in [0, 1]."""
    return float(np.sqrt(np.square(prediction - target).mean(dtype=np.float64)))


def r2(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Coefficient of determination, at most 1; a constant target: 1 if it is met exactly, else 0."""
    residual = np.square(prediction - target).sum(dtype=np.float64)
    variation = np.square(target - target.mean(dtype=np.float64)).sum(dtype=np.float64)
    return float(1 - residual / variation) if variation else float(residual == 0)


def box_iou(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Overlap of the predicted and the true box over their union, in [0, 1]; no box in both: 1, in one: 0."""
    found, true = heatmap_box(prediction), mask_box(mask)
    if found is None or true is None:
        return float(found is true)
    common = Box(np.maximum(found.start, true.start), np.minimum(found.stop, true.stop)).volume_vox
    return common / (found.volume_vox + true.volume_vox - common)


def spine_in_box(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Share of the spine's voxels inside the predicted box, in [0, 1]; no spine: 1, no box: 0."""
    size = int(mask.sum())
    if not size:
        return 1.0
    found = heatmap_box(prediction)
    return int(mask[found.slices].sum()) / size if found else 0.0


def box_centre_error_mm(
    prediction: np.ndarray, target: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]
) -> float:
    """Distance between the centres of both boxes in mm; no box in both: 0, in one: the diagonal of the grid."""
    found, true = heatmap_box(prediction), mask_box(mask)
    if found is None and true is None:
        return 0.0
    if found is None or true is None:
        return float(np.linalg.norm(np.array(mask.shape) * np.array(spacing_mm)))
    apart_vox = (found.start + found.stop - true.start - true.stop) / 2
    return float(np.linalg.norm(apart_vox * np.array(spacing_mm)))
