"""UNet and AttentionUNet3D: one body, with or without gates on the skip connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from networks.blocks.norms import InstanceNorm
from networks.network import Network, Shape

# From so many classes on, slabs of logits are made of so many planes of the coarser level.
_MANY_CLASSES, _PLANES = 16, 4


class _Block(nn.Sequential):
    """A convolution, its norm and its activation."""

    def __init__(self, convolution: nn.Conv3d | nn.ConvTranspose3d) -> None:
        super().__init__(convolution, InstanceNorm(convolution.out_channels), nn.LeakyReLU(0.01, inplace=True))


class _OpenGate(nn.Module):
    def forward(self, skip: Tensor, _signal: Tensor) -> Tensor:
        return skip


class _AttentionGate(nn.Module):
    """Scale each voxel of a skip by a weight in (0, 1) that skip and signal agree on."""

    def __init__(self, skip_channels: int, signal_channels: int) -> None:
        super().__init__()
        inner_channels = max(skip_channels // 2, 1)
        self.from_skip = nn.Conv3d(skip_channels, inner_channels, 1, bias=False)
        self.from_signal = nn.Conv3d(signal_channels, inner_channels, 1)
        self.weight = nn.Conv3d(inner_channels, 1, 1)

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        agreement = torch.relu(self.from_skip(skip) + self.from_signal(signal))
        return skip * torch.sigmoid(self.weight(agreement))


class UNet(Network):
    """3D U-Net with one convolution a level, made for small hardware.

    Encoder, decoder and skips follow Çiçek et al. 2016 (10.1007/978-3-319-46723-8_49). It differs on purpose where
    that network spends most of its time and memory, at full resolution: as in the residual U-Net of Kerfoot et al. 2019
    (10.1007/978-3-030-12029-0_40), the first convolution halves the resolution at once, every level has a single
    convolution, and a transposed convolution brings the answer back. Without that paper's residual units it is the
    network that MONAI calls ``UNet(channels=…, strides=(2, …), num_res_units=0)``, with nnU-Net's instance norm that
    learns a scale and an offset; a test holds both to one output.

    Args:
        in_channels: of the image.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given.
        channels: of the levels from half resolution down; the last one keeps the resolution of the one before.

    Raises:
        ValueError: a side is no multiple of 2 ** (len(channels) - 1), or there are fewer than two levels.
    """

    block_types = (_Block, _AttentionGate)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_shape: Shape,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
    ) -> None:
        if len(channels) < 2 or min(channels) < 1:
            raise ValueError(f"channels {tuple(channels)} must be two or more positive numbers")
        super().__init__(input_shape, divisor=2 ** (len(channels) - 1))
        self.out_channels = out_channels
        *levels, bottom = channels
        self.encoder = nn.ModuleList(_downsample(fine, coarse) for fine, coarse in pairwise((in_channels, *levels)))
        self.bottom = _Block(nn.Conv3d(levels[-1], bottom, 3, padding=1))
        # From the bottom up: what a level's skip has, what comes up to it, what goes on from it.
        skips = levels[::-1]
        signals = [bottom, *skips[1:]]
        outputs = [*skips[1:], out_channels]
        self.gate = nn.ModuleList(self._gate(skip, signal) for skip, signal in zip(skips, signals, strict=True))
        self.decoder = nn.ModuleList(
            _upsample(skip + signal, output) for skip, signal, output in zip(skips, signals, outputs, strict=True)
        )
        self.decoder[-1] = next(self.decoder[-1].children())  # logits are neither normalised nor activated

    def _gate(self, skip_channels: int, signal_channels: int) -> nn.Module:
        """What a skip passes through, given the features that come up to it."""
        return _OpenGate()

    def heads(self) -> list[nn.Module]:
        """The last transposed convolution."""
        return [self.decoder[-1]]

    def compute_logits(self, image_BCXYZ: Tensor) -> Tensor:
        """Down, through the bottom, and up again, where each level is joined by its skip."""
        logits: Tensor = self.decoder[-1](self._features(image_BCXYZ))
        return logits

    def logits_in_slabs(self, image_BCXYZ: Tensor) -> Iterator[Tensor]:
        """The last convolution slab by slab where there are many classes."""
        self.check_shape(image_BCXYZ.shape[2:])
        features, head = self._features(image_BCXYZ), self.decoder[-1]
        depth = features.shape[-1]
        planes = _PLANES if self.out_channels >= _MANY_CLASSES else depth
        for first in range(0, depth, planes):  # planes 2i and 2i + 1 come of the features' planes i and i + 1
            logits: Tensor = head(features[..., first : first + planes + 1])
            yield logits[..., : 2 * min(planes, depth - first)]

    def _features(self, image_BCXYZ: Tensor) -> Tensor:
        """What logits are made of, at half resolution."""
        skips, features = [], image_BCXYZ
        for downsample in self.encoder:
            features = downsample(features)
            skips.append(features)
        features = self.bottom(features)
        for gate, upsample in zip(self.gate, [*self.decoder[:-1], nn.Identity()], strict=True):
            features = upsample(torch.cat([gate(skips.pop(), features), features], dim=1))
        return features


class AttentionUNet3D(UNet):
    """The UNet with additive attention gates on its skips (Oktay et al. 2018, arXiv:1804.03999).

    It differs from the paper on purpose: skip and gating signal have one resolution here, as the body upsamples after
    it joins them, so that the attention map needs no resampling, and the body is this project's light ``UNet``.
    """

    def _gate(self, skip_channels: int, signal_channels: int) -> nn.Module:
        return _AttentionGate(skip_channels, signal_channels)


def _downsample(in_channels: int, out_channels: int) -> _Block:
    return _Block(nn.Conv3d(in_channels, out_channels, 3, stride=2, padding=1))


def _upsample(in_channels: int, out_channels: int) -> _Block:
    return _Block(nn.ConvTranspose3d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1))
