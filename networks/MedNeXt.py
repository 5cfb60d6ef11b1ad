"""MedNeXt: MONAI's."""

from __future__ import annotations

from monai.networks.blocks.mednext_block import MedNeXtBlock, MedNeXtDownBlock, MedNeXtUpBlock
from monai.networks.nets import mednext
from torch import nn

from networks.blocks.norms import norm_single_voxels
from networks.network import LibraryNetwork, Shape

# Variant -> expansion of channels in the blocks of the four levels going down, at the bottom and going up; blocks of
# each level going down, and at the bottom. MONAI's create_mednext has the same, but no choice of filters.
_VARIANTS = {
    "S": ((2, 2, 2, 2), 2, (2, 2, 2, 2), (2, 2, 2, 2), 2),
    "B": ((2, 3, 4, 4), 4, (4, 4, 3, 2), (2, 2, 2, 2), 2),
    "M": ((2, 3, 4, 4), 4, (4, 4, 3, 2), (3, 4, 4, 4), 4),
    "L": ((3, 4, 8, 8), 8, (8, 8, 4, 3), (3, 4, 8, 8), 8),
}


class MedNeXt(LibraryNetwork):
    """MedNeXt (Roy et al. 2023, arXiv:2303.09975), MONAI's: a U-Net of ConvNeXt blocks.

    Args:
        in_channels: of the image.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given.
        variant: S, B, M or L, the paper's sizes.
        kernel_size: of the depthwise convolutions, 3 or 5 in the paper.
        deep_supervision: in training, logits of all five levels.
        filters: channels of the first level; 32 in the paper, fewer for small hardware.

    Raises:
        ValueError: a side is no multiple of 16, an unknown variant, or no filters.
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
        filters: int = 32,
    ) -> None:
        if variant.upper() not in _VARIANTS or filters < 1:
            variants = ", ".join(_VARIANTS)
            raise ValueError(f"variant {variant!r} must be one of {variants}, and filters {filters} positive")
        super().__init__(input_shape, divisor=16)
        down, bottom, up, blocks, bottom_blocks = _VARIANTS[variant.upper()]
        self.body = mednext.MedNeXt(
            init_filters=filters,
            in_channels=in_channels,
            out_channels=out_channels,
            encoder_expansion_ratio=down,
            bottleneck_expansion_ratio=bottom,
            decoder_expansion_ratio=up,
            kernel_size=kernel_size,
            deep_supervision=deep_supervision,
            use_residual_connection=True,
            blocks_down=blocks,
            blocks_bottleneck=bottom_blocks,
            blocks_up=blocks[::-1],
        )
        norm_single_voxels(self.body)

    def heads(self) -> list[nn.Module]:
        """The 1×1×1 convolution of each level that gives logits."""
        return [block.conv_out for block in (self.body.out_0, *getattr(self.body, "out_blocks", ()))]
