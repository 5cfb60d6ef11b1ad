"""What the training engine costs beside a bare loop of forward pass, backward pass and optimizer step.

Both train the same network on the same patches, which lie in memory, and take turns. Then the engine reads patches from
disk, and the share of the time in which it waits for them is measured.

    python benchmarks/engine.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from prediction.checkpoints import NetworkSpec
from prediction.device import find_device
from preprocessing import preprocess
from training.arguments import parse_arguments
from training.run.interruption import Interruption
from training.steps.batches import Batch
from training.steps.optimizer import build_optimizer
from training.steps.ranks import Ranks
from training.steps.step_plan import StepPlan
from training.tasks.segmenter import SegmentationTraining
from training.trainer import Trainer
from utils.misc import command
from utils.preprocessing_settings import IsotropicSettings
from utils.tasks import SEGMENTATION
from verse_utils.phantom.dataset import write_phantom_dataset

PATCHES = 10  # of each training case in an epoch


class Timed:
    """Batches, and the seconds that were spent on waiting for them."""

    def __init__(self, batches: Any) -> None:
        self.batches, self.seconds = batches, 0.0

    def __iter__(self) -> Iterator[Batch]:
        started = time.perf_counter()
        for batch in self.batches:
            self.seconds += time.perf_counter() - started
            yield batch
            started = time.perf_counter()


@command
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        trainer = build_trainer(Path(folder), arguments.precision, arguments.workers)
        loader, patches = trainer.train_batches, list(trainer.train_batches)
        trainer.train_batches = patches  # type: ignore[assignment]
        seconds: dict[str, list[float]] = {"bare loop": [], "engine": []}
        for number in range(arguments.rounds + 1):
            for name, values in seconds.items():
                started = time.perf_counter()
                if name == "engine":
                    epoch(trainer)
                else:
                    bare_loop(trainer, patches)
                if number:  # the first round warms up
                    values.append((time.perf_counter() - started) / len(patches))
        trainer.train_batches = timed = Timed(loader)  # type: ignore[assignment]
        started = time.perf_counter()
        epoch(trainer)
        waiting = timed.seconds / (time.perf_counter() - started)
        best = {name: min(values) for name, values in seconds.items()}  # other programs only ever slow a round down
        for name, value in best.items():
            print(f"{name:<12} {1000 * value:8.1f} ms a step")
        print(f"engine / bare loop: {best['engine'] / best['bare loop']:.3f}")
        print(f"waiting for patches from disk, {arguments.workers} worker(s): {100 * waiting:.1f} % of the epoch")


def build_trainer(folder: Path, precision: str, workers: int) -> Trainer:
    """A trainer of the segmenter of ``make demo`` on phantoms."""
    write_phantom_dataset(folder / "phantoms", {"training": 4, "validation": 1}, seed=3)
    h5 = preprocess(folder / "phantoms", 19, IsotropicSettings(), folder, pictures=False)
    command = (
        f"--data_path {h5} --model_name run --input_shape 64 64 96 --patches_per_volume {PATCHES} --workers {workers}"
    )
    command += f" --model_args channels=8,16,64,128,192 --precision {precision} --output {folder}"
    settings = parse_arguments(SEGMENTATION, command.split())
    task = SegmentationTraining(settings)
    spec = NetworkSpec(settings.model, 1, 1, settings.input_shape, settings.model_args)
    torch.manual_seed(0)
    plan = StepPlan(find_device("auto", precision))
    network = spec.build().to(plan.device.torch_device)
    datasets = {split: task.dataset(h5, split) for split in ("training", "validation")}
    return Trainer(task, spec, network, datasets, settings, plan, Ranks(), Interruption())


def epoch(trainer: Trainer) -> None:
    """An epoch of the engine, from its first patch."""
    trainer.progress.position = 0
    trainer._train_epoch()


def bare_loop(trainer: Trainer, batches: list[Batch]) -> None:
    """What must be computed, and nothing else."""
    network, device = trainer.network, trainer.plan.device
    optimizer = build_optimizer(network, trainer.settings)
    network.train()
    for batch in batches:
        with device.autocast():
            logits = network(batch.image.to(device.torch_device))
        trainer.task.loss(logits, batch.target.to(device.torch_device)).backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
