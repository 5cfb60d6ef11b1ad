"""The optimizer of a training, and the learning rate of each of its steps."""

from __future__ import annotations

import math
from contextlib import redirect_stdout

from prodigyopt import Prodigy
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from training.settings import TrainingSettings

# Prodigy finds the learning rate itself (Mishchenko and Defazio 2024, arXiv:2306.06101). With its defaults it starts at
# 1e-6, which costs these networks their first 100 to 300 steps, and then finds about 6e-3, at which the loss of single
# patches jumps. Its authors offer d_coef against this. With these values the learning rate stays at 2e-3; with 8e-4,
# the networks learn more slowly.
_START, _START_FACTOR = 2e-3, 0.02
# SGD as in nnU-Net (Isensee et al. 2021, 10.1038/s41592-020-01008-z), and the exponent of its schedule.
_MOMENTUM = 0.99
_POLY_EXPONENT = 0.9


def build_optimizer(network: nn.Module, settings: TrainingSettings) -> Optimizer:
    """The optimizer that the settings name, over all weights of a network.

    Args:
        network: on its device.
        settings: optimizer, lr, weight_decay and warmup are read.
    """
    weights, lr, weight_decay = network.parameters(), settings.lr, settings.weight_decay
    if settings.optimizer == "adamw":
        return AdamW(weights, lr=lr, weight_decay=weight_decay)
    if settings.optimizer == "sgd":
        return SGD(weights, lr=lr, momentum=_MOMENTUM, nesterov=True, weight_decay=weight_decay)
    with redirect_stdout(None):  # it prints its weight decay
        optimizer: Optimizer = Prodigy(
            weights,
            lr=lr,
            d0=_START,
            d_coef=_START_FACTOR,
            weight_decay=weight_decay,
            use_bias_correction=True,
            safeguard_warmup=settings.warmup > 0,  # else it overestimates d, its authors say
        )
    return optimizer


def set_learning_rate(optimizer: Optimizer, settings: TrainingSettings, patches_done: int, in_epoch: int) -> None:
    """Give the next step of an optimizer its learning rate.

    It depends on the share of the training that is done, and on nothing else. So a run that goes on with more epochs
    takes the learning rates of a run that was started with all of them: after 20 of 20 epochs the cosine is at 0, and
    with 40 epochs it goes on from a half.

    Args:
        optimizer: of the settings.
        settings: lr, schedule, warmup and epochs are read.
        patches_done: since the beginning of the training.
        in_epoch: patches of an epoch.
    """
    factor = learning_rate_factor(
        settings.schedule, patches_done, settings.warmup * in_epoch, settings.epochs * in_epoch
    )
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * factor


def learning_rate_factor(schedule: str, done: int, warmup: int, total: int) -> float:
    """Factor on the learning rate of a step, in [0, 1].

    Args:
        schedule: constant, cosine (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts) or poly (nnU-Net's).
        done: patches, or whatever counts the progress, before the step.
        warmup: of these, the first, in which the factor rises in equal parts to 1; the schedule begins after them.
        total: of the whole training, after which cosine and poly stay at 0.
    """
    if done < warmup:
        return (done + 1) / warmup
    share = min((done - warmup) / (total - warmup), 1.0)
    if schedule == "cosine":
        return (1 + math.cos(math.pi * share)) / 2
    return (1 - share) ** _POLY_EXPONENT if schedule == "poly" else 1.0


def used_learning_rate(optimizer: Optimizer) -> float:
    """The learning rate of the optimizer's next step; with Prodigy, that of the schedule times its estimate ``d``.

    Asked for just before ``optimizer.step()``, it is the one that this step uses: Prodigy and the schedule change it
    afterwards.
    """
    return float(optimizer.param_groups[0]["lr"]) * (prodigy_estimate(optimizer) or 1.0)


def prodigy_estimate(optimizer: Optimizer) -> float | None:
    """Prodigy's estimate ``d`` of the learning rate in the next step; None for another optimizer."""
    estimate: float | None = optimizer.param_groups[0].get("d")
    return estimate
