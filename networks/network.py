"""Base classes of all architectures: they check the input's shape and return logits of that shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Shape = tuple[int, int, int]


class Network(nn.Module, ABC):
    """Base of all architectures.

    Args:
        input_shape: (X, Y, Z) voxels that will be given; checked here, so that a wrong one is told before any is read.
        divisor: every side of an input must be a multiple of it.

    Attributes:
        block_types: modules of these types can be computed again in the backward pass (``networks.checkpointing``).

    Raises:
        ValueError: a side is no multiple of the divisor.
    """

    block_types: tuple[type[nn.Module], ...] = ()

    def __init__(self, input_shape: Shape, divisor: int) -> None:
        super().__init__()
        self.divisor = divisor
        self.check_shape(input_shape)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raise ValueError where the network can't take (X, Y, Z)."""
        check_shape(tuple(shape), self.divisor)

    def norms_by_batch(self) -> bool:
        """Whether it has batch norms: in training, the logits of an image then depend on the others of its batch."""
        return bool(batch_norms(self))

    @abstractmethod
    def heads(self) -> Iterable[nn.Module]:
        """The layers whose output is logits."""

    @abstractmethod
    def compute_logits(self, image_BCXYZ: Tensor) -> Tensor | Sequence[Tensor]:
        """Logits of the image's shape; under deep supervision those of coarser levels too, finest first."""

    def forward(self, image_BCXYZ: Tensor) -> Tensor | list[Tensor]:
        """(B, in_channels, X, Y, Z) to logits (B, out_channels, X, Y, Z).

        In training, a network built with deep supervision gives a list: these logits and those of its coarser levels.
        """
        self.check_shape(image_BCXYZ.shape[2:])
        logits = self.compute_logits(image_BCXYZ)
        if isinstance(logits, Tensor):
            return logits
        return list(logits) if self.training else logits[0]

    def logits_in_slabs(self, image_BCXYZ: Tensor) -> Iterator[Tensor]:
        """In evaluation, the logits in slabs along Z from below, (B, out_channels, X, Y, z); by default all at once."""
        yield self(image_BCXYZ)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All batch norms in a module."""
    return [each for each in module.modules() if isinstance(each, _BatchNorm)]


class LibraryNetwork(Network):
    """A network from a library, in ``body``."""

    body: Any  # a module; MONAI's and others' layers have no types

    def compute_logits(self, image_BCXYZ: Tensor) -> Tensor | Sequence[Tensor]:
        """The output of the library's network."""
        return self.body(image_BCXYZ)


def check_shape(shape: tuple[int, ...], divisor: int) -> None:
    """Raise ValueError unless every side of (X, Y, Z) is a positive multiple of the divisor."""
    for axis, size in zip("XYZ", shape, strict=True):
        if size < 1 or size % divisor:
            raise ValueError(
                f"axis {axis} of input shape {'×'.join(map(str, shape))} has {size} voxels, not a multiple of {divisor}"
            )
