"""Losses of logits and targets, as a float32 scalar. In training, sigmoid and softmax are applied only here.

The loss of a batch is the mean of the losses of its items, so a batch of four patches teaches what four batches of one
patch teach together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Added to numerator and denominator of the Dice, as a share of the voxels. In a patch without foreground, the loss of F
# false positive voxels is F / (F + smoothing). With a smoothing of one voxel it is nearly 1 for any F, and its gradient
# vanishes. With a thousandth of the voxels (885 in a patch of 96³, about a piece of rib) it grows with F, and false
# positives are unlearnt.
_SMOOTHING_SHARE = 1e-3
# Sum of a heatmap below which an image counts as if it had that: about that of one Gaussian with a σ of a voxel and a
# half. An image without any is not divided by 0.
_LEAST_MASS = 50.0


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


class HeatmapCE(nn.Module):
    """Cross entropy of heatmaps, of one with its background, or of several that add up to 1.

    The sum over the voxels is divided by the sum of the heatmaps, not by the number of voxels: of some twenty Gaussians
    in a view, each voxel of a centre counts as much as one of a mask does. A mean over all voxels, 99.9 % of them
    background, leaves all channels at 0 for long.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the items. Both (B, K, X, Y, Z); target in [0, 1], channel 0 the background where K > 1."""
        logits, target = logits.float(), target.float()
        if logits.shape[1] == 1:
            entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            mass = target.sum((1, 2, 3, 4))
        else:
            entropy = -(target * F.log_softmax(logits, dim=1))
            mass = target[:, 1:].sum((1, 2, 3, 4))
        return (entropy.sum((1, 2, 3, 4)) / mass.clamp(min=_LEAST_MASS)).mean()


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

    Each item of the batch is scored by itself, several classes by the mean over them (not the background). Where
    a target lacks a class, the loss is 0 if nothing is found, and grows with what is found.
    Logits (B, K, X, Y, Z), target (B, 1, X, Y, Z) class indices.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the items and classes, between 0 (perfect) and 1."""
        classes = logits.shape[1]
        if classes == 1:
            probabilities, expected = torch.sigmoid(logits.float()), target.float()
        else:
            probabilities = torch.softmax(logits.float(), dim=1)[:, 1:]
            expected = torch.cat([target == index for index in range(1, classes)], dim=1).float()
        voxels = (2, 3, 4)
        overlap = (probabilities * expected).sum(voxels)
        total = probabilities.sum(voxels) + expected.sum(voxels)
        smoothing = _SMOOTHING_SHARE * target[0].numel()
        return 1 - ((2 * overlap + smoothing) / (total + smoothing)).mean()


class DiceCE(nn.Module):
    """Sum of Dice and cross entropy, as in nnU-Net (Isensee et al. 2021, 10.1038/s41592-020-01008-z)."""

    def __init__(self) -> None:
        super().__init__()
        self.dice, self.cross_entropy = Dice(), BCE()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z), target (B, 1, X, Y, Z) class indices."""
        loss: Tensor = self.dice(logits, target) + self.cross_entropy(logits, target)
        return loss


class DeepSupervision(nn.Module):
    """Weighted mean of a loss over all resolutions at which a network returns logits; of one, the loss itself.

    Each level has half the weight of the one before, as in nnU-Net (Isensee et al. 2021). The target is resized to each
    level: class indices by the nearest neighbour, heatmaps by the mean.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z), or a sequence of them, finest first; target (B, 1 or K, X, Y, Z)."""
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


def build_loss(name: str) -> DeepSupervision:
    """The loss of a name in ``utils.tasks.Task.losses``, which is that of its class."""
    return DeepSupervision(globals()[name]())
