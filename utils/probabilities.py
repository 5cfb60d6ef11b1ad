"""What probabilities (K, X, Y, Z) say: of the only foreground where K = 1, else of K classes, the background first."""

from __future__ import annotations

import numpy as np


def class_indices(probabilities_KXYZ: np.ndarray) -> np.ndarray:
    """The class that each voxel belongs to, 0 the background: (X, Y, Z) uint8."""
    if len(probabilities_KXYZ) == 1:
        return (probabilities_KXYZ[0] > 0.5).astype(np.uint8)
    return probabilities_KXYZ.argmax(axis=0).astype(np.uint8)


def of_foreground(probabilities_KXYZ: np.ndarray) -> np.ndarray:
    """The probability of any vertebra: (X, Y, Z) float."""
    return probabilities_KXYZ[0] if len(probabilities_KXYZ) == 1 else probabilities_KXYZ[1:].sum(axis=0)


def of_background(channels: int) -> list[float]:
    """The probabilities of ``channels`` = K where there is certainly no vertebra."""
    return [0.0] if channels == 1 else [1.0, *[0.0] * (channels - 1)]
