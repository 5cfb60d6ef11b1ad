"""How well a mask agrees with the true one. All take (X, Y, Z) bool prediction and target, and the spacing in mm."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np


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


def hd95_mm(prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """95th percentile of the distances between the surfaces, the larger of both directions, in mm.

    MONAI computes it between voxels at the edge of the masks, here cropped to their joint box. Both empty: 0; one
    empty: the diagonal of the grid, a distance that no prediction can exceed.
    """
    if not prediction.any() and not target.any():
        return 0.0
    if not prediction.any() or not target.any():
        return float(np.linalg.norm(np.array(target.shape) * np.array(spacing_mm)))
    import torch
    from monai.metrics import compute_hausdorff_distance

    box = _joint_box(prediction, target)
    # A rim of background: the surface of a mask that touches the volume's border is seen there too.
    padded_prediction, padded_target = (torch.from_numpy(np.pad(m[box], 1))[None, None] for m in (prediction, target))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI warns of its own call
        distance_mm = compute_hausdorff_distance(
            padded_prediction,
            padded_target,
            include_background=True,
            percentile=95,
            spacing=[float(s) for s in spacing_mm],
        )
    return float(distance_mm)


def _overlap(prediction: np.ndarray, target: np.ndarray) -> int:
    return int((prediction & target).sum())


def _joint_box(prediction: np.ndarray, target: np.ndarray) -> tuple[slice, ...]:
    either = prediction | target
    box = []
    for axis in range(3):
        held = np.flatnonzero(either.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(box)
