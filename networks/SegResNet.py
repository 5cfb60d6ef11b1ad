"""SegResNet: MONAI's."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks.segresnet_block import ResBlock
from monai.networks.nets import SegResNet as MonaiSegResNet
from torch import nn

from networks.network import LibraryNetwork, Shape


class SegResNet(LibraryNetwork):
    """The residual encoder and decoder of Myronenko 2018 (arXiv:1810.11654) without its autoencoder, MONAI's.

    Args:
        in_channels: of the image.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given.
        init_filters: channels at full resolution, a multiple of 8; the paper's.
        blocks_down: residual blocks of each level on the way down.
        blocks_up: residual blocks of each level on the way up, one level fewer.

    Raises:
        ValueError: a side is no multiple of 2 ** (len(blocks_down) - 1), or the options don't fit each other.
    """

    block_types = (ResBlock,)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_shape: Shape,
        init_filters: int = 32,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        blocks_up: Sequence[int] = (1, 1, 1),
    ) -> None:
        if len(blocks_up) != len(blocks_down) - 1:
            raise ValueError(f"blocks_up {tuple(blocks_up)} must have one level fewer than {tuple(blocks_down)}")
        super().__init__(input_shape, divisor=2 ** len(blocks_up))
        self.body = MonaiSegResNet(
            init_filters=init_filters,
            in_channels=in_channels,
            out_channels=out_channels,
            blocks_down=tuple(blocks_down),
            blocks_up=tuple(blocks_up),
        )

    def heads(self) -> list[nn.Module]:
        """The last 1×1×1 convolution."""
        return [self.body.conv_final[-1].conv]
