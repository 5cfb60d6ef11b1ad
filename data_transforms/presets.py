"""A pair of presets, and the augmentation that both tasks share.

There are two strengths, ``utils.constants.AUGMENTATIONS``: "light", for scans that are like the training scans, and
"strong", nnU-Net's list with its shares (Isensee et al. 2021, supplementary note 4) but for the resolution, for scans
that are not.
"""

from __future__ import annotations

from typing import NamedTuple

import torchio as tio

from data_transforms.classes.contrast import RandomContrast, RandomGain, RandomInvertedGamma
from data_transforms.classes.random_low_resolution import RandomLowResolution
from utils.constants import HU_AIR


class Presets(NamedTuple):
    """Transforms of subjects for training and for evaluation (validation and test)."""

    train: tio.Transform
    evaluate: tio.Transform


def spatial_augmentation(strength: str = "light") -> list[tio.Transform]:
    """Flips, rotation and scaling of images in HU and raw labels.

    Flips are left–right only (axis 0 of RAS), because the body is symmetric in no other direction. Rotation and scaling
    take most of the time in which patches are prepared, so they are applied to some of the patches only: to a quarter,
    or, if strong, to 0.36, which are nnU-Net's patches that it rotates or scales, each with 0.2.

    Args:
        strength: one of ``utils.constants.AUGMENTATIONS``.
    """
    scales, degrees, share = (0.15, 15, 0.25) if strength == "light" else ((0.7, 1.4), 30, 0.36)
    return [
        tio.RandomFlip(axes=(0,), flip_probability=0.5, copy=False),
        tio.RandomAffine(
            scales=scales, degrees=degrees, default_pad_value=HU_AIR, default_pad_label=0, p=share, copy=False
        ),
    ]


def intensity_augmentation(strength: str = "light", fine: bool = False) -> list[tio.Transform]:
    """Simulate other scanners, kernels and doses in images after ``ScaleHU`` (in units of 1000 HU).

    Args:
        strength: one of ``utils.constants.AUGMENTATIONS``.
        fine: whether the voxels are as small as a scan's, as in patches; views of whole scans have larger ones.
    """
    if strength == "light":
        return [
            tio.RandomAnisotropy(downsampling=(1.5, 3), p=0.1, copy=False),
            tio.RandomBlur(std=(0.3, 1.0), p=0.1, copy=False),
            tio.RandomGamma(log_gamma=(-0.2, 0.2), p=0.2, copy=False),
            tio.RandomNoise(std=(0.0, 0.05), p=0.2, copy=False),
        ]
    return [
        *_strongly_lower_resolution(fine),
        tio.RandomBlur(std=(0.5, 1.0), p=0.2, copy=False),
        RandomGain((0.75, 1.25), p=0.15, copy=False),
        RandomContrast((0.75, 1.25), p=0.15, copy=False),
        tio.RandomGamma(log_gamma=(-0.35, 0.4), p=0.3, copy=False),
        RandomInvertedGamma((-0.35, 0.4), p=0.1, copy=False),
        tio.RandomNoise(std=(0.0, 0.1), p=0.2, copy=False),
    ]


def _strongly_lower_resolution(fine: bool) -> list[tio.Transform]:
    """Thick slices and, in patches, large voxels: where no patch shows them, vertebrae are missed in scans of 3 mm."""
    if not fine:
        return [tio.RandomAnisotropy(downsampling=(1.5, 5), p=0.25, copy=False)]
    return [
        RandomLowResolution((1.5, 5), axes=1, p=0.2, copy=False),
        RandomLowResolution((1.5, 4), axes=3, p=0.2, copy=False),
    ]
