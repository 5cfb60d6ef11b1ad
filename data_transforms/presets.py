"""A pair of presets, and the augmentation that both tasks share."""

from __future__ import annotations

from typing import NamedTuple

import torchio as tio

from utils.constants import HU_AIR


class Presets(NamedTuple):
    """Transforms of subjects for training and for evaluation (validation and test)."""

    train: tio.Transform
    evaluate: tio.Transform


def spatial_augmentation() -> list[tio.Transform]:
    """Flips, rotation and scaling of images in HU and raw labels.

    Flips are left–right only (axis 0 of RAS), because the body is symmetric in no other direction. Rotation and scaling
    take most of the time in which patches are prepared, so they are applied to a quarter of the patches.
    """
    return [
        tio.RandomFlip(axes=(0,), flip_probability=0.5, copy=False),
        tio.RandomAffine(scales=0.15, degrees=15, default_pad_value=HU_AIR, default_pad_label=0, p=0.25, copy=False),
    ]


def intensity_augmentation() -> list[tio.Transform]:
    """Simulate other scanners, kernels and doses in images after ``ScaleHU`` (in units of 1000 HU)."""
    return [
        tio.RandomAnisotropy(downsampling=(1.5, 3), p=0.1, copy=False),
        tio.RandomBlur(std=(0.3, 1.0), p=0.1, copy=False),
        tio.RandomGamma(log_gamma=(-0.2, 0.2), p=0.2, copy=False),
        tio.RandomNoise(std=(0.0, 0.05), p=0.2, copy=False),
    ]
