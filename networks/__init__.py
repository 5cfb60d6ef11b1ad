"""The registry of architectures: name -> builder. ``build_network`` is the one way to a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]


def _unet(in_channels: int, out_channels: int, input_shape: Shape, **options: Any) -> nn.Module:
    from networks.UNet import UNet

    return UNet(in_channels, out_channels, input_shape, **options)


def _attention_unet(in_channels: int, out_channels: int, input_shape: Shape, **options: Any) -> nn.Module:
    from networks.UNet import AttentionUNet3D

    return AttentionUNet3D(in_channels, out_channels, input_shape, **options)


# Builders import what they need when called, so that the names are known without loading torch.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "AttentionUNet3D": _attention_unet,
    "UNet": _unet,
}


def build_network(name: str, in_channels: int, out_channels: int, input_shape: Shape, **options: Any) -> nn.Module:
    """Build an architecture by name.

    Args:
        name: a key of ``ARCHITECTURES``.
        in_channels: of the image, 1 for CT.
        out_channels: of the logits: 1 for a heatmap or a binary mask, the number of classes otherwise.
        input_shape: (X, Y, Z) voxels of the input.
        options: the architecture's own keyword arguments.

    Returns:
        A module: (B, in_channels, X, Y, Z) float to logits (B, out_channels, X, Y, Z), no activation at the end.

    Raises:
        ValueError: unknown name or option, or a shape that the network can't take (names axis, size and divisor).
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"no architecture {name!r}; there are {', '.join(sorted(ARCHITECTURES))}")
    if min(in_channels, out_channels) < 1:
        raise ValueError(f"in_channels {in_channels} and out_channels {out_channels} must be positive")
    try:
        return ARCHITECTURES[name](in_channels, out_channels, tuple(input_shape), **options)
    except TypeError as error:
        raise ValueError(f"{name} can't be built with {options}: {error}") from None


def check_shape(shape: tuple[int, ...], divisor: int) -> None:
    """Raise ValueError unless every side of (X, Y, Z) is a positive multiple of the divisor."""
    for axis, size in zip("XYZ", shape, strict=True):
        if size < 1 or size % divisor:
            raise ValueError(
                f"axis {axis} of input shape {'×'.join(map(str, shape))} has {size} voxels, not a multiple of {divisor}"
            )
