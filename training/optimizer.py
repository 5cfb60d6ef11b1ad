"""The optimizer of every training."""

from __future__ import annotations

from contextlib import redirect_stdout

from torch import nn
from torch.optim import Optimizer

# Prodigy finds its own step size (Mishchenko and Defazio 2024, arXiv:2306.06101). By its defaults it starts from 1e-6,
# which costs these networks their first 100 to 300 steps, and then finds about 6e-3, at which single patches toss the
# loss about; d_coef is its authors' knob for that. From here it stays at 2e-3, which learns faster than 8e-4.
_START, _START_FACTOR = 2e-3, 0.02
_WEIGHT_DECAY = 0.01


def build_optimizer(network: nn.Module, lr: float = 1.0) -> Optimizer:
    """Prodigy over a network's weights; ``lr`` is a factor on the step size that it finds."""
    from prodigyopt import Prodigy

    with redirect_stdout(None):  # it announces its weight decay
        return Prodigy(
            network.parameters(),
            lr=lr,
            d0=_START,
            d_coef=_START_FACTOR,
            weight_decay=_WEIGHT_DECAY,
            use_bias_correction=True,
        )
