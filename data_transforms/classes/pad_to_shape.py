"""Padding to a size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torchio as tio

from utils.constants import HU_AIR


class PadToShape(tio.SpatialTransform):
    """Pad an image in HU with air, and labels with 0, to at least a shape; the volume stays in the middle.

    Args:
        shape: (X, Y, Z) voxels; axes that are larger are left as they are.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"a shape has three positive numbers, not {tuple(shape)}")
        self.shape = tuple(shape)
        self.args_names = ["shape"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Pad every image; the affine moves along."""
        return pad_subject(subject, self.shape)


def pad_subject(subject: tio.Subject, shape: Sequence[int]) -> tio.Subject:
    """Pad both sides of each axis to ``shape``; an odd voxel goes to the end."""
    missing = [max(wanted - size, 0) for wanted, size in zip(shape, subject.spatial_shape, strict=True)]
    widths = [width for n in missing for width in (n // 2, n - n // 2)]
    images = {
        name: HU_AIR if image[tio.TYPE] == tio.INTENSITY else 0
        for name, image in subject.get_images_dict(False).items()
    }
    for name, fill in images.items():
        subject = tio.Pad(widths, padding_mode=fill, include=[name])(subject)
    return subject
