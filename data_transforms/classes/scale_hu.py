"""From HU to the values that networks are given."""

from __future__ import annotations

from typing import Any

import torchio as tio

from utils.constants import HU_PER_UNIT, HU_RANGE
from utils.intensity import scale_hu


class ScaleHU(tio.IntensityTransform):
    """Clip HU to a fixed range and divide them by a fixed unit; the same for every patch, in training and in inference.

    Args:
        hu_range: least and greatest HU that are kept.
        hu_per_unit: HU that become 1.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(
        self, hu_range: tuple[float, float] = HU_RANGE, hu_per_unit: float = HU_PER_UNIT, **kwargs: Any
    ) -> None:
        super().__init__(**{"include": ["image"], **kwargs})
        if hu_range[0] >= hu_range[1] or hu_per_unit <= 0:
            raise ValueError(f"HU can't be scaled from {hu_range} by {hu_per_unit}")
        self.hu_range = hu_range
        self.hu_per_unit = hu_per_unit
        self.args_names = ["hu_range", "hu_per_unit"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """``image`` becomes float32."""
        image = subject["image"]
        image.set_data(scale_hu(image.data, self.hu_range, self.hu_per_unit))
        return subject
