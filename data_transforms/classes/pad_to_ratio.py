"""Padding to a ratio of the sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torchio as tio

from data_transforms.classes.pad_to_shape import pad_subject


class PadToRatio(tio.SpatialTransform):
    """Pad an image in HU with air, and labels with 0, until its sides in mm have a ratio (to within a voxel).

    Nothing is cropped: one axis keeps its size.

    Args:
        ratio: of the sides along X, Y, Z.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, ratio: Sequence[float] = (1, 1, 2), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if len(ratio) != 3 or min(ratio) <= 0:
            raise ValueError(f"a ratio has three positive numbers, not {tuple(ratio)}")
        self.ratio = tuple(ratio)
        self.args_names = ["ratio"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Pad every image; the affine moves along."""
        spacing_mm = np.array(subject.spacing)
        extent_mm = np.array(subject.spatial_shape) * spacing_mm
        unit_mm = np.max(extent_mm / self.ratio)
        return pad_subject(subject, [round(n) for n in unit_mm * np.array(self.ratio) / spacing_mm])
