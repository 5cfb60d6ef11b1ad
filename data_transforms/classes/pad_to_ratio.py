"""Padding a volume to a ratio of its sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torchio as tio

from utils.constants import HU_AIR


class PadToRatio(tio.SpatialTransform):
    """Pad an image in HU with air, and labels with 0, until its sides in mm have a ratio (to within a voxel).

    Nothing is cropped. The volume stays in the centre; an odd voxel is added at the end.

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
        shape = np.rint(unit_mm * np.array(self.ratio) / spacing_mm).astype(int)
        missing = np.maximum(shape - subject.spatial_shape, 0)
        widths = [int(width) for n in missing for width in (n // 2, n - n // 2)]
        images = tio.Pad(widths, padding_mode=HU_AIR, exclude=self._labels(subject))
        return tio.Pad(widths, padding_mode=0, include=self._labels(subject))(images(subject))

    @staticmethod
    def _labels(subject: tio.Subject) -> list[str]:
        images = subject.get_images_dict(intensity_only=False)
        return [name for name, image in images.items() if image[tio.TYPE] == tio.LABEL]
