import math
from pathlib import Path

import pytest
import torch
from prodigyopt import Prodigy

from training.settings import OPTIMIZERS, TrainingSettings
from training.steps.optimizer import (
    build_optimizer,
    learning_rate_factor,
    prodigy_estimate,
    set_learning_rate,
    used_learning_rate,
)
from utils.tasks import SEGMENTATION

STEPS = 5  # of an epoch


def settings_of(optimizer="prodigy", **arguments):
    facts = OPTIMIZERS[optimizer]
    defaults = {"lr": facts.lr, "weight_decay": facts.weight_decay, "epochs": 4, "loss": "DiceCE"}
    values = {**defaults, "input_shape": (8, 8, 8), **arguments}
    return TrainingSettings(SEGMENTATION, (Path("a.h5"),), "run", optimizer=optimizer, **values)


class Training:
    """A linear layer that learns from noise: its gradients depend on the step alone."""

    def __init__(self, settings, steps_per_epoch=STEPS):
        torch.manual_seed(0)
        self.network = torch.nn.Linear(6, 3)
        self.optimizer = build_optimizer(self.network, settings)
        self.settings, self.steps_per_epoch, self.steps = settings, steps_per_epoch, 0

    def run(self, steps):
        """Learning rates that were used."""
        used = []
        for _ in range(steps):
            set_learning_rate(self.optimizer, self.settings, self.steps, self.steps_per_epoch)
            generator = torch.Generator().manual_seed(self.steps)
            for parameter in self.network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            used.append(used_learning_rate(self.optimizer))
            self.optimizer.step()
            self.steps += 1
        return used

    def weights(self):
        return torch.nn.utils.parameters_to_vector(self.network.parameters()).detach().clone()

    def saved(self, path):
        parts = {"network": self.network, "optimizer": self.optimizer}
        torch.save({"steps": self.steps, **{name: part.state_dict() for name, part in parts.items()}}, path)
        return path

    def load(self, path):
        content = torch.load(path, weights_only=True)
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.steps = content["steps"]
        return self


def test_the_default_is_prodigy_on_torchs_cosine_bit_by_bit(capsys):
    """What every training before --optimizer computed."""
    training = Training(settings_of())
    torch.manual_seed(0)
    network = torch.nn.Linear(6, 3)
    options = {"d0": 2e-3, "d_coef": 0.02, "weight_decay": 0.01, "use_bias_correction": True}
    optimizer = Prodigy(network.parameters(), lr=1.0, **options)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4 * STEPS)
    capsys.readouterr()
    for step in range(4 * STEPS):
        generator = torch.Generator().manual_seed(step)
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        used = optimizer.param_groups[0]["lr"] * optimizer.param_groups[0]["d"]
        optimizer.step()
        schedule.step()
        assert training.run(1) == [pytest.approx(used, rel=1e-12, abs=1e-30)]
        assert torch.equal(training.weights(), torch.nn.utils.parameters_to_vector(network.parameters()))
    assert capsys.readouterr().out == ""  # Prodigy prints its weight decay


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_settings_reach_the_optimizer(optimizer):
    settings = settings_of(optimizer, lr=0.5, weight_decay=0.25)
    built = build_optimizer(torch.nn.Linear(2, 2), settings)
    assert type(built).__name__.lower() == optimizer
    assert [(group["lr"], group["weight_decay"]) for group in built.param_groups] == [(0.5, 0.25)]
    if optimizer == "sgd":
        assert built.defaults["momentum"] == 0.99 and built.defaults["nesterov"]


@pytest.mark.parametrize("warmup", [0, 1])
def test_prodigy_is_safeguarded_where_it_warms_up(warmup):
    assert build_optimizer(torch.nn.Linear(2, 2), settings_of(warmup=warmup)).defaults["safeguard_warmup"] is (
        warmup > 0
    )


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        ("poly", [1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0]),
    ],
)
def test_schedules_by_hand(schedule, expected):
    """Of 8 steps: the first, after a quarter, half and three quarters of them, and after the last."""
    assert [learning_rate_factor(schedule, step, 0, 8) for step in (0, 2, 4, 6, 8)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "poly"])
def test_the_schedule_begins_behind_the_warmup(schedule):
    factors = [learning_rate_factor(schedule, step, 4, 12) for step in range(13)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1]
    assert factors[4:] == [learning_rate_factor(schedule, step, 0, 8) for step in range(9)]


def test_the_used_learning_rate_is_that_of_the_step():
    """Of SGD's first step: the change of the weights over 1 + momentum times the gradient."""
    training = Training(settings_of("sgd", lr=0.01, weight_decay=0.0, warmup=1))
    for step in range(STEPS):
        before = training.weights()
        used = training.run(1)[0]
        assert used == pytest.approx(0.01 * (step + 1) / STEPS)
        if step == 0:
            gradient = torch.cat([parameter.grad.flatten() for parameter in training.network.parameters()])
            torch.testing.assert_close(before - training.weights(), used * 1.99 * gradient, rtol=1e-4, atol=1e-8)
    assert prodigy_estimate(training.optimizer) is None


def test_the_used_learning_rate_holds_prodigys_estimate():
    training = Training(settings_of())
    assert prodigy_estimate(training.optimizer) == 2e-3
    training.optimizer.param_groups[0]["d"] = 5e-3  # as if it had found more
    assert used_learning_rate(training.optimizer) == 5e-3
    assert prodigy_estimate(training.optimizer) == 5e-3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("schedule", "warmup"), [("cosine", 0), ("poly", 1), ("constant", 2)])
def test_a_training_goes_on_bit_by_bit_from_any_step(tmp_path, optimizer, schedule, warmup):
    settings = settings_of(optimizer, schedule=schedule, warmup=warmup)
    whole = Training(settings)
    expected = whole.run(4 * STEPS)
    for stop in (0, 3, 7, 4 * STEPS):
        first = Training(settings)
        used = first.run(stop)
        second = Training(settings).load(first.saved(tmp_path / "last.pt"))
        assert used + second.run(4 * STEPS - stop) == expected
        assert torch.equal(second.weights(), whole.weights())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["cosine", "poly", "constant"])
def test_a_finished_training_goes_on_with_the_rates_of_a_longer_one(tmp_path, optimizer, schedule):
    """Its first step more takes the new rate already, not the one that the optimizer's state holds."""
    short = Training(settings_of(optimizer, schedule=schedule))
    short.run(4 * STEPS)
    longer = settings_of(optimizer, schedule=schedule, epochs=8)
    used = Training(longer).load(short.saved(tmp_path / "last.pt")).run(4 * STEPS)
    d = 2e-3 if optimizer == "prodigy" else 1
    factors = [learning_rate_factor(schedule, step, 0, 8 * STEPS) for step in range(4 * STEPS, 8 * STEPS)]
    assert used == pytest.approx([factor * longer.lr * d for factor in factors])
    assert used[0] > 0
