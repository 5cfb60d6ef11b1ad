"""Which connected components of a prediction are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prediction.probabilities import class_indices, of_background
from utils.constants import LEAST_COMPONENT_MM3
from utils.geometry.boxes import mask_box
from utils.geometry.components import ConnectedComponents, large_components

if TYPE_CHECKING:
    import h5py


def keep_components(
    connected: ConnectedComponents,
    postprocess: str,
    spacing_mm: float,
    slabs: Sequence[slice],
    components: h5py.Dataset,
    classes: Sequence[h5py.Dataset],
) -> None:
    """Turn the connected components that ``postprocess`` drops into background, slab by slab and in place.

    Args:
        connected: that numbered the components.
        postprocess: one of ``prediction.options.POSTPROCESSING``.
        spacing_mm: of the isotropic grid.
        slabs: planes along Z, as they were numbered.
        components: (X, Y, Z) int32, the numbers; 0 is background.
        classes: (X, Y, Z) float each, the probabilities of each channel.
    """
    large = connected.large(**_what_is_large(postprocess, spacing_mm**3))
    for planes in slabs:
        numbers = components[..., planes]
        dropped = (numbers > 0) & ~large[numbers]
        if (box := mask_box(dropped)) is not None:
            x, y, z = box.slices
            where = x, y, slice(planes.start + z.start, planes.start + z.stop)
            for volume, value in zip([components, *classes], [0, *of_background(len(classes))], strict=True):
                volume[where] = np.where(dropped[box.slices], value, volume[where])


def _what_is_large(postprocess: str, voxel_mm3: float) -> dict[str, float]:
    """Arguments of ``ConnectedComponents.large``."""
    if postprocess == "blobs":
        return {"least_vox": LEAST_COMPONENT_MM3 / voxel_mm3}
    return {"least_share": 1.0} if postprocess == "largest" else {}


def without_dropped_components(probabilities_KXYZ: Tensor, spacing_mm: Sequence[float], postprocess: str) -> Tensor:
    """Turn the connected components of foreground, of whatever class, that ``postprocess`` drops into background.

    Args:
        probabilities_KXYZ: (K, X, Y, Z) float; one channel of foreground, or K > 1 classes with the background first.
        spacing_mm: along X, Y, Z.
        postprocess: one of ``prediction.options.POSTPROCESSING``.

    Returns:
        (K, X, Y, Z) float.
    """
    foreground = class_indices(probabilities_KXYZ.numpy()) > 0
    kept = large_components(foreground, **_what_is_large(postprocess, float(np.prod(spacing_mm))))
    dropped = torch.from_numpy(foreground & ~kept)
    cleaned = probabilities_KXYZ.clone()
    for probability, background in zip(cleaned, of_background(len(cleaned)), strict=True):
        probability.masked_fill_(dropped, background)
    return cleaned
