"""The residual block that MONAI's UNETR and Swin UNETR share, in parts."""

from __future__ import annotations

from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn


class ResidualBlock(UnetResBlock):
    """MONAI's, with methods that activation checkpointing can recompute one after the other instead of all at once.

    At full resolution these blocks need most of a network's memory: each holds six feature maps.
    """

    checkpointed = ("first", "second", "shortcut")

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, X, Y, Z) to (B, K, X, Y, Z)."""
        out = self.second(self.first(features))
        out = out + (self.shortcut(features) if self.downsample else features)
        return self.lrelu(out)

    def first(self, features: Tensor) -> Tensor:
        """The first convolution, normed and activated."""
        return self.lrelu(self.norm1(self.conv1(features)))

    def second(self, features: Tensor) -> Tensor:
        """The second convolution, normed."""
        return self.norm2(self.conv2(features))

    def shortcut(self, features: Tensor) -> Tensor:
        """What is added where the block changes the number of channels."""
        return self.norm3(self.conv3(features))


def split_residual_blocks(body: nn.Module) -> None:
    """Turn every residual block of MONAI's in a network into one in parts."""
    for module in body.modules():
        if type(module) is UnetResBlock:
            module.__class__ = ResidualBlock
