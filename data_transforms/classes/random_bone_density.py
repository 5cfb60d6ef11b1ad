"""Vertebrae of other people's density."""

from __future__ import annotations

from typing import Any

import torch
import torchio as tio
from torch import Tensor
from torch.nn import functional as F


class RandomBoneDensity(tio.IntensityTransform):
    """Shift and stretch the HU inside vertebrae, as if they were those of a younger or an older patient.

    The outer voxel of each vertebra, its cortical shell, stays as it is; the change fades in over the next one.
    A few training scans show few densities: trabecular bone has about 50 to 250 HU, which falls with age.

    Args:
        shift_hu: the smallest and the largest number of HU that are added.
        factor: the smallest and the largest factor.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(
        self,
        shift_hu: tuple[float, float] = (-220, 120),
        factor: tuple[float, float] = (0.7, 1.3),
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"include": ["image"], **kwargs})
        self.shift_hu, self.factor = shift_hu, factor
        self.args_names = ["shift_hu", "factor"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """``image``, in HU, becomes float32 where ``label`` > 0; without foreground, nothing changes."""
        foreground = (subject["label"].data > 0).float()
        if not foreground.any():
            return subject
        (low_hu, high_hu), (least, largest) = self.shift_hu, self.factor
        drawn = torch.rand(2)
        shift_hu, factor = low_hu + (high_hu - low_hu) * drawn[0], least + (largest - least) * drawn[1]
        image_hu = subject["image"].data.float()
        change_hu = image_hu * (factor - 1) + shift_hu
        subject["image"].set_data(image_hu + change_hu * _inside(foreground))
        return subject


def _inside(foreground_1XYZ: Tensor) -> Tensor:
    """1 well inside, 0 in the outer voxel and outside."""
    eroded = 1 - F.max_pool3d(1 - foreground_1XYZ, 3, stride=1, padding=1)
    return F.avg_pool3d(eroded, 3, stride=1, padding=1) * eroded
