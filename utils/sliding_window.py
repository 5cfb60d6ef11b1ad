"""Whole volumes through a network: windows in, stitched probabilities out. Activates, as else only losses do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from utils.constants import HU_AIR, HU_PER_UNIT

# Windows count most in their middle: a Gaussian of an eighth of the window's size (nnU-Net, Isensee et al. 2021).
_SIGMA_SHARE = 1 / 8
# A voxel that lies only in corners of windows still needs a weight well above float32's rounding.
_LEAST_WEIGHT = 1e-3


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Evenly spaced first voxels of windows that cover 0 … size, neighbours overlapping by at least ``overlap``."""
    if size <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = -(-(size - window) // step) + 1
    return [round(start) for start in np.linspace(0, size - window, count)]


@torch.inference_mode()
def predict_probabilities(
    network: Callable[[Tensor], Tensor],
    image_CXYZ: Tensor,
    window_shape: Sequence[int],
    overlap: float = 0.5,
    batch_size: int = 1,
    overhang_vox: Sequence[int] = (0, 0, 0),
) -> Tensor:
    """Apply a network window by window and stitch its logits, weighted by a Gaussian.

    Args:
        network: (B, C, *window_shape) float to logits (B, K, *window_shape).
        image_CXYZ: scaled image of any size, on the network's device; padded with air where smaller than a window.
        window_shape: (X, Y, Z) voxels.
        overlap: least share of a window's side that its neighbour covers, 0 to below 1.
        batch_size: windows in a forward pass.
        overhang_vox: voxels of air that windows see beyond each end along X, Y, Z, as patches did in training.

    Returns:
        (K, X, Y, Z) float32 in [0, 1]: the sigmoid where K = 1, the softmax over K otherwise.
    """
    shape = image_CXYZ.shape[1:]
    missing = [
        max(window - size, 2 * overhang)
        for window, size, overhang in zip(window_shape, shape, overhang_vox, strict=True)
    ]
    before = [n // 2 for n in missing]
    widths = [(b, n - b) for b, n in zip(before, missing, strict=True)]
    padding = [width for pair in reversed(widths) for width in pair]  # torch counts from the last axis
    padded = torch.nn.functional.pad(image_CXYZ.float(), padding, value=HU_AIR / HU_PER_UNIT)

    weight = _gaussian_weight(window_shape, image_CXYZ.device)
    starts = list(product(*(window_starts(n, w, overlap) for n, w in zip(padded.shape[1:], window_shape, strict=True))))
    windows = [tuple(slice(s, s + w) for s, w in zip(start, window_shape, strict=True)) for start in starts]
    total: Tensor | None = None
    total_weight = padded.new_zeros(padded.shape[1:])
    for first in range(0, len(windows), batch_size):
        batch = windows[first : first + batch_size]
        logits_BKXYZ = network(torch.stack([padded[(slice(None), *window)] for window in batch])).float()
        if total is None:
            total = padded.new_zeros(logits_BKXYZ.shape[1], *padded.shape[1:])
        for window, logits_KXYZ in zip(batch, logits_BKXYZ, strict=True):
            total[(slice(None), *window)] += logits_KXYZ * weight
            total_weight[window] += weight
    assert total is not None
    logits = total / total_weight
    inside = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    logits = logits[(slice(None), *inside)]
    return torch.sigmoid(logits) if logits.shape[0] == 1 else torch.softmax(logits, dim=0)


def _gaussian_weight(shape: Sequence[int], device: torch.device) -> Tensor:
    x, y, z = (
        torch.exp(-0.5 * ((torch.arange(n, device=device) - (n - 1) / 2) / (n * _SIGMA_SHARE)) ** 2) for n in shape
    )
    return (x[:, None, None] * y[:, None] * z).clamp(min=_LEAST_WEIGHT)
