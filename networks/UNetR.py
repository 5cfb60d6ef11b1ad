"""UNetR: MONAI's UNETR."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks import TransformerBlock, UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from monai.networks.nets import UNETR
from torch import nn

from networks.blocks.residual_block import ResidualBlock, split_residual_blocks
from networks.network import LibraryNetwork, Shape


class UNetR(LibraryNetwork):
    """UNETR (Hatamizadeh et al. 2022, arXiv:2103.10504), MONAI's, with the paper's ViT-B.

    Its position codes belong to one input shape, so that it takes no other.

    Args:
        in_channels: of the image.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given.
        feature_size: channels at full resolution.
        hidden_size: channels of the transformer.
        mlp_dim: width of its feed-forward networks.
        num_heads: its attention heads.

    Raises:
        ValueError: a side is no multiple of 16; in forward, another shape than ``input_shape``.
    """

    block_types = (TransformerBlock, UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock, ResidualBlock)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_shape: Shape,
        feature_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_heads: int = 12,
    ) -> None:
        super().__init__(input_shape, divisor=16)
        self.body = UNETR(
            in_channels,
            out_channels,
            img_size=input_shape,
            feature_size=feature_size,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_heads=num_heads,
        )
        split_residual_blocks(self.body)
        self.input_shape = tuple(input_shape)
        for block in self.body.vit.blocks:
            block.norm_cross_attn = nn.Identity()  # belongs to an attention that UNETR hasn't; would never learn

    def heads(self) -> list[nn.Module]:
        """The last 1×1×1 convolution."""
        return [self.body.out.conv.conv]

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raise ValueError where (X, Y, Z) is not what the network was built for."""
        super().check_shape(shape)
        built_for = getattr(self, "input_shape", tuple(shape))
        if tuple(shape) != built_for:
            raise ValueError(f"input shape {tuple(shape)} is not {built_for}, which UNetR was built for")
