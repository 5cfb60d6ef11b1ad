"""VNet: MONAI's V-Net."""

from __future__ import annotations

from monai.networks.nets import VNet as MonaiVNet
from monai.networks.nets.vnet import DownTransition, InputTransition, LUConv, UpTransition
from torch import nn

from networks.blocks.norms import norm_single_voxels
from networks.network import LibraryNetwork, Shape

_LAST_CHANNELS = 32  # of the last stage, fixed in MONAI


class VNet(LibraryNetwork):
    """V-Net (Milletari et al. 2016, arXiv:1606.04797), MONAI's: residual stages of 5×5×5 convolutions.

    Its last layer is the paper's, a 1×1×1 convolution on the last stage's channels. MONAI's first squeezes them into a
    normed channel a class, which with a single class holds its logits near their bias for hundreds of steps.

    Args:
        in_channels: of the image; a divisor of 16.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given.
        dropout: of the channels in the coarse stages.

    Raises:
        ValueError: a side is no multiple of 16.
    """

    block_types = (InputTransition, DownTransition, UpTransition, LUConv)

    def __init__(self, in_channels: int, out_channels: int, input_shape: Shape, dropout: float = 0.5) -> None:
        super().__init__(input_shape, divisor=16)
        self.body = MonaiVNet(3, in_channels, dropout_prob_down=dropout, dropout_prob_up=(dropout, dropout))
        self.body.out_tr = nn.Conv3d(_LAST_CHANNELS, out_channels, kernel_size=1)
        norm_single_voxels(self.body)

    def heads(self) -> list[nn.Module]:
        """The last 1×1×1 convolution."""
        return [self.body.out_tr]
