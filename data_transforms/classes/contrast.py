"""Random brightness and contrast of images after ``ScaleHU``."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torchio as tio
from torch import Tensor


class RandomIntensity(tio.IntensityTransform):
    """Change each image by a number that is drawn for it from torch's generator.

    Args:
        bounds: the smallest and the largest number.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, bounds: tuple[float, float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check(bounds)
        self.bounds = bounds
        self.args_names = ["bounds"]

    def check(self, bounds: tuple[float, float]) -> None:
        """Raise ValueError unless numbers can be drawn and used."""
        if bounds[0] > bounds[1]:
            raise ValueError(f"no number lies between {bounds[0]} and {bounds[1]}")

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Images become float32."""
        low, high = self.bounds
        for image in self.get_images(subject):
            drawn = low + (high - low) * torch.rand(1).item()
            image.set_data(self.change(image.data.float(), drawn))
        return subject

    @abstractmethod
    def change(self, image: Tensor, drawn: float) -> Tensor:
        """The image, changed by the drawn number."""


class _RandomFactor(RandomIntensity):
    def check(self, bounds: tuple[float, float]) -> None:
        super().check(bounds)
        if bounds[0] <= 0:
            raise ValueError(f"factors must be positive, not {bounds[0]}")


class RandomGain(_RandomFactor):
    """Multiply all values: water keeps its 0 HU, bone becomes more or less dense."""

    def change(self, image: Tensor, drawn: float) -> Tensor:
        return image * drawn


class RandomContrast(_RandomFactor):
    """Multiply the distances from the mean, within the range that the values had."""

    def change(self, image: Tensor, drawn: float) -> Tensor:
        mean = image.mean()
        return ((image - mean) * drawn + mean).clamp(image.min(), image.max())


class RandomInvertedGamma(RandomIntensity):
    """Raise the distances from the largest value to a power, within the range that the values had.

    The bounds are those of the power's logarithm, as of ``torchio.RandomGamma``.
    """

    def change(self, image: Tensor, drawn: float) -> Tensor:
        low, high = image.min(), image.max()
        span = (high - low).clamp(min=1e-6)
        return high - span * ((high - image) / span) ** torch.tensor(drawn).exp()
