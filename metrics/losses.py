"""Losses: logits and targets to a float32 scalar. The activation happens in here, and nowhere else in training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Added to numerator and denominator of the Dice, as a share of the voxels. In a patch without bone, the loss of F false
# voxels is F / (F + smoothing): with a smoothing of a voxel it is 1 for whatever is false, and such patches teach
# nothing. With a thousandth of a 96³ patch, about a piece of rib, it grows with F, and bone elsewhere is unlearnt.
_SMOOTHING_SHARE = 1e-3


class MSE(nn.Module):
    """Mean squared error of a heatmap. Both: (B, 1, X, Y, Z); target in [0, 1]."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over all voxels."""
        return F.mse_loss(torch.sigmoid(logits.float()), target.float())


class Wing(nn.Module):
    """Wing loss (Feng et al. 2018, arXiv:1711.06753, equation 5) of a heatmap.

    The paper's w = 10 and epsilon = 2 are pixels of a landmark's error; here errors are heatmap values of at most 1,
    so both are a hundredth, which keeps their ratio.

    Args:
        width: error at which the loss turns from logarithmic to linear.
        curvature: epsilon of the paper.
    """

    def __init__(self, width: float = 0.1, curvature: float = 0.02) -> None:
        super().__init__()
        self.width, self.curvature = width, curvature
        self.offset = width - width * math.log1p(width / curvature)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over all voxels. Both (B, 1, X, Y, Z); target in [0, 1]."""
        error = (torch.sigmoid(logits.float()) - target.float()).abs()
        near = self.width * torch.log1p(error / self.curvature)
        return torch.where(error < self.width, near, error - self.offset).mean()


class AdaptiveWing(nn.Module):
    """Adaptive wing loss (Wang et al. 2019, arXiv:1904.07399, equations 3 and 4) of a heatmap.

    Args:
        omega, theta, epsilon, alpha: of the paper, with its values.
    """

    def __init__(self, omega: float = 14.0, theta: float = 0.5, epsilon: float = 1.0, alpha: float = 2.1) -> None:
        super().__init__()
        self.omega, self.theta, self.epsilon, self.alpha = omega, theta, epsilon, alpha

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over all voxels. Both (B, 1, X, Y, Z); target in [0, 1]."""
        target = target.float()
        error = (torch.sigmoid(logits.float()) - target).abs()
        power = self.alpha - target
        at_theta = (self.theta / self.epsilon) ** power
        slope = self.omega * power * at_theta / (self.theta * (1 + at_theta))
        offset = self.theta * slope - self.omega * torch.log1p(at_theta)
        # The lower bound keeps the power's gradient finite where there is no error.
        near = self.omega * torch.log1p((error.clamp(min=1e-6) / self.epsilon) ** power)
        return torch.where(error < self.theta, near, slope * error - offset).mean()


class BCE(nn.Module):
    """Cross entropy of a mask: binary for one channel of logits, over the classes for more.

    Logits (B, K, X, Y, Z), target (B, 1, X, Y, Z) class indices.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over all voxels."""
        if logits.shape[1] == 1:
            return F.binary_cross_entropy_with_logits(logits.float(), target.float())
        return F.cross_entropy(logits.float(), target[:, 0].long())


class Dice(nn.Module):
    """1 - soft Dice of a mask (Milletari et al. 2016, arXiv:1606.04797, without their squares).

    The batch is scored as one volume. With more than one channel the mean over the foreground classes.
    Logits (B, K, X, Y, Z), target (B, 1, X, Y, Z) class indices.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Between 0 (perfect) and 1."""
        classes = logits.shape[1]
        if classes == 1:
            probabilities, truth = torch.sigmoid(logits.float()), target.float()
        else:
            probabilities = torch.softmax(logits.float(), dim=1)[:, 1:]
            truth = torch.cat([target == index for index in range(1, classes)], dim=1).float()
        voxels = (0, 2, 3, 4)
        overlap = (probabilities * truth).sum(voxels)
        total = probabilities.sum(voxels) + truth.sum(voxels)
        smoothing = _SMOOTHING_SHARE * target.numel()
        return 1 - ((2 * overlap + smoothing) / (total + smoothing)).mean()


class DiceCE(nn.Module):
    """Sum of Dice and cross entropy, as nnU-Net has it (Isensee et al. 2021, 10.1038/s41592-020-01008-z)."""

    def __init__(self) -> None:
        super().__init__()
        self.dice, self.cross_entropy = Dice(), BCE()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z), target (B, 1, X, Y, Z) class indices."""
        return self.dice(logits, target) + self.cross_entropy(logits, target)


class DeepSupervision(nn.Module):
    """Any of these losses at every resolution of which a network gives logits, and as it is for a single one.

    Each level weighs half of the one before, and the weights add up to 1, as in nnU-Net (Isensee et al. 2021). The
    target is brought to a level's size: class indices by their nearest neighbour, heatmaps by their mean.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z), or a sequence of them, finest first; target (B, 1, X, Y, Z)."""
        levels = [logits] if isinstance(logits, Tensor) else logits
        weights = [0.5**depth for depth in range(len(levels))]
        losses = [self.loss(level, _resized(target, level.shape[2:])) for level in levels]
        weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
        return torch.stack(weighted).sum() / sum(weights)


def _resized(target: Tensor, shape: Sequence[int]) -> Tensor:
    if target.shape[2:] == tuple(shape):
        return target
    mode = "area" if target.is_floating_point() else "nearest-exact"
    return F.interpolate(target.float(), tuple(shape), mode=mode).to(target.dtype)


HEATMAP_LOSSES: dict[str, type[nn.Module]] = {"MSE": MSE, "Wing": Wing, "AdaptiveWing": AdaptiveWing}
MASK_LOSSES: dict[str, type[nn.Module]] = {"DiceCE": DiceCE, "Dice": Dice, "BCE": BCE}
