"""Cropping a volume to its mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import torchio as tio

from utils.geometry.boxes import mask_box


class MaskCutOut(tio.SpatialTransform):
    """Crop every image to the box around ``label`` > 0 and a margin; without foreground, nothing is cropped.

    Args:
        margin_vox: voxels that are kept around the box, as far as the volume reaches.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, margin_vox: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if margin_vox < 0:
            raise ValueError(f"margin_vox is {margin_vox}, but must not be negative")
        self.margin_vox = margin_vox
        self.args_names = ["margin_vox"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Crop; the affine moves along."""
        box = mask_box(subject["label"].data[0].numpy() > 0)
        if box is None:
            return subject
        first = np.maximum(box.start - self.margin_vox, 0)
        behind = np.maximum(np.array(subject.spatial_shape) - box.stop - self.margin_vox, 0)
        return tio.Crop([int(n) for pair in zip(first, behind, strict=True) for n in pair])(subject)
