"""The registry of architectures, each in its own file. ``build_network`` is the one way to a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from networks.network import Network, Shape

# Name -> the module that defines it, imported when it is built: the names are known without loading torch.
ARCHITECTURES = {
    "AttentionUNet3D": "networks.UNet",
    "MedNeXt": "networks.MedNeXt",
    "ResEncUNet": "networks.ResEncUNet",
    "SegFormer3D": "networks.SegFormer3D",
    "SegResNet": "networks.SegResNet",
    "SwinUNetR": "networks.SwinUNetR",
    "UNet": "networks.UNet",
    "UNetR": "networks.UNetR",
    "VNet": "networks.VNet",
}


def build_network(name: str, in_channels: int, out_channels: int, input_shape: Shape, **options: Any) -> Network:
    """Build an architecture by name.

    Args:
        name: a key of ``ARCHITECTURES``.
        in_channels: of the image, 1 for CT.
        out_channels: of the logits: 1 for a heatmap or a binary mask, the number of classes otherwise.
        input_shape: (X, Y, Z) voxels of the input.
        options: the architecture's own keyword arguments.

    Returns:
        A module: (B, in_channels, X, Y, Z) float to logits (B, out_channels, X, Y, Z), no activation at the end. With
        ``deep_supervision=True``, where an architecture has it, a list of logits in training, finest first.

    Raises:
        ValueError: unknown name or option, an option of another kind than its default, or a shape that the network
            can't take (names axis, size and divisor).
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"no architecture {name!r}; there are {', '.join(sorted(ARCHITECTURES))}")
    if min(in_channels, out_channels) < 1:
        raise ValueError(f"in_channels {in_channels} and out_channels {out_channels} must be positive")
    builder = getattr(import_module(ARCHITECTURES[name]), name)
    _check_options(name, builder, options)
    try:
        return builder(in_channels, out_channels, tuple(input_shape), **options)
    except (AssertionError, IndexError, RuntimeError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"can't be built with {options}: {error}") from None


def _check_options(name: str, builder: Callable[..., Network], options: dict[str, Any]) -> None:
    """Hold options against the builder's signature: their names, and the kinds of their values."""
    parameters = list(inspect.signature(builder).parameters.values())[3:]
    defaults = {parameter.name: parameter.default for parameter in parameters}
    for key, value in options.items():
        if key not in defaults:
            known = ", ".join(f"{option}={default}" for option, default in defaults.items())
            raise ValueError(f"no option {key!r}; the options of {name} are {known or 'none'}")
        if not _of_one_kind(value, defaults[key]):
            raise ValueError(f"option {key}={value!r} is not of the kind of its default {defaults[key]!r}")


def _of_one_kind(value: Any, default: Any) -> bool:
    if isinstance(default, Sequence) and not isinstance(default, str):
        is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
        return is_sequence and len(value) > 0 and all(_of_one_kind(item, default[0]) for item in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)
