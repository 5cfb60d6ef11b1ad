"""What probabilities (K, X, Y, Z) say: of the only foreground where K = 1, else of K classes, the background first."""

from __future__ import annotations

import numpy as np


def class_indices(probabilities_KXYZ: np.ndarray) -> np.ndarray:
    """The class that each voxel belongs to, 0 the background: (X, Y, Z) uint8."""
    if len(probabilities_KXYZ) == 1:
        is_foreground: np.ndarray = probabilities_KXYZ[0] > 0.5
        return is_foreground.astype(np.uint8)
    indices: np.ndarray = np.zeros(probabilities_KXYZ.shape[1:], np.uint8)
    highest = probabilities_KXYZ[0].copy()
    for index, probability in enumerate(probabilities_KXYZ[1:], start=1):  # argmax() would hold all channels twice
        indices[probability > highest] = index
        np.maximum(highest, probability, out=highest)
    return indices


def of_foreground(probabilities_KXYZ: np.ndarray) -> np.ndarray:
    """The probability of any vertebra: (X, Y, Z) float."""
    only_one = len(probabilities_KXYZ) == 1
    foreground: np.ndarray = probabilities_KXYZ[0] if only_one else probabilities_KXYZ[1:].sum(axis=0)
    return foreground


def of_background(channels: int) -> list[float]:
    """The probabilities of ``channels`` = K where there is certainly no vertebra."""
    return [0.0] if channels == 1 else [1.0, *[0.0] * (channels - 1)]
