"""HU to the numbers that networks take."""

from __future__ import annotations

from torch import Tensor

from utils.constants import HU_PER_UNIT, HU_RANGE


def scale_hu(image_hu: Tensor, hu_range: tuple[float, float] = HU_RANGE, hu_per_unit: float = HU_PER_UNIT) -> Tensor:
    """Clip HU to a fixed range and divide them by a fixed unit.

    Args:
        image_hu: of any shape and dtype.
        hu_range: least and greatest HU that are kept.
        hu_per_unit: HU that become 1.

    Returns:
        float32 of the same shape.
    """
    return image_hu.float().clamp(*hu_range) / hu_per_unit
