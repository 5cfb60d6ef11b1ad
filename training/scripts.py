"""Training, from the settings to the tested network. ``train_and_test`` is the whole way, from top to bottom."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path

import torch
from torch import nn

from dataloader import h5VerSe
from networks.checkpointing import checkpoint_blocks
from networks.network import Network
from prediction.checkpoints import NetworkSpec, fill_network, find_checkpoint, load_checkpoint_of, load_weights
from prediction.device import compile_network, find_device
from preprocessing import preprocess
from reports.report import write_report
from training.cost.memory import fit_memory, limit_memory
from training.run.interruption import Interruption
from training.run.lock import only_trainer
from training.run.state import check_run_folder, move_aside, remove_partial_files, write_config, write_test_config
from training.run.tracking import Tracker, print_means
from training.settings import TrainingSettings
from training.steps.ranks import Ranks, find_ranks, joined
from training.steps.step_plan import StepPlan
from training.tasks import build_task
from training.tasks.task import TrainingTask
from training.testing import test
from training.trainer import Trainer
from utils.preprocessing_settings import is_h5
from utils.visualize import draw_curves, save_figure
from verse_utils.download.fetch import fetch_where_missing
from verse_utils.editions import as_editions
from verse_utils.errors import UserError


def run(settings: TrainingSettings) -> None:
    """Train and test a network, or with ``--test_only`` test it again."""
    if settings.test_only:
        test_again(settings)
    else:
        train_and_test(settings)


def train_and_test(settings: TrainingSettings) -> None:
    """Train a network, or continue an interrupted run, then test the network of the best epoch on whole scans.

    Several processes, as ``torchrun`` starts them, train together; the first one speaks, writes and tests.
    """
    ranks = find_ranks()
    device = find_device(_device_of(settings.device, ranks), settings.precision)
    plan = StepPlan(device, settings.checkpointing, settings.batch_size, settings.accumulate)
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        if not ranks.is_writer:
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        torch.manual_seed(settings.seed)
        task = build_task(settings)
        channels = task.in_channels, task.out_channels
        spec = NetworkSpec(settings.model, *channels, settings.input_shape, settings.model_args)
        network, plan = _build(spec, task, settings, plan)
        if not settings.restart:
            check_run_folder(settings)
        with joined(ranks, device.torch_device) as ranks:
            with ranks.writer_first():
                datasets = _datasets(task, settings)
            if settings.init_from is not None and (settings.restart or not settings.run_folder.has_last_checkpoint):
                load_weights(find_checkpoint(settings.init_from, settings.output, settings.task), spec, network)
            if ranks.is_writer:
                stack.enter_context(_open_run_folder(settings, plan, datasets["training"].store.fingerprint(), ranks))
            if settings.restart:  # the old run was moved aside; now it would be this one
                interruption.again = "the same command without --restart"
            with limit_memory(spec, plan.device.torch_device, settings.memory_gb):
                trainer = Trainer(task, spec, network, datasets, settings, plan, ranks, interruption)
                stack.callback(trainer.end_workers)
                tracker = stack.enter_context(Tracker(settings, plan.device.torch_device)) if ranks.is_writer else None
                trainer.fit(tracker)
        if tracker is not None:
            with limit_memory(spec, plan.device.torch_device, settings.memory_gb):
                _test(trainer, datasets["test"], tracker)


def test_again(settings: TrainingSettings) -> None:
    """Test the best network of a run without training it; one process of several does it.

    ``settings.test_folder`` says where the results are written.

    Raises:
        UserError: no such run, another process holds it, it was trained on other cases, or none are to be tested.
    """
    if not find_ranks().is_writer:
        return
    check_run_folder(settings)
    run, task = settings.run_folder, build_task(settings)
    plan = StepPlan(find_device(settings.device, settings.precision), False, settings.batch_size, settings.accumulate)
    with only_trainer(run.path):
        best = load_checkpoint_of(settings.task, run.best_checkpoint)
        network = best["network"].build()
        fill_network(network, best["network"], best, run.best_checkpoint)
        task.recall(best.get("input", {}))
        dataset = task.dataset(find_h5(settings, task), settings.test_split, whole=True)
        if not len(dataset):
            raise UserError(f"{dataset.store.name}: no {settings.test_split} cases; nothing to test on")
        check_run_folder(settings, dataset.store.fingerprint())
        if settings.test_folder.path != run.path:
            write_test_config(settings)
        handler = test(task, network.to(plan.device.torch_device), dataset, settings, plan, best["epoch"])
        print_means(handler.summary())
        _report(settings)


def _device_of(name: str, ranks: Ranks) -> str:
    """Of several processes on a machine, each uses a GPU of its own."""
    several_gpus = ranks.count > 1 and name in ("auto", "cuda") and torch.cuda.is_available()
    return f"cuda:{ranks.local_rank}" if several_gpus else name


def _build(
    spec: NetworkSpec, task: TrainingTask, settings: TrainingSettings, plan: StepPlan
) -> tuple[Network, StepPlan]:
    """The network on its device, and the plan of a step with which it fits into the memory that was given."""
    network = spec.build()
    if settings.memory_gb is not None:
        plan, gib = fit_memory(network, spec, task.loss, plan, settings.memory_gb, settings.optimizer)
        print(f"--memory_gb {settings.memory_gb:g}: {plan}; a step of {spec} takes {gib:.2f} GiB at most")
    network.to(plan.device.torch_device)
    if task.starts_as_background:
        expect_background(network, task.out_channels)
    if plan.checkpointing:
        checkpoint_blocks(network)
    if settings.compile:
        compile_network(network, plan.device)
    return network, plan


def _datasets(task: TrainingTask, settings: TrainingSettings) -> dict[str, h5VerSe]:
    """Training and validation in patches, and the scans of validation and test whole. Raises UserError."""
    h5_paths = find_h5(settings, task)
    datasets = {split: task.dataset(h5_paths, split) for split in ("training", "validation")}
    for file in datasets["training"].store.files:
        for line in file.notes.get("left_out", ()):
            warnings.warn(f"{file.path} was made without {line}", stacklevel=2)
    for split, dataset in datasets.items():
        if not len(dataset):
            raise UserError(f"{dataset.store.name}: no {split} cases; add some and run preprocessing.py again")
        if not any(len(dataset.store.foreground_vox(*place)) for place in dataset.places):
            raise UserError(f"{dataset.store.name}: no mask of the {split} cases holds a vertebra; check the masks")
    task.check(datasets["training"])
    datasets["whole"] = task.dataset(h5_paths, "validation", whole=True)
    datasets["test"] = task.dataset(h5_paths, "test")
    return datasets


@contextmanager
def _open_run_folder(settings: TrainingSettings, plan: StepPlan, data: str, ranks: Ranks) -> Iterator[None]:
    """Hold the run's folder alone, with nothing half-written and the run's settings in it. Raises UserError."""
    run = settings.run_folder
    if settings.restart and run.path.exists():
        with only_trainer(run.path):
            print(f"{run.path}: moved to {move_aside(run.path, 'old')}")
    check_run_folder(settings, data)
    with only_trainer(run.path):
        remove_partial_files(run)
        write_config(settings, plan, data, ranks)
        yield


def _test(trainer: Trainer, dataset: h5VerSe, tracker: Tracker) -> None:
    """Test the best network, and write the run's report."""
    settings, task = trainer.settings, trainer.task
    save_figure(draw_curves(trainer.progress.history, task.score_name), settings.run_folder.curves)
    if not len(dataset):
        print(f"{dataset.store.name}: no test cases; nothing to test on")
        return
    trainer.network.load_state_dict(trainer.best.weights)
    handler = test(task, trainer.network, dataset, settings, trainer.plan, trainer.best.epoch)
    tracker.log_test(handler.summary())
    _report(settings)


def _report(settings: TrainingSettings) -> None:
    """Write the report of the test, and tell where the results are."""
    print(settings.test_folder.test_metrics)
    print(write_report(settings.test_folder.path))


def expect_background(network: Network, out_channels: int) -> None:
    """Set the bias of the last layer so that a new network predicts background nearly everywhere.

    Most voxels are background. Starting from a probability of 0.5 costs a short run a quarter of its steps. The
    probability of 0.01 for all foreground is that of Lin et al. 2017 (arXiv:1708.02002, section 4.1).
    """
    foreground = max(out_channels - 1, 1)
    for head in network.heads():
        bias = head.get_parameter("bias")
        nn.init.constant_(bias, math.log(0.01 / 0.99 / foreground))
        if out_channels > 1:
            nn.init.zeros_(bias[:1])


def find_h5(settings: TrainingSettings, task: TrainingTask) -> tuple[Path, ...]:
    """The H5 files to train on. Other data is preprocessed to one first, VerSe downloaded, unless that was done before.

    Raises:
        UserError: a path doesn't exist and nothing may be downloaded to it, or H5 files and other data are mixed.
    """
    paths = settings.data_path
    if all(map(is_h5, paths)):
        return paths
    if len(paths) == 1:
        editions = as_editions(settings.dataset_edition)
        fetch_where_missing(paths[0], editions, False if settings.no_download else None)
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give an H5 of preprocessing.py or a VerSe folder")
    if files := [path for path in paths if is_h5(path)]:
        raise UserError(
            f"{files[0]}: is an H5, but other paths of --data_path are yet to be preprocessed; run preprocessing.py on "
            "them, and give the H5 files"
        )
    print(f"{settings.data_paths} is no H5: preprocessing its cases, except those that were written before")
    needed_splits = ("training", "validation") if settings.fold is None else ("training",)
    h5_path = preprocess(paths, settings.dataset_edition, task.preprocessing(), needed_splits=needed_splits)
    print(f"{h5_path} can be passed as --data_path from now on")
    return (h5_path,)
