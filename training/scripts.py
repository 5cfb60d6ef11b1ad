"""What both training scripts do: read arguments, find data, train, keep the best, test it.

``train_and_test`` is the whole way and reads from top to bottom.
"""

from __future__ import annotations

import json
import math
import platform
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dataloader import EpochSampler, h5VerSe
from networks.checkpointing import checkpoint_blocks
from networks.network import Network
from preprocessing import preprocess
from training.arguments import Settings
from training.checkpoints import NetworkSpec, find_checkpoint, load_checkpoint, load_weights, save_checkpoint
from training.compute import Compute, find_compute, hardware
from training.evaluation import predict, test, test_metrics_path
from training.memory import fit_memory, limit_memory
from training.optimizer import build_optimizer
from training.tasks import TASKS, Task
from utils.constants import HU_PER_UNIT, HU_RANGE
from utils.misc import write_csv, write_json
from utils.report import write_report
from utils.visualize import draw_curves, save_figure
from verse_utils.errors import UserError


@dataclass
class Progress:
    """What training has reached; goes into the last checkpoint."""

    epoch: int = 0
    best_score: float = -float("inf")
    epochs_since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def is_over(self, settings: Settings) -> bool:
        """Whether all epochs are done or the score has stopped growing."""
        return self.epoch >= settings.epochs or self.epochs_since_best >= settings.early_stopping


def train_and_test(settings: Settings) -> None:
    """Train a network as told, or go on with a run that was cut off, then test its best epoch on whole scans."""
    compute = replace(
        find_compute(settings.device, settings.precision),
        checkpointing=settings.checkpointing,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
    )
    torch.manual_seed(settings.seed)
    task = TASKS[settings.task](settings)
    spec = NetworkSpec(settings.model, 1, task.out_channels, settings.input_shape, settings.model_args)
    network = spec.build()
    if settings.memory_gb is not None:
        compute, gib = fit_memory(network, spec, task.loss, compute, settings.memory_gb)
        print(f"--memory_gb {settings.memory_gb:g}: {compute}; a step of {spec} takes {gib:.2f} GiB at most")
    network.to(compute.device)
    expect_background(network, task.out_channels)
    if compute.checkpointing:
        checkpoint_blocks(network)
    check_run_folder(settings)
    h5_path = find_h5(settings, task)
    datasets = {split: task.dataset(h5_path, split) for split in ("training", "validation", "test")}
    for split in ("training", "validation"):
        if not len(datasets[split]):
            raise UserError(f"{h5_path}: no {split} cases; add some and run preprocessing.py again")
    if settings.init_from is not None:
        load_weights(find_checkpoint(settings.init_from, settings.output), spec, network)

    write_config(settings, compute)
    with limit_memory(spec, compute.device, settings.memory_gb):
        progress = fit(task, spec, network, datasets, settings, compute)
        save_figure(draw_curves(progress.history, task.score_name), settings.run_folder / "curves.png")
        if not len(datasets["test"]):
            print(f"{h5_path}: no test cases; nothing to test on")
            return
        load_weights(settings.run_folder / "best.pt", spec, network)
        handler = test(task, network, datasets["test"], settings, compute)
    for name, values in handler.summary().items():
        print(f"{name:>24} {values['mean']:9.4f} {values['unit']}")
    print(test_metrics_path(settings))
    print(write_report(settings.run_folder))


def expect_background(network: Network, out_channels: int) -> None:
    """Let a fresh network with one channel of logits answer "background" nearly everywhere.

    Most voxels are background; a start from a half costs a short run a quarter of its steps (Lin et al. 2017,
    arXiv:1708.02002, section 4.1, whose share of 0.01 this is).
    """
    if out_channels == 1:
        for head in network.heads():
            nn.init.constant_(head.get_parameter("bias"), math.log(0.01 / 0.99))


def fit(
    task: Task,
    spec: NetworkSpec,
    network: nn.Module,
    datasets: dict[str, h5VerSe],
    settings: Settings,
    compute: Compute,
) -> Progress:
    """Train until all epochs are done or the validation score stops growing.

    After each epoch the run's folder holds ``last.pt``, ``best.pt``, ``metrics.csv`` and a picture; a run that was
    killed goes on after its last whole epoch, with the losses that it would have had.
    """
    sampler = EpochSampler(len(datasets["training"]), settings.seed)
    train_batches = _loader(task, datasets["training"], settings, compute, sampler)
    validation_batches = _loader(task, datasets["validation"], settings, compute)
    optimizer = build_optimizer(network, settings.lr)
    steps = settings.epochs * math.ceil(len(train_batches) / compute.accumulate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
    parts = {"optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    progress = resume(spec, network, parts, settings)
    logger = _wandb_run(settings)
    shown = _subject_to_show(task, datasets["validation"])
    # What inference must give the network, told by the checkpoint alone.
    scaling = {"hu_range": list(HU_RANGE), "hu_per_unit": HU_PER_UNIT}
    network_input = {**datasets["training"].store.settings, **scaling}

    while not progress.is_over(settings):
        started = time.monotonic()
        sampler.epoch = progress.epoch
        train_loss = train_epoch(task, network, train_batches, parts, settings, compute)
        validation_loss, score = validate(task, network, validation_batches, compute)
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            task.score_name: score,
            "lr": schedule.get_last_lr()[0] * optimizer.param_groups[0]["d"],
            "seconds": round(time.monotonic() - started, 1),
        }
        _advance(progress, row, score)
        if progress.epochs_since_best == 0:
            best = {"input": network_input, "epoch": progress.epoch}
            save_checkpoint(settings.run_folder / "best.pt", spec, network, settings.as_dict(), **best)
        _save_last(spec, network, parts, progress, settings, network_input)
        write_csv(settings.run_folder / "metrics.csv", progress.history)
        _save_picture(task, network, shown, progress.epoch, settings, compute)
        print(" · ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items()))
        if logger is not None:
            logger.log(row)
    if logger is not None:
        logger.finish()
    return progress


def train_epoch(
    task: Task, network: nn.Module, batches: DataLoader, parts: dict[str, Any], settings: Settings, compute: Compute
) -> float:
    """One pass over the training patches; returns the mean loss. Raises UserError where it stops being a number."""
    network.train()
    losses = []
    for index, (image, target) in enumerate(tqdm(batches, desc="train", leave=False, disable=None)):
        with compute.autocast():
            logits = network(image.to(compute.device, non_blocking=True))
        loss = task.loss(logits, target.to(compute.device, non_blocking=True))
        if not torch.isfinite(loss):
            raise UserError(f"--lr {settings.lr}: the loss became {loss.item()}; lower it, or use --precision fp32")
        losses.append(loss.item())
        first = index - index % compute.accumulate
        in_this_step = min(compute.accumulate, len(batches) - first)
        parts["scaler"].scale(loss / in_this_step).backward()
        if index + 1 == first + in_this_step:
            parts["scaler"].step(parts["optimizer"])
            parts["scaler"].update()
            parts["optimizer"].zero_grad()
            parts["schedule"].step()
    return float(np.mean(losses))


@torch.inference_mode()
def validate(task: Task, network: nn.Module, batches: DataLoader, compute: Compute) -> tuple[float, float]:
    """Mean loss and score of the validation patches, which are the same in every epoch."""
    network.eval()
    losses, terms = [], []
    for image, target in batches:
        target = target.to(compute.device)
        with compute.autocast():
            logits = network(image.to(compute.device)).float()
        losses.append(task.loss(logits, target).item() * len(image))
        terms.append(task.score_terms(logits, target))
    return sum(losses) / len(batches.dataset), task.score(np.sum(terms, axis=0))  # type: ignore[arg-type]


def find_h5(settings: Settings, task: Task) -> Path:
    """The H5 to train on; a VerSe folder is preprocessed once."""
    if not settings.data_path.exists():
        raise UserError(
            f"{settings.data_path}: no such file or folder; give an H5 of preprocessing.py or a VerSe folder"
        )
    if settings.data_path.is_file():
        return settings.data_path
    print(f"{settings.data_path} is a folder: preprocessing it once (or finding it done)")
    h5_path = preprocess(settings.data_path, settings.dataset_edition, task.preprocessing())
    print(f"{h5_path} can be passed as --data_path from now on")
    return h5_path


def check_run_folder(settings: Settings) -> None:
    """Raise UserError where the run's name is taken by a run with other settings."""
    folder = settings.run_folder
    if not folder.exists():
        return
    config = folder / "config.json"
    try:
        found = json.loads(config.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{folder}: is there but holds no run (config.json); choose another --model_name") from None
    for key, value in settings.identity().items():
        if found.get(key) != value:
            raise UserError(
                f"{folder}: was made with --{key} {found.get(key)}, not {value}; "
                "choose another --model_name, or remove the folder to start anew"
            )


def write_config(settings: Settings, compute: Compute) -> None:
    """Write the resolved settings and the versions of what computed."""
    packages = ("torch", "torchio", "h5py", "hdf5plugin", "numpy", "nibabel", "prodigyopt", "monai")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    computed_with = {**vars(compute), "device": str(compute.device), "hardware": hardware(), "versions": versions}
    write_json(settings.run_folder / "config.json", {"settings": settings.as_dict(), **computed_with})


def resume(spec: NetworkSpec, network: nn.Module, parts: dict[str, Any], settings: Settings) -> Progress:
    """Load the last checkpoint of the run into network, optimizer, schedule and scaler, if there is one."""
    path = settings.run_folder / "last.pt"
    if not path.exists():
        return Progress()
    load_weights(path, spec, network)
    content = load_checkpoint(path)
    for name, part in parts.items():
        if content[name]:  # a scaler that scaled nothing, as on another device, has no state
            part.load_state_dict(content[name])
    torch.set_rng_state(content["generator"])
    progress = Progress(**content["progress"])
    print(f"{settings.run_folder}: going on after epoch {progress.epoch}")
    return progress


def _save_last(
    spec: NetworkSpec,
    network: nn.Module,
    parts: dict[str, Any],
    progress: Progress,
    settings: Settings,
    network_input: dict[str, Any],
) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    save_checkpoint(
        settings.run_folder / "last.pt",
        spec,
        network,
        settings.as_dict(),
        **state,
        input=network_input,
        generator=torch.get_rng_state(),
        progress=vars(progress),
    )


def _advance(progress: Progress, row: dict[str, float], score: float) -> None:
    progress.epoch += 1
    progress.history.append(row)
    better = score > progress.best_score
    progress.best_score = max(score, progress.best_score)
    progress.epochs_since_best = 0 if better else progress.epochs_since_best + 1


def _loader(
    task: Task, dataset: h5VerSe, settings: Settings, compute: Compute, sampler: EpochSampler | None = None
) -> DataLoader:
    workers = settings.workers
    return DataLoader(
        _Pairs(dataset, task.target_key),
        batch_size=compute.batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_use_one_thread,
        pin_memory=torch.cuda.is_available(),
    )


class _Pairs(Dataset):
    """Image and target of a dataset's subjects, as plain tensors that batch."""

    def __init__(self, dataset: h5VerSe, target_key: str) -> None:
        self.dataset, self.target_key = dataset, target_key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        subject = self.dataset[index]
        return subject["image"].data, subject[self.target_key].data


def _use_one_thread(_worker: int) -> None:
    """Keep a loading process from taking the cores that train."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _subject_to_show(task: Task, dataset: h5VerSe) -> tio.Subject:
    """The validation patch that holds most of the target: the same in every epoch, with a spine to be seen."""
    subjects = (dataset[index] for index in range(len(dataset)))
    return max(subjects, key=lambda subject: int((subject[task.target_key].data > 0).sum()))


def _save_picture(
    task: Task, network: nn.Module, subject: tio.Subject, epoch: int, settings: Settings, compute: Compute
) -> None:
    """Draw what the network makes of a validation subject after an epoch."""
    probabilities_KXYZ = predict(network, subject["image"].data, settings, compute)
    figure = task.picture(subject, probabilities_KXYZ, f"{subject['case_id']} (validation) after epoch {epoch}")
    save_figure(figure, settings.run_folder / "images" / f"epoch_{epoch:04d}.png")


def _wandb_run(settings: Settings) -> Any:
    """A run of Weights & Biases where asked for; offline where no key is known."""
    if not settings.use_wandb:
        return None
    import wandb

    return wandb.init(
        project="spine-segmentation",
        name=settings.model_name,
        config=settings.as_dict(),
        mode="online" if wandb.api.api_key else "offline",
    )
