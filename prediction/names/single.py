"""One vertebra at a time: a segmenter that is shown a vertebra's centre, and finds that vertebra alone.

Lessmann et al. 2019 (10.1016/j.media.2019.02.005), Payer et al. 2020 (10.5220/0008975201240133).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import h5py
import numpy as np
import torch
from torch import Tensor

from prediction.sliding_window import Image, logits_of, window_at
from utils.constants import SHOWN_SIGMA_MM
from utils.geometry.boxes import Box
from utils.geometry.gaussians import gaussian
from utils.intensity import DEFAULT_SCALING, HuScaling

# From the centre of a body to the middle of its window: arch and processes lie behind and below it.
_TO_MIDDLE_MM = np.array([0.0, -16.0, -8.0])


def window_box(centre_vox: np.ndarray, window_shape: Sequence[int], spacing_mm: float) -> Box:
    """The voxels that the window of a vertebra covers; it may reach beyond the image.

    Args:
        centre_vox: (3,) of the body.
        window_shape: (X, Y, Z) voxels.
        spacing_mm: of the isotropic grid.
    """
    start = np.rint(centre_vox + _TO_MIDDLE_MM / spacing_mm).astype(int) - np.array(window_shape) // 2
    return Box(start, start + window_shape)


@torch.inference_mode()
def predict_single_vertebrae(
    network: Callable[[Tensor], Tensor],
    image_CXYZ: Image,
    window_shape: Sequence[int],
    centres_vox: Mapping[int, np.ndarray],
    spacing_mm: float,
    probability: np.ndarray | h5py.Dataset,
    labels: np.ndarray | h5py.Dataset,
    mirror: bool = False,
    device: torch.device | str = "cpu",
    scaling: HuScaling = DEFAULT_SCALING,
) -> None:
    """Find vertebrae one by one; where windows overlap, the vertebra with the highest probability has a voxel.

    Of each vertebra, the largest connected component is kept.

    Args:
        network: (B, 2, *window_shape) float, the scaled image and a Gaussian at the vertebra's centre, to logits
            (B, 1, *window_shape), on ``device``.
        image_CXYZ: scaled image (1, X, Y, Z), on the CPU.
        window_shape: (X, Y, Z) voxels.
        centres_vox: label -> (3,) of the body.
        spacing_mm: of the isotropic grid.
        probability: (X, Y, Z) float32, 0 so far; gets that of the vertebra that a voxel most probably belongs to.
        labels: (X, Y, Z) uint8, 0 so far; gets this vertebra's label, also where the probability is low.
        mirror: average with the answer to the image mirrored left–right.
        device: where the network is.
        scaling: by which the image was scaled.
    """
    image_shape = image_CXYZ.shape[1:]
    for label, centre_vox in centres_vox.items():
        box = window_box(centre_vox, window_shape, spacing_mm)
        inside = Box(np.maximum(box.start, 0), np.minimum(box.stop, image_shape))
        if (inside.stop <= inside.start).any():
            continue
        image = image_CXYZ[(slice(None), *inside.slices)].float()
        start = tuple((box.start - inside.start).tolist())
        shown = gaussian(window_shape, centre_vox - box.start, [SHOWN_SIGMA_MM / spacing_mm] * 3)
        window_CXYZ = torch.cat([window_at(image, start, window_shape, scaling.air), torch.from_numpy(shown)[None]])
        logits = logits_of(network, window_CXYZ[None].to(device), mirror)[0, 0]
        in_window = Box(inside.start - box.start, inside.stop - box.start).slices
        found = _in_one_piece(torch.sigmoid(logits).cpu().numpy()[in_window])
        before, labels_before = probability[inside.slices], labels[inside.slices]
        labels[inside.slices] = np.where(found > before, np.uint8(label), labels_before)
        probability[inside.slices] = np.maximum(found, before)  # not a number stays so


def _in_one_piece(probability: np.ndarray) -> np.ndarray:
    """Probabilities (X, Y, Z) that are 0 in all connected components of foreground but the largest."""
    from scipy.ndimage import label

    numbers, count = label(probability > 0.5)
    if count > 1:
        sizes = np.bincount(numbers.reshape(-1))
        sizes[0] = 0
        probability = np.where((numbers > 0) & (numbers != sizes.argmax()), np.float32(0), probability)
    return probability
