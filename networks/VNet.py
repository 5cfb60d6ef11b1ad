"""VNet: MONAI's V-Net."""

from __future__ import annotations

from monai.networks.nets import VNet as MonaiVNet
from monai.networks.nets.vnet import DownTransition, InputTransition, LUConv, OutputTransition, UpTransition
from torch import nn

from networks import Shape
from networks.network import LibraryNetwork

_LOGITS_PER_SPREAD = 2.0


class VNet(LibraryNetwork):
    """V-Net (Milletari et al. 2016, arXiv:1606.04797), MONAI's: residual stages of 5×5×5 convolutions.

    Args:
        in_channels: of the image; a divisor of 16.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given.
        dropout: of the channels in the coarse stages.

    Raises:
        ValueError: a side is no multiple of 16.
    """

    block_types = (InputTransition, DownTransition, UpTransition, LUConv, OutputTransition)

    def __init__(self, in_channels: int, out_channels: int, input_shape: Shape, dropout: float = 0.5) -> None:
        super().__init__(input_shape, divisor=16)
        self.body = MonaiVNet(
            3, in_channels, out_channels, dropout_prob_down=dropout, dropout_prob_up=(dropout, dropout)
        )

        # The last layer sees one channel a class, normed to a spread of 1. With a start near 0 its logits stay near its
        # bias, which says "background", for hundreds of steps; with much more it wouldn't start as background.
        nn.init.dirac_(self.body.out_tr.conv2.weight)
        self.body.out_tr.conv2.weight.data *= _LOGITS_PER_SPREAD

    def heads(self) -> list[nn.Module]:
        """The last 1×1×1 convolution."""
        return [self.body.out_tr.conv2]
