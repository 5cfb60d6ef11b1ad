"""What a run keeps in its folder so that it can be continued: settings, progress and the last checkpoints."""

from __future__ import annotations

import json
import math
import os
import platform
import random
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prediction.checkpoints import CheckpointError, NetworkSpec, fill_network, load_checkpoint, save_checkpoint
from prediction.device import hardware, is_of_memory
from training.settings import TrainingSettings
from training.steps.batches import case_of
from training.steps.ranks import Ranks
from training.steps.step_plan import StepPlan
from utils.files.run_folder import RunFolder
from utils.tasks import Task
from verse_utils.errors import UserError
from verse_utils.files.writing import write_json


@dataclass
class Progress:
    """How far training has come; it is stored in the last checkpoint.

    Attributes:
        epoch: epochs that are done.
        position: patches of the present epoch that were trained on, or left out.
        loss_sum: over the patches that were trained on in the present epoch.
        patches: number of these.
        seconds: that the present epoch has taken.
        learning_rate: of the last step.
        prodigy_d: Prodigy's estimate in the last step; 0 with another optimizer.
        bad_steps: steps of the present epoch that were left out.
        bad_cases: cases of their patches, and how many patches each.
        bad_in_a_row: steps left out one after the other, until now.
        best_score: of the validation patches, in all epochs.
        epochs_since_best: for early stopping.
        history: a row of ``metrics.csv`` for each epoch.
    """

    epoch: int = 0
    position: int = 0
    loss_sum: float = 0.0
    patches: int = 0
    seconds: float = 0.0
    learning_rate: float = 0.0
    prodigy_d: float = 0.0
    bad_steps: int = 0
    bad_cases: dict[str, int] = field(default_factory=dict)
    bad_in_a_row: int = 0
    best_score: float = -math.inf
    epochs_since_best: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mean_loss(self) -> float:
        """Mean over the patches that were trained on in the present epoch; NaN if there was none."""
        return self.loss_sum / self.patches if self.patches else math.nan

    def is_over(self, settings: TrainingSettings) -> bool:
        """Whether all epochs are done, or the validation score no longer rises."""
        return self.epoch >= settings.epochs or self.epochs_since_best >= settings.early_stopping

    def is_last(self, score: float, settings: TrainingSettings) -> bool:
        """Whether the present epoch, whose validation patches have this score, is the last one."""
        without_rise = 0 if score > self.best_score else self.epochs_since_best + 1
        return self.epoch + 1 >= settings.epochs or without_rise >= settings.early_stopping

    def add_step(self, loss_sum: float, patches: int) -> None:
        """Count a step, its patches and the sum of their losses."""
        self.loss_sum += loss_sum
        self.patches += patches
        self.bad_in_a_row = 0

    def leave_out(self, places: Sequence[str]) -> None:
        """Count a step that was left out because of patches at these places."""
        self.bad_steps += 1
        self.bad_in_a_row += 1
        cases = Counter(map(case_of, places))
        self.bad_cases = dict(Counter(self.bad_cases) + cases)

    def finish_epoch(self, row: dict[str, Any], score: float) -> None:
        """Close the present epoch with its row of ``metrics.csv`` and the score of its validation patches."""
        is_better = score > self.best_score
        closed = Progress(
            epoch=self.epoch + 1,
            bad_in_a_row=self.bad_in_a_row,
            best_score=max(score, self.best_score),
            epochs_since_best=0 if is_better else self.epochs_since_best + 1,
            history=[*self.history, row],
        )
        vars(self).update(vars(closed))

    def __str__(self) -> str:
        whole, part = f"epoch {self.epoch}", f"{self.position} patches of epoch {self.epoch + 1}"
        return f"after {part if self.position else whole}"


@dataclass
class Best:
    """The network of the best epoch.

    Attributes:
        epoch: from 1; 0 before there is one.
        score: by which it was chosen; higher is better.
        score_name: the score's name in ``metrics.csv``.
        weights: on the CPU, by name.
    """

    epoch: int = 0
    score: float = -math.inf
    score_name: str = ""
    weights: dict[str, Tensor] = field(default_factory=dict)


def check_run_folder(settings: TrainingSettings, data: str | None = None) -> None:
    """Check that the run's folder may be trained in, or that its network is what the settings tell to test.

    Args:
        settings: of the run that is to begin or to go on.
        data: fingerprint of the cases to train on, once it is known.

    Raises:
        UserError: it holds something else, a run with other settings or cases, or no checkpoint to go on from.
    """
    run = settings.run_folder
    if not run.path.exists():
        return
    if not run.path.is_dir():
        raise UserError(f"{run.path}: is a file; choose another --model_name")
    remedy = "choose another --model_name (with --init_from, it can start from these weights), or --restart"
    if settings.test_only:
        remedy = "--test_only tests a run with its own settings and cases; inference.py --evaluate scores other scans"
    found = _settings_of(run)
    if found is None and any(not path.name.startswith(".") for path in run.path.iterdir()):
        raise UserError(f"{run.path}: exists but holds no run ({run.config.name}); choose another --model_name")
    before = {} if found is None else found["settings"]
    for key, value in settings.identity().items() if before else ():
        if key not in before:
            if not settings.test_only and data is not None:
                told = f"{run.path}: was begun by a version without --{key}; it goes on with --{key} {value}"
                warnings.warn(told, stacklevel=2)
        elif before[key] != value:
            raise UserError(f"{run.path}: was made with --{key} {before[key]}, which can't change to {value}; {remedy}")
    if found is not None and data is not None and found.get("data", data) != data:
        raise UserError(f"{settings.data_paths}: holds other cases than {run.path} was trained on; {remedy}")
    if settings.test_only:
        return
    if run.best_checkpoint.exists() and not run.has_last_checkpoint:
        raise UserError(
            f"{run.path}: has a {run.best_checkpoint.name}, but no {run.last_checkpoint.name} to go on from; {remedy}"
        )


def _settings_of(run: RunFolder) -> dict[str, Any] | None:
    """What ``write_config`` wrote or, where that is damaged, the settings in a checkpoint; None without either."""
    try:
        config: dict[str, Any] = json.loads(run.config.read_text(encoding="utf-8"))
        if isinstance(config["settings"], dict) and config["settings"]:
            return config
    except (OSError, ValueError, KeyError, TypeError):
        pass
    for path in (run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint):
        try:
            return {"settings": load_checkpoint(path)["settings"]}
        except UserError:
            continue
    return None


def move_aside(path: Path, suffix: str) -> Path:
    """Rename a file or folder to the first free of ``<name>.<suffix>``, ``<name>.<suffix>2``, …; returns that."""
    names = (f"{path.name}.{suffix}{number if number > 1 else ''}" for number in range(1, 10**6))
    free = next(other for other in map(path.with_name, names) if not other.exists())
    os.replace(path, free)
    return free


def remove_partial_files(run: RunFolder) -> None:
    """Remove what killed processes left half-written; only whoever holds the run's lock may do this."""
    for path in run.path.rglob(".*.partial"):
        path.unlink(missing_ok=True)


def write_config(settings: TrainingSettings, plan: StepPlan, data: str, ranks: Ranks) -> None:
    """Write the settings, the fingerprint of the cases, the hardware and the versions of the libraries."""
    packages = ("torch", "torchio", "h5py", "hdf5plugin", "numpy", "nibabel", "prodigyopt", "monai")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    config = {
        "settings": settings.as_dict(),
        "data": data,
        "device": str(plan.device.torch_device),
        "precision": plan.device.precision,
        "checkpointing": plan.checkpointing,
        "batch_size": plan.batch_size,
        "accumulate": plan.accumulate,
        "processes": ranks.count,
        "hardware": hardware(),
        "versions": versions,
    }
    write_json(settings.run_folder.config, config)


def write_test_config(settings: TrainingSettings) -> None:
    """Write the run's configuration with the settings of a further test, so that the test can be read as a run."""
    config = json.loads(settings.run_folder.config.read_text(encoding="utf-8"))
    write_json(settings.test_folder.config, {**config, "settings": settings.as_dict()})


def save_last(
    spec: NetworkSpec,
    network: nn.Module,
    parts: dict[str, Any],
    progress: Progress,
    best: Best,
    settings: TrainingSettings,
    ranks: Ranks,
    **more: Any,
) -> None:
    """Write the last checkpoint: all that ``load_last`` needs. The one before stays beside it.

    Args:
        spec: the network's building plan.
        network: that is trained.
        parts: optimizer, scaler and others by their keys in the checkpoint.
        progress: how far training has come.
        best: the network of the best epoch, from which ``best.pt`` can be written again.
        settings: of the run.
        ranks: all processes must call this; one writes.
        more: what else is stored.
    """
    generators = ranks.gather(_generators())
    if not ranks.is_writer:
        return
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"progress": vars(progress), "best": vars(best), "generators": generators, **more}
    run = settings.run_folder
    save_checkpoint(
        run.last_checkpoint, spec, network.state_dict(), settings.as_dict(), keep=run.previous_checkpoint, **state
    )


def load_last(
    spec: NetworkSpec, network: nn.Module, parts: dict[str, Any], settings: TrainingSettings, ranks: Ranks
) -> tuple[Progress, Best] | None:
    """Load the last checkpoint of the run, or the one before where the last is damaged, into network and parts.

    A damaged file is kept under another name.

    Args:
        spec: the network's building plan.
        network: on its device.
        parts: optimizer, scaler and others by their keys in the checkpoint.
        settings: of the run.
        ranks: processes; each of them loads, one speaks.

    Returns:
        How far the run has come and the best network, or None where there is no checkpoint yet.

    Raises:
        UserError: neither checkpoint can be used, or one can't be read.
    """
    run = settings.run_folder
    damages = []
    for path in (run.last_checkpoint, run.previous_checkpoint):
        if not path.exists():
            continue
        try:
            progress, best = _load(path, spec, network, parts, settings, ranks)
        except CheckpointError as error:
            damages.append(error.fault)
            continue
        if ranks.is_writer:
            for damage in damages:
                aside = move_aside(run.last_checkpoint, "damaged")
                warnings.warn(
                    f"{damage}. Kept as {aside.name}; what came after {path.name} is done again", stacklevel=2
                )
            print(f"{run.path}: going on {progress}")
        return progress, best
    if damages:
        from_best = f"; with --init_from {settings.model_name}, from its {run.best_checkpoint.name}"
        remedy = "--restart moves the run aside and begins anew" + (from_best if run.best_checkpoint.exists() else "")
        raise UserError(f"{damages[0]}; {remedy}")
    return None


def is_best_written(run: RunFolder, best: Best, spec: NetworkSpec, task: Task) -> bool:
    """Whether the run's best checkpoint holds the best network; a damaged one is kept under another name.

    It can be missing, or be of a later epoch than the last checkpoint, where a run was killed.
    """
    path = run.best_checkpoint
    if not path.exists():
        return best.epoch == 0
    try:
        content = load_checkpoint(path)
        if content["task"] != task or content["network"] != spec:
            raise CheckpointError(f"{path}: a checkpoint of another run")
    except CheckpointError as error:
        aside = move_aside(path, "damaged")
        warnings.warn(
            f"{error.fault}. Kept as {aside.name}; it is written again from {run.last_checkpoint.name}", stacklevel=2
        )
        return False
    return bool(content.get("epoch") == best.epoch)


def _load(
    path: Path,
    spec: NetworkSpec,
    network: nn.Module,
    parts: dict[str, Any],
    settings: TrainingSettings,
    ranks: Ranks,
) -> tuple[Progress, Best]:
    """Load one checkpoint. Raises CheckpointError, whatever is wrong with it."""
    content = load_checkpoint(path)
    if content["task"] != settings.task:
        raise CheckpointError(f"{path}: is the checkpoint of a {content['task'].network_name}, not of this run")
    fill_network(network, spec, content, path)
    try:
        for name, part in parts.items():
            if content[name] or name != "scaler":  # a scaler that was not used has no state
                part.load_state_dict(content[name])
        progress, best = Progress(**content["progress"]), Best(**content["best"])
        for state in (progress, best):
            _check_types(state)
        generators = content["generators"]
        if len(generators) == ranks.count:
            _set_generators(generators[ranks.rank])
        else:  # as many processes as before would draw the same numbers again
            torch.manual_seed(hash((settings.seed, ranks.rank, progress.epoch, progress.position)) % 2**63)
    except Exception as error:  # a broken checkpoint raises nearly anything
        if is_of_memory(error):
            raise
        raise CheckpointError(f"{path}: damaged, or of another version of this project ({error!r:.80})") from None
    return progress, best


def _check_types(state: Progress | Best) -> None:
    """Raise TypeError if a value is not of its default's kind."""
    for name, default in vars(type(state)()).items():
        value = getattr(state, name)
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if not isinstance(value, kinds):
            raise TypeError(f"{name} is {value!r:.40}")


def _generators() -> dict[str, Any]:
    """States of all generators of random numbers of this process, in types that a checkpoint can hold."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }


def _set_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
