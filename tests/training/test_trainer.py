"""Numbers of training: what a step does, and what it leaves out."""

import itertools
import os
import socket
import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from training import trainer as engine
from training.steps.averaging import average_weights
from training.steps.batches import PatchOrder
from training.steps.ranks import Ranks
from utils.files.h5_cases import H5Cases

pytestmark = pytest.mark.usefixtures("blank_pictures")
joined = itertools.chain.from_iterable
# Losses of training and validation after each epoch.
FROZEN = [[2.115769, 2.377397], [1.871779, 2.336081]]


def in_two_ranks(run: Callable[[], Any]) -> list[Any]:
    """Run it in two processes that are forked of this one, with the variables that ``torchrun`` gives them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    ends = {}
    for rank in range(2):
        end, own_end = Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)  # OpenMP's other threads are not forked
                os.environ |= {key: str(value) for key, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}
                own_end.send(run())
            finally:
                os._exit(0)
        own_end.close()
        ends[child] = end
    results = [end.recv() for end in ends.values()]
    for child in ends:
        os.waitpid(child, 0)
    return results


def test_an_epoch_is_a_permutation_drawn_from_seed_and_epoch():
    order = PatchOrder(10, 3, seed=1)
    first = list(order)
    assert [len(batch) for batch in first] == [3, 3, 3, 1] and len(order) == 4
    assert sorted(joined(first)) == [(0, index) for index in range(10)] and first == list(order)
    order.epoch = 1
    second = list(order)
    assert sorted(joined(second)) == [(1, index) for index in range(10)]
    assert [index for _, index in joined(second)] != [index for _, index in joined(first)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 4])
def test_processes_share_an_epoch(ranks, start):
    """Each patch once, except for one without weight where a process would have none; as many batches for each."""
    orders = [PatchOrder(11, 2, seed=0, rank=rank, ranks=ranks) for rank in range(ranks)]
    for order in orders:
        order.start = start
    weighted, position = [], start
    for turn in zip(*orders, strict=True):
        together, _ = orders[0].patches_at(position)
        for order, batch in zip(orders, turn, strict=True):
            _, own = order.patches_at(position)
            assert len(batch) == max(own, 1)
            weighted += batch[:own]
        position += together
    whole = list(joined(PatchOrder(11, 2, seed=0)))
    assert position == 11 and sorted(weighted) == sorted(whole[start:])


def test_accumulated_patches_are_a_batch(segment, tmp_path, rows_of):
    """Four patches at once, or one after the other; six patches leave a step of two at the end."""
    for name, arguments in {"batch": ["--batch_size", 4], "accumulated": ["--accumulate", 4]}.items():
        assert segment(name, *arguments).returncode == 0
    losses = [
        [float(row["train_loss"]) for row in rows_of(tmp_path / "trained_models" / name)]
        for name in ("batch", "accumulated")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_frozen_losses(segment, tmp_path, h5_at_3mm, rows_of):
    """A seeded run of 20 steps: a change of these numbers changes everyone's results, and goes to CHANGELOG.md."""
    for workers in (0, 2):
        arguments = ["--data_path", h5_at_3mm, "--workers", workers, "--patches_per_volume", 5, "--batch_size", 1]
        assert segment(f"workers{workers}", *arguments).returncode == 0
    runs = [rows_of(tmp_path / "trained_models" / f"workers{workers}") for workers in (0, 2)]
    values = [[[float(row[name]) for name in ("train_loss", "validation_loss")] for row in rows] for rows in runs]
    assert values[0] == values[1]
    assert values[0] == [pytest.approx(expected, rel=1e-3) for expected in FROZEN]


def test_the_last_step_of_an_epoch_has_its_share(segment):
    """The gradient of a step of two patches, where a full one has four, is half of their mean's."""
    norms = []

    def see(parameters, most):
        gradients = torch.cat([parameter.grad.flatten() for parameter in parameters])
        norms.append(gradients.norm())
        return torch.nn.utils.clip_grad_norm_([torch.nn.Parameter(gradients)], most)

    with patch.object(engine, "clip_grad_norm_", see):
        assert segment("two", "--epochs", 1, "--patches_per_volume", 1, "--batch_size", 2).returncode == 0
        assert segment("four", "--epochs", 1, "--patches_per_volume", 1, "--batch_size", 4).returncode == 0
    assert norms[0] == pytest.approx(2 * norms[1].item(), rel=1e-5) and len(norms) == 2


def test_the_average_follows_the_weights():
    """With a decay of 0.9: 1/10 is kept in the first step after the start, 2/11 in the second."""
    network = torch.nn.Linear(1, 1, bias=False)
    averaged = average_weights(network, 0.9)
    expected = None
    for step, weight in enumerate([1.0, 2.0, 4.0]):
        torch.nn.init.constant_(network.weight, weight)
        averaged.update_parameters(network)
        kept = min(0.9, (1 + step) / (10 + step))
        expected = weight if expected is None else kept * expected + (1 - kept) * weight
        assert averaged.module.weight.item() == pytest.approx(expected)


def not_finite_in(case_ids: set[str]):
    """In it, the images of these cases hold values that are not finite, as a floating-point H5 can."""
    read = H5Cases.read

    def with_nan(self, split, case_id, where=()):
        image_hu, label = read(self, split, case_id, where)
        return (np.full(image_hu.shape, np.nan, np.float32) if case_id in case_ids else image_hu), label

    return patch.object(H5Cases, "read", with_nan)


@pytest.fixture
def case_ids(segmentation_h5):
    store = H5Cases(segmentation_h5)
    return {split: store.case_ids(split) for split in ("training", "validation", "test")}


@pytest.mark.parametrize(
    "network", [[], ["--model", "AttentionUNet3D", "--model_args", "channels=4,8"]], ids=["instance", "batch norm"]
)
def test_patches_that_are_not_finite_are_left_out_and_named(segment, tmp_path, case_ids, network, rows_of):
    """Three of six steps; the weights, and the statistics of a batch normalisation, stay finite."""
    bad = case_ids["training"][0]
    with not_finite_in({bad}):
        result = segment("run", *network, report=True)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "trained_models/run"
    for row in rows_of(folder):
        assert row["steps_left_out"] == "3" and row["left_out"] == f"{bad} (3)"
        assert float(row["train_loss"]) > 0 and float(row["validation_dice"]) >= 0
    assert f"step left out: no finite loss or gradient with {bad} at (" in result.stderr + result.stdout
    assert bad in (folder / "report.html").read_text(encoding="utf-8")


def test_validation_scans_that_are_not_finite_are_one_line(segment, case_ids, assert_one_line_error):
    with not_finite_in(set(case_ids["validation"])):
        assert_one_line_error(segment("run"), "no validation patch has a finite loss", case_ids["validation"][0])


def test_ten_bad_steps_in_a_row_end_the_run(segment, case_ids, assert_one_line_error):
    with not_finite_in(set(case_ids["training"])):
        result = segment("run", "--patches_per_volume", 6)
    assert_one_line_error(result, "10 steps in a row", case_ids["training"][0], "--lr")


def test_whole_scans_choose_the_best_epoch(segment, tmp_path, rows_of):
    """Where they are scored, and at the end; patches alone choose nothing."""
    scores = iter([0.5, 0.3, 0.4])

    def score(*_):
        return next(scores), []

    with patch.object(engine, "validate_whole_scans", score):
        assert segment("run", "--epochs", 5, "--full_validation", 2, report=True).returncode == 0
    rows = rows_of(tmp_path / "trained_models/run")
    assert [row["full_validation_dice"] for row in rows] == ["", "0.5", "", "0.3", "0.4"]
    assert [row["chosen_by"] for row in rows] == ["", "full_validation_dice", "", "", ""]
    assert torch.load(tmp_path / "trained_models/run/best.pt", weights_only=True)["epoch"] == 2
    page = (tmp_path / "trained_models/run/report.html").read_text(encoding="utf-8")
    assert "best after epoch 2, by full validation dice" in page


# Python 3.12 warns of forks in a process with threads, as that of the tests is.
@pytest.mark.filterwarnings("ignore:This process")
def test_two_processes_are_a_batch_of_two(segment, tmp_path, h5_at_3mm, rows_of, results_of):
    """With Gloo: 22 steps with the same losses; in validation, a patch for one of them alone."""
    arguments = ["--data_path", h5_at_3mm, "--epochs", 2, "--patches_per_volume", 11]
    assert segment("one", *arguments, "--batch_size", 2).returncode == 0
    writer, other = in_two_ranks(lambda: segment("two", *arguments))
    assert (writer.returncode, other.returncode) == (0, 0), writer.stderr + other.stderr
    one, two = (rows_of(tmp_path / "trained_models" / name) for name in ("one", "two"))
    for name in ("train_loss", "validation_loss", "validation_dice"):
        assert [float(row[name]) for row in two] == pytest.approx([float(row[name]) for row in one], abs=1e-5)
    assert [rank.stdout.count("epoch 2/2") for rank in (writer, other)] == [1, 0]
    assert len(results_of(tmp_path / "trained_models/two")["pictures"]) == 3


def test_gradients_are_no_longer_exchanged_when_the_processes_part():
    """What exchanges them holds the group of processes; freed after it, it can deadlock."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        trainer = SimpleNamespace(network=torch.nn.Linear(1, 1), device=torch.device("cpu"), ranks=Ranks(0, 2))
        with engine.Trainer._in_parallel(trainer):
            exchange = weakref.ref(trainer.parallel)
            assert isinstance(exchange(), DistributedDataParallel)
        assert trainer.parallel is trainer.network and exchange() is None
    finally:
        distributed.destroy_process_group()
