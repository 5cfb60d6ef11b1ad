"""What is told about a run while it goes on: a line an epoch, the report and, if asked for, Weights & Biases."""

from __future__ import annotations

import os
import resource
import secrets
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from types import TracebackType
from typing import Any

import requests
import torch

from reports.report import write_report
from training.run.state import Progress
from training.settings import TrainingSettings
from utils.files.run_folder import RunFolder
from verse_utils.errors import UserError

# How long a server of Weights & Biases may take for its first answer, and to set up a run after that.
ANSWER_SECONDS, SETUP_SECONDS = 5, 30
# How long a run that ends waits for its last uploads; schedulers kill 30 s after their signal.
LAST_UPLOADS_SECONDS = 20


class Tracker:
    """Tells about a run until it is left.

    Args:
        settings: of the run, whose folder is there.
        device: that it trains on.
    """

    def __init__(self, settings: TrainingSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self._wandb = _start_wandb(settings) if settings.use_wandb else None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        with self._no_obstacle():
            if self._wandb is not None:
                self._wandb.finish(exit_code=0 if kind is None else 1)

    def log(self, progress: Progress) -> None:
        """Tell about the epoch that was done last, when its files are written.

        The report is written after the first epoch, whenever whole scans are due, and after the last epoch.
        """
        settings, row, epoch = self.settings, progress.history[-1], progress.epoch
        print(" · ".join(_told(progress.history, settings, self.device)))
        if epoch == 1 or epoch % settings.whole_scans_every == 0 or progress.is_over(settings):
            write_report(settings.run_folder.path)
        if self._wandb is not None:
            from wandb import Image

            numbers = {name: value for name, value in row.items() if not isinstance(value, str)}
            with self._no_obstacle():
                picture = Image(str(settings.run_folder.epoch_picture(epoch)))
                self._wandb.log({**numbers, "validation": picture}, step=epoch)

    def log_test(self, summary: dict[str, dict[str, Any]]) -> None:
        """Tell about the test, by the summary that ``test_metrics.json`` and the report show."""
        print_means(summary)
        with self._no_obstacle():
            if self._wandb is not None:
                self._wandb.summary.update({"test": summary})

    @contextmanager
    def _no_obstacle(self) -> Iterator[None]:
        """In it, what goes wrong at Weights & Biases ends the logging there, but not a run of days."""
        try:
            yield
        except Exception as error:  # as many as it has parts
            self._wandb = None
            warnings.warn(f"Weights & Biases: {error!r:.100}; the run goes on without it", stacklevel=2)


def print_means(summary: dict[str, dict[str, Any]]) -> None:
    """Print a line for each metric of a test."""
    width = max(map(len, summary))
    for name, values in summary.items():
        unit = "" if values["unit"] == "1" else f" {values['unit']}"
        print(f"{name:>{width}} {values['mean']:9.4f}{unit}")


def _told(history: Sequence[dict[str, Any]], settings: TrainingSettings, device: torch.device) -> list[str]:
    """The parts of the line of the last epoch.

    The time that is left is that of epochs as they were lately, with one validation on whole scans among them.
    """
    row, recent = history[-1], history[-settings.whole_scans_every :]
    numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
    epoch, seconds = numbers.pop("epoch"), numbers.pop("seconds")
    if not numbers["steps_left_out"]:
        del numbers["steps_left_out"]
    told = [f"epoch {epoch}/{settings.epochs}"]
    told += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in numbers.items()]
    if row["left_out"]:
        told.append(f"left out: {row['left_out']}")
    if row["chosen_by"]:
        told.append("best so far")
    left = sum(one["seconds"] for one in recent) / len(recent) * (settings.epochs - epoch)
    return [*told, f"{seconds:.1f} s", f"{_duration(left)} left", f"memory {_peak_gib(device):.1f} GiB"]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _peak_gib(device: torch.device) -> float:
    """The most memory since the program started: of tensors on the GPU or, without one, of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _start_wandb(settings: TrainingSettings) -> Any:
    """Begin or continue the run at Weights & Biases. Raises UserError where it refuses the settings given to it."""
    import wandb

    try:
        return _begin(settings)
    except (wandb.Error, ValueError) as error:
        reason = " ".join(str(error).split())
        remedy = "mend the variables WANDB_… of the environment, or leave --use_wandb out"
        raise UserError(f"--use_wandb: refused by Weights & Biases ({reason:.200}); {remedy}") from None


def _begin(settings: TrainingSettings) -> Any:
    """Begin or continue the run, offline without a key or an answer. It writes below the run."""
    import wandb

    folder = settings.run_folder
    shared: dict[str, Any] = {
        "project": "spine-segmentation",
        "name": settings.model_name,
        "config": settings.as_dict(),
        "dir": str(folder.path),
        "id": _wandb_id(folder),
        "resume": "allow",
    }
    options = wandb.Settings(
        console="off", silent=True, init_timeout=SETUP_SECONDS, finish_timeout=LAST_UPLOADS_SECONDS
    )
    mode: Any = os.environ.get("WANDB_MODE", "online")
    server = wandb.setup().settings.base_url
    if mode != "online":
        reason = f"WANDB_MODE is {mode}"
    elif not wandb.api.api_key:
        reason = "no key is known"
    elif not _answers(server):
        reason = f"no answer from {server}"
    else:
        try:
            run = wandb.init(mode="online", settings=options, **shared)
            print(f"Weights & Biases: {run.url}")
            return run
        except (wandb.Error, ValueError) as error:
            reason = f"{server}: {str(error).splitlines()[0]:.100}"
            wandb.teardown()  # what is left of it holds the id
    run = wandb.init(mode="offline" if mode == "online" else mode, settings=options, **shared)
    later = f"; later: wandb sync {folder.path / 'wandb'}/offline-run-*" if mode != "disabled" else ""
    print(f"Weights & Biases: not online ({reason}){later}")
    return run


def _wandb_id(folder: RunFolder) -> str:
    """The id of the run at Weights & Biases, a new one if it has none yet."""
    try:
        kept = folder.wandb_id.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        kept = ""
    if kept:
        return kept
    folder.wandb_id.parent.mkdir(exist_ok=True)
    new = secrets.token_hex(4)
    folder.wandb_id.write_text(new, encoding="utf-8")
    return new


def _answers(server: str) -> bool:
    """Whether a server answers in time, whatever it says."""
    answers = []

    def ask() -> None:
        with suppress(requests.RequestException):
            answers.append(requests.head(server, timeout=ANSWER_SECONDS))

    # In a thread, since looking a name up knows no timeout.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return bool(answers)
