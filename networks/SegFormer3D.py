"""SegFormer3D: a light hierarchical transformer, its attention over a shortened sequence, its decoder all linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.blocks.norms import BatchNorm
from networks.network import Network, Shape

# Kernels and strides of the four patch embeddings; the paper's, like all defaults here.
_KERNELS = (7, 3, 3, 3)
_STRIDES = (4, 2, 2, 2)


class SegFormer3D(Network):
    """SegFormer3D (Perera, Navard, Yilmaz 2024, CVPR Workshops, arXiv:2404.10156).

    Four stages, each of an overlapping patch embedding and blocks of self-attention and a feed-forward network that
    holds a depthwise convolution in place of a position code; a decoder that brings every stage to one width and to the
    first stage's resolution (a quarter of the input's) and fuses them. Norms are where its authors' code has them: a
    batch norm behind the depthwise convolution, which the paper doesn't draw, a layer norm in the decoder's inputs.

    It takes any shape that the total stride divides, cube or not, which that code doesn't.

    Args:
        in_channels: of the image.
        out_channels: of the logits.
        input_shape: (X, Y, Z) that will be given.
        embed_dims: channels of the stages.
        num_heads: attention heads of the stages; each divides its stage's channels.
        depths: blocks in each stage.
        reductions: factor on each axis by which a stage's keys and values are shortened.
        mlp_ratio: width of the feed-forward network, in embed_dims.
        decoder_dim: channels of the decoder.

    Raises:
        ValueError: a side is no multiple of the total stride (32), or the options don't fit each other.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_shape: Shape,
        embed_dims: Sequence[int] = (32, 64, 160, 256),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        depths: Sequence[int] = (2, 2, 2, 2),
        reductions: Sequence[int] = (4, 2, 1, 1),
        mlp_ratio: int = 4,
        decoder_dim: int = 256,
    ) -> None:
        if {len(embed_dims), len(num_heads), len(depths), len(reductions)} != {len(_STRIDES)}:
            raise ValueError(f"embed_dims, num_heads, depths and reductions must have {len(_STRIDES)} values each")
        if any(dim % heads for dim, heads in zip(embed_dims, num_heads, strict=True)):
            raise ValueError(f"num_heads {tuple(num_heads)} must divide embed_dims {tuple(embed_dims)}")
        strides = list(accumulate(_STRIDES, mul))
        divisor = math.lcm(*(stride * reduction for stride, reduction in zip(strides, reductions, strict=True)))
        super().__init__(input_shape, divisor)
        self.stages = nn.ModuleList()
        for stage, (dim, heads, depth, reduction) in enumerate(
            zip(embed_dims, num_heads, depths, reductions, strict=True)
        ):
            before = embed_dims[stage - 1] if stage else in_channels
            blocks = [_TransformerBlock(dim, heads, reduction, mlp_ratio) for _ in range(depth)]
            embedding = _PatchEmbedding(before, dim, _KERNELS[stage], _STRIDES[stage])
            self.stages.append(nn.Sequential(embedding, *blocks, nn.LayerNorm(dim)))
        self.decoder = _Decoder(embed_dims, decoder_dim)
        self.head = nn.Conv3d(decoder_dim, out_channels, 1)
        self.apply(_initialise)
        nn.init.normal_(self.head.weight, std=0.01)  # as in SegFormer's code; by its fan, logits would start near 20

    def heads(self) -> list[nn.Module]:
        """The last 1×1×1 convolution."""
        return [self.head]

    def compute_logits(self, image_BCXYZ: Tensor) -> Tensor:
        """Down the stages, fused at a quarter of the resolution, brought back by trilinear interpolation."""
        features_BCXYZ, levels = image_BCXYZ, []
        for stage in self.stages:
            features_BCXYZ = _channels_first(stage(features_BCXYZ))
            levels.append(features_BCXYZ)
        logits = self.head(self.decoder(*levels))
        return F.interpolate(logits, image_BCXYZ.shape[2:], mode="trilinear", align_corners=False)


class _PatchEmbedding(nn.Module):
    """(B, C, X, Y, Z) to features of overlapping patches, (B, X, Y, Z, C)."""

    def __init__(self, in_channels: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(in_channels, dim, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image_BCXYZ: Tensor) -> Tensor:
        return self.norm(_channels_last(self.convolution(image_BCXYZ)))


class _TransformerBlock(nn.Module):
    """Attention, then a feed-forward network, each added to what it was given. (B, X, Y, Z, C) to the same."""

    def __init__(self, dim: int, heads: int, reduction: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = _SelfAttention(dim, heads, reduction)
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = _MixFeedForward(dim, mlp_ratio * dim)

    def forward(self, features_BXYZC: Tensor) -> Tensor:
        features_BXYZC = features_BXYZC + self.attention(self.norm1(features_BXYZC))
        return features_BXYZC + self.feed_forward(self.norm2(features_BXYZC))


class _SelfAttention(nn.Module):
    """Every voxel attends to a grid that a strided convolution made ``reduction`` times coarser on each axis.

    Scores are scaled by the root of a head's channels (Vaswani et al. 2017, arXiv:1706.03762).
    """

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.reduce = nn.Conv3d(dim, dim, reduction, stride=reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(dim) if reduction > 1 else None

    def forward(self, features_BXYZC: Tensor) -> Tensor:
        coarse_BXYZC = features_BXYZC
        if self.reduce is not None and self.norm is not None:
            coarse_BXYZC = self.norm(_channels_last(self.reduce(_channels_first(features_BXYZC))))
        query = self._split_heads(self.query(features_BXYZC))
        key, value = (self._split_heads(part) for part in self.key_value(coarse_BXYZC).chunk(2, dim=-1))
        attended_BHNC = F.scaled_dot_product_attention(query, key, value)
        return self.out(attended_BHNC.transpose(1, 2).reshape(features_BXYZC.shape))

    def _split_heads(self, features_BXYZC: Tensor) -> Tensor:
        """(B, X, Y, Z, C) to (B, heads, X·Y·Z, C / heads)."""
        return features_BXYZC.flatten(1, 3).unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _MixFeedForward(nn.Module):
    """Two linear layers around a depthwise convolution, which tells where a voxel is (Xie et al. 2021, 3.1)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden_dim)
        self.depthwise = nn.Conv3d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.norm = BatchNorm(hidden_dim)
        self.contract = nn.Linear(hidden_dim, dim)

    def forward(self, features_BXYZC: Tensor) -> Tensor:
        mixed_BCXYZ = self.norm(self.depthwise(_channels_first(self.expand(features_BXYZC))))
        return self.contract(F.gelu(_channels_last(mixed_BCXYZ)))


class _Decoder(nn.Module):
    """Every level to one width, upsampled to the finest, fused by a 1×1×1 convolution."""

    def __init__(self, level_dims: Sequence[int], dim: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Linear(level_dim, dim), nn.LayerNorm(dim)) for level_dim in level_dims
        )
        self.fuse = nn.Sequential(
            nn.Conv3d(len(level_dims) * dim, dim, 1, bias=False), nn.BatchNorm3d(dim), nn.ReLU(inplace=True)
        )

    def forward(self, *levels_BCXYZ: Tensor) -> Tensor:
        finest = levels_BCXYZ[0].shape[2:]
        upsampled = []
        for linear, level_BCXYZ in zip(self.levels, levels_BCXYZ, strict=True):
            widened = _channels_first(linear(_channels_last(level_BCXYZ)))
            upsampled.append(F.interpolate(widened, finest, mode="trilinear", align_corners=False))
        return self.fuse(torch.cat(upsampled, dim=1))


SegFormer3D.block_types = (_PatchEmbedding, _TransformerBlock, _Decoder)


def _channels_last(features_BCXYZ: Tensor) -> Tensor:
    return features_BCXYZ.movedim(1, -1)


def _channels_first(features_BXYZC: Tensor) -> Tensor:
    return features_BXYZC.movedim(-1, 1).contiguous()


def _initialise(module: nn.Module) -> None:
    """SegFormer's start (Xie et al. 2021, arXiv:2105.15203, its code)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv3d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
