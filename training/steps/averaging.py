"""A moving average of the weights: steadier from epoch to epoch than the weights themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def average_weights(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of a network whose weights follow those of the network, by an exponential moving average.

    Args:
        network: on its device. ``update_parameters`` of the result is called with it after each step.
        decay: share of the average that a step keeps, below 1. In step n it is at most (1 + n) / (10 + n), so that the
            average forgets the first weights early (as in TensorFlow's ``ExponentialMovingAverage``).
    """

    @torch.no_grad()
    def follow(averages: Tensors, weights: Tensors, steps: Tensor | int) -> None:
        kept = min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(averages, weights, 1 - kept)

    return AveragedModel(network, multi_avg_fn=follow)
