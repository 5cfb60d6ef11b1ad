"""SwinUNetR: MONAI's Swin UNETR, its attention computed some windows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from monai.networks.blocks import UnetrBasicBlock, UnetrUpBlock
from monai.networks.nets import SwinUNETR
from monai.networks.nets.swin_unetr import (
    BasicLayer,
    PatchMerging,
    PatchMergingV2,
    SwinTransformerBlock,
    WindowAttention,
    get_window_size,
    window_partition,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from networks.blocks.norms import norm_single_voxels
from networks.blocks.residual_block import ResidualBlock, split_residual_blocks
from networks.network import LibraryNetwork, Shape

# Attention scores that exist at a time: 128 MiB in float32. A 128³ input has 1000 windows of 343 voxels in its first
# stage, and 1.3 GiB of scores for every step of their computation.
_SCORES_AT_ONCE = 2**25


class SwinUNetR(LibraryNetwork):
    """Swin UNETR (Hatamizadeh et al. 2022, arXiv:2201.01266), MONAI's, with the paper's feature size.

    The numbers are MONAI's; the memory isn't. Scores are computed for some windows at a time, and again in the backward
    pass, as flash attention does (Dao et al. 2022, arXiv:2205.14135); and the mask of the shifted windows, half a
    gigabyte at 128³, is made for those windows alone. A single voxel can be normed, so that 32³ is an input too.

    Args:
        in_channels: of the image.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given.
        feature_size: channels of the first stage, a multiple of 12.
        depths: transformer blocks of the four stages.
        num_heads: attention heads of the four stages.
        window_size: side of an attention window, in patches of 2³ voxels.
        drop_path_rate: greatest probability that a block is left out in training.
        use_v2: with a residual convolution before each stage.

    Raises:
        ValueError: a side is no multiple of 32, or an option that MONAI refuses.
    """

    block_types = (UnetrBasicBlock, UnetrUpBlock, SwinTransformerBlock, PatchMerging, PatchMergingV2, ResidualBlock)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_shape: Shape,
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_path_rate: float = 0.0,
        use_v2: bool = False,
    ) -> None:
        super().__init__(input_shape, divisor=32)
        self.body = SwinUNETR(
            in_channels,
            out_channels,
            feature_size=feature_size,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            dropout_path_rate=drop_path_rate,
            use_v2=use_v2,
        )
        for module in self.body.modules():
            if isinstance(module, BasicLayer):
                module.__class__ = _Stage
            elif isinstance(module, WindowAttention):
                module.__class__ = _WindowAttention
        split_residual_blocks(self.body)
        norm_single_voxels(self.body.encoder10)

    def heads(self) -> list[nn.Module]:
        """The last 1×1×1 convolution."""
        return [self.body.out.conv.conv]


class _Stage(BasicLayer):
    """MONAI's stage of transformer blocks, which are given the windows' regions in place of a mask made of them."""

    def forward(self, features_BCXYZ: Tensor) -> Tensor:
        shape = features_BCXYZ.shape[2:]
        window, shift = get_window_size(shape, self.window_size, self.shift_size)
        padded = [-(-size // side) * side for size, side in zip(shape, window, strict=True)]
        regions_WN = _regions(padded, window, shift).to(features_BCXYZ.device)
        features_BXYZC = features_BCXYZ.movedim(1, -1)
        for block in self.blocks:
            features_BXYZC = block(features_BXYZC, regions_WN)
        if self.downsample is not None:
            features_BXYZC = self.downsample(features_BXYZC)
        return features_BXYZC.movedim(-1, 1)


class _WindowAttention(WindowAttention):
    """MONAI's attention within windows, some windows at a time.

    Args of forward:
        windows_WNC: windows of all images of a batch, one after the other.
        mask: regions (windows of an image, N) as ``_regions`` gives them; None where windows aren't shifted.
    """

    def forward(self, windows_WNC: Tensor, mask: Tensor | None) -> Tensor:
        count, voxels, _ = windows_WNC.shape
        at_once = max(1, _SCORES_AT_ONCE // (self.num_heads * voxels**2))
        attended = []
        for first in range(0, count, at_once):
            some = windows_WNC[first : first + at_once]
            regions = None
            if mask is not None:
                regions = mask[torch.arange(first, first + len(some), device=mask.device) % len(mask)]
            if torch.is_grad_enabled():
                attended.append(checkpoint(self._attend, some, regions, use_reentrant=False))
            else:
                attended.append(self._attend(some, regions))
        return torch.cat(attended)

    def _attend(self, windows_WNC: Tensor, regions_WN: Tensor | None) -> Tensor:
        if regions_WN is None:
            return super().forward(windows_WNC, None)
        apart = regions_WN[:, :, None] != regions_WN[:, None, :]
        return super().forward(windows_WNC, apart * -100.0)  # the paper's code: what exp makes nothing of


def _regions(shape: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """Which voxels of a shifted window were neighbours before the shift: those with the same number.

    A cyclic shift brings the two ends of an axis into one window; they must not attend to each other.

    Returns:
        (windows, voxels of a window) int.
    """
    numbers = torch.zeros(1, *shape, 1, dtype=torch.int32)
    for x, y, z in product(*(_parts(*axis) for axis in zip(shape, window, shift, strict=True))):
        numbers[:, x[0], y[0], z[0]] = 9 * x[1] + 3 * y[1] + z[1]
    return window_partition(numbers, window)[..., 0]


def _parts(size: int, window: int, shift: int) -> list[tuple[slice, int]]:
    """Along one axis: what no shift mixes, and the two ends that meet in the last window."""
    if shift == 0:
        return [(slice(size), 0)]
    ends = (0, size - window, size - shift, size)
    return [(slice(ends[part], ends[part + 1]), part) for part in range(3)]
