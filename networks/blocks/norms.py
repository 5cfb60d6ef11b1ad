"""Norms that also take a single voxel, which a small input leaves at the bottom of a deep network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceNorm(nn.GroupNorm):
    """Instance norm of (B, C, X, Y, Z): every channel of every image by its own mean and spread (Ulyanov et al. 2016).

    One group a channel, computed by torch, whose own modules refuse a single image's single voxel. That one becomes 0.
    """

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(channels, channels, affine=affine)

    def forward(self, features_BCXYZ: Tensor) -> Tensor:
        """(B, C, X, Y, Z) to the same."""
        return torch.group_norm(features_BCXYZ, self.num_groups, self.weight, self.bias, self.eps)


class BatchNorm(nn.BatchNorm3d):
    """Batch norm of (B, C, X, Y, Z), which norms a single image's single voxel by its running statistics."""

    def forward(self, features_BCXYZ: Tensor) -> Tensor:
        """(B, C, X, Y, Z) to the same."""
        if features_BCXYZ.numel() == self.num_features:
            return F.batch_norm(
                features_BCXYZ, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(features_BCXYZ)


def norm_single_voxels(body: nn.Module) -> None:
    """Replace torch's norms in a new network of a library, which refuse a single voxel, by their equals from here."""
    for module in list(body.modules()):
        for name, norm in module.named_children():
            if isinstance(norm, nn.InstanceNorm3d):
                setattr(module, name, InstanceNorm(norm.num_features, norm.affine))
            elif isinstance(norm, nn.BatchNorm3d):
                setattr(module, name, BatchNorm(norm.num_features))
            elif isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels:
                setattr(module, name, InstanceNorm(norm.num_channels))
