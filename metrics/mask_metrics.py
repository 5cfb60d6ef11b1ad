"""How well a mask agrees with the true one. All take (X, Y, Z) bool prediction and target, and the spacing in mm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metrics.surface_metrics import measure_surfaces


def measure_masks(prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    """All metrics of a pair of masks: those below, and those of ``surface_metrics``."""
    return {
        "dice": dice(prediction, target, spacing_mm),
        "iou": iou(prediction, target, spacing_mm),
        "precision": precision(prediction, target, spacing_mm),
        "recall": recall(prediction, target, spacing_mm),
        "volume_difference_ml": volume_difference_ml(prediction, target, spacing_mm),
        **measure_surfaces(prediction, target, spacing_mm),
    }


def dice(prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """2 |A ∩ B| / (|A| + |B|), in [0, 1]; both empty: 1 (VerSe's protocol), one empty: 0."""
    total = int(prediction.sum()) + int(target.sum())
    return 2 * _overlap(prediction, target) / total if total else 1.0


def iou(prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """|A ∩ B| / |A ∪ B|, in [0, 1]; both empty: 1, one empty: 0."""
    union = int((prediction | target).sum())
    return _overlap(prediction, target) / union if union else 1.0


def precision(prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Share of the prediction that is true, in [0, 1]; empty prediction: 1 if the target is empty too, else 0."""
    size = int(prediction.sum())
    return _overlap(prediction, target) / size if size else float(not target.any())


def recall(prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Share of the target that was found, in [0, 1]; empty target: 1 if the prediction is empty too, else 0."""
    size = int(target.sum())
    return _overlap(prediction, target) / size if size else float(not prediction.any())


def volume_difference_ml(prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Volume of the prediction minus that of the target in ml; both empty: 0."""
    return (int(prediction.sum()) - int(target.sum())) * float(np.prod(spacing_mm)) / 1000


def hd95_mm(prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """The one of ``measure_surfaces`` alone."""
    return measure_surfaces(prediction, target, spacing_mm)["hd95_mm"]


def _overlap(prediction: np.ndarray, target: np.ndarray) -> int:
    return int((prediction & target).sum())
