"""ResEncUNet: nnU-Net's residual encoder U-Net."""

from __future__ import annotations

from collections.abc import Sequence

from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import nn

from networks.network import LibraryNetwork, Shape

# nnU-Net's planner stops to halve where a side would fall below this.
_LEAST_SIDE_VOX = 4


class ResEncUNet(LibraryNetwork):
    """The residual encoder U-Net of nnU-Net (Isensee et al. 2024, arXiv:2404.09556), from its own library.

    As nnU-Net plans it, resolution is halved until the input's shortest side has fewer than 8 voxels left; where
    nnU-Net would then go on along the longer sides, this stops, so that all sides are treated alike.

    Args:
        in_channels: of the image.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given; decides how many of the levels there are.
        channels: of the levels, at most; nnU-Net's.
        blocks: residual blocks of the encoder's levels; nnU-Net's. The decoder has one convolution a level.
        deep_supervision: in training, logits of all levels but the coarsest.

    Raises:
        ValueError: a side is no multiple of 2 for each halving, or channels and blocks differ in length.
    """

    block_types = (BasicBlockD, StackedConvBlocks)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_shape: Shape,
        channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
        blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
        deep_supervision: bool = False,
    ) -> None:
        if len(channels) != len(blocks):
            raise ValueError(f"channels {tuple(channels)} and blocks {tuple(blocks)} must be equally many")
        levels = 1
        while levels < len(channels) and min(input_shape) // 2**levels >= _LEAST_SIDE_VOX:
            levels += 1
        super().__init__(input_shape, divisor=2 ** (levels - 1))
        self.body = ResidualEncoderUNet(
            in_channels,
            n_stages=levels,
            features_per_stage=list(channels[:levels]),
            conv_op=nn.Conv3d,
            kernel_sizes=3,
            strides=[1] + [2] * (levels - 1),
            n_blocks_per_stage=list(blocks[:levels]),
            num_classes=out_channels,
            n_conv_per_stage_decoder=1,
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=deep_supervision,
        )
        self.body.apply(ResidualEncoderUNet.initialize)
        if not deep_supervision:
            # The library makes the coarser levels' heads all the same; they would never learn.
            self.body.decoder.seg_layers = self.body.decoder.seg_layers[-1:]

    def heads(self) -> list[nn.Module]:
        """The 1×1×1 convolution of each level that gives logits."""
        return list(self.body.decoder.seg_layers)
