"""Connected components of masks: which blobs are big enough to be kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def large_components(mask: np.ndarray, least_vox: float = 1, least_share: float = 0.0) -> np.ndarray:
    """The mask without its small components (voxels that share a face belong together).

    Args:
        mask: (X, Y, Z) bool.
        least_vox: voxels that a component needs to be kept.
        least_share: share of the largest component's voxels that it needs, too.

    Returns:
        (X, Y, Z) bool.
    """
    from scipy.ndimage import label

    components, count = label(mask)
    if not count:
        return mask
    # Plane by plane: bincount makes eight bytes of each voxel.
    sizes = np.sum([np.bincount(plane.reshape(-1), minlength=count + 1) for plane in components], axis=0)
    sizes[0] = 0
    return ((sizes >= max(least_vox, 1)) & (sizes >= least_share * sizes.max()))[components]


def without_small_blobs(probabilities_KXYZ: Tensor, spacing_mm: Sequence[float], least_mm3: float) -> Tensor:
    """Turn every blob of foreground, of whatever class, that has less than a volume into background.

    Args:
        probabilities_KXYZ: (K, X, Y, Z) float; one channel of foreground, or K > 1 classes with the background first.
        spacing_mm: along X, Y, Z.
        least_mm3: volume that a blob needs to be kept.

    Returns:
        (K, X, Y, Z) float.
    """
    return _keep_blobs(probabilities_KXYZ, least_vox=least_mm3 / float(np.prod(spacing_mm)))


def only_largest_blob(probabilities_KXYZ: Tensor) -> Tensor:
    """Turn every blob of foreground but the largest into background; arguments as of ``without_small_blobs``."""
    return _keep_blobs(probabilities_KXYZ, least_share=1.0)


def _keep_blobs(probabilities_KXYZ: Tensor, **which: float) -> Tensor:
    single = probabilities_KXYZ.shape[0] == 1
    foreground = probabilities_KXYZ[0] > 0.5 if single else probabilities_KXYZ.argmax(dim=0) > 0
    kept = large_components(foreground.numpy(), **which)
    dropped = foreground & ~torch.from_numpy(kept)
    cleaned = probabilities_KXYZ.masked_fill(dropped, 0.0)
    if not single:
        cleaned[0].masked_fill_(dropped, 1.0)
    return cleaned
