"""Scans with thick slices or large voxels, simulated in scans with small ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from data_transforms.classes.contrast import RandomIntensity


class RandomLowResolution(RandomIntensity):
    """Average each image over thicker slices, or larger voxels, and resample it linearly to the voxels that it had.

    This is what a scan with such slices has lost when it is resampled to the network's grid. Labels stay as they are.

    Args:
        bounds: the smallest and the largest thickness of a slice, in voxels of the image.
        axes: along how many axes, which are drawn: 1 for thick slices, 3 for large voxels.
        kwargs: of ``torchio.Transform``.

    Raises:
        ValueError: slices thinner than a voxel, or a number of axes other than 1 to 3.
    """

    def __init__(self, bounds: tuple[float, float], axes: int = 1, **kwargs: Any) -> None:
        super().__init__(bounds, **kwargs)
        if not 1 <= axes <= 3:
            raise ValueError(f"an image has 1 to 3 axes, not {axes}")
        self.axes = axes
        self.args_names = ["bounds", "axes"]

    def check(self, bounds: tuple[float, float]) -> None:
        super().check(bounds)
        if bounds[0] < 1:
            raise ValueError(f"slices must be 1 voxel thick or more, not {bounds[0]}")

    def change(self, image: Tensor, drawn: float) -> Tensor:
        """The (C, X, Y, Z) image as if its slices along the drawn axes were about so many voxels thick."""
        shape = list(image.shape[1:])
        coarse = list(shape)
        for axis in torch.randperm(3)[: self.axes].tolist():
            coarse[axis] = max(1, round(shape[axis] / drawn))
        averaged = interpolate(image[None], coarse, mode="area")
        return interpolate(averaged, shape, mode="trilinear", align_corners=False)[0]
