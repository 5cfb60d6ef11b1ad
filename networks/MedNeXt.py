"""MedNeXt: MONAI's."""

from __future__ import annotations

from monai.networks.blocks.mednext_block import MedNeXtBlock, MedNeXtDownBlock, MedNeXtUpBlock
from monai.networks.nets.mednext import create_mednext
from torch import nn

from networks.blocks.norms import norm_single_voxels
from networks.network import LibraryNetwork, Shape


class MedNeXt(LibraryNetwork):
    """MedNeXt (Roy et al. 2023, arXiv:2303.09975), MONAI's: a U-Net of ConvNeXt blocks.

    Args:
        in_channels: of the image.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given.
        variant: S, B, M or L, the paper's sizes.
        kernel_size: of the depthwise convolutions, 3 or 5 in the paper.
        deep_supervision: in training, logits of all five levels.

    Raises:
        ValueError: a side is no multiple of 16, or an unknown variant.
    """

    block_types = (MedNeXtBlock, MedNeXtDownBlock, MedNeXtUpBlock)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_shape: Shape,
        variant: str = "S",
        kernel_size: int = 3,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__(input_shape, divisor=16)
        self.body = create_mednext(variant, 3, in_channels, out_channels, kernel_size, deep_supervision)
        norm_single_voxels(self.body)

    def heads(self) -> list[nn.Module]:
        """The 1×1×1 convolution of each level that gives logits."""
        return [block.conv_out for block in (self.body.out_0, *getattr(self.body, "out_blocks", ()))]
