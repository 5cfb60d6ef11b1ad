"""Steps and seconds in which each architecture overfits one real patch.

    python benchmarks/overfit.py --data_path preprocessed/verse_sample_verse19_segmentation_1mm.h5 --case sub-verse014

A network that can't overfit one patch is broken, or is not trained as it should be. Loss, optimizer and initial bias
are those of training.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from dataloader import Patches, h5VerSe
from metrics.mask_metrics import MaskPair, dice
from networks import ARCHITECTURES
from prediction.checkpoints import NetworkSpec
from prediction.device import find_device
from training.scripts import expect_background
from training.settings import TrainingSettings
from training.steps.optimizer import build_optimizer
from training.tasks.segmenter import SegmentationTraining
from utils.misc import OneLineParser, command
from utils.tasks import SEGMENTATION
from verse_utils.errors import UserError

ENOUGH_DICE = 0.95
MOST_STEPS = 1000
CHECK_EVERY = 5


@command
def main() -> None:
    """Print a row for each architecture."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", type=Path, required=True, help="a segmentation H5 of preprocessing.py")
    parser.add_argument("--case", required=True, help="a training case in it")
    parser.add_argument("--input_shape", type=int, nargs=3, default=(32, 32, 64), metavar="N", help="of the patch")
    parser.add_argument("--model", nargs="+", default=sorted(ARCHITECTURES), choices=sorted(ARCHITECTURES))
    arguments = parser.parse_args()
    shape = tuple(arguments.input_shape)
    settings = TrainingSettings(
        SEGMENTATION, (arguments.data_path,), "overfit", input_shape=shape, loss=SEGMENTATION.losses[0]
    )
    task = SegmentationTraining(settings)
    patches = Patches(shape, per_volume=1, foreground_share=1.0)
    dataset = h5VerSe(arguments.data_path, "training", task.presets.evaluate, patches, task.task)
    if arguments.case not in dataset.case_ids:
        raise UserError(f"--case {arguments.case}: not a training case of {arguments.data_path}: {dataset.case_ids}")
    subject = dataset[dataset.case_ids.index(arguments.case)]
    image, target = subject["image"].data[None], subject["label"].data[None]
    print(f"{arguments.case}, a patch of {'×'.join(map(str, shape))}, {int(target.sum())} voxels of vertebrae")
    print("| architecture | steps | seconds | Dice |\n|---|---|---|---|")
    for name in arguments.model:
        steps, seconds, score = overfit(name, task, image, target)
        print(f"| {name} | {steps} | {seconds:.0f} | {score:.3f} |", flush=True)


def overfit(
    name: str, task: SegmentationTraining, image: torch.Tensor, target: torch.Tensor
) -> tuple[int, float, float]:
    """Train on one patch until its Dice in evaluation mode is high enough; returns steps, seconds and Dice."""
    device = find_device(task.settings.device, task.settings.precision)
    torch.manual_seed(0)
    network = NetworkSpec(name, 1, 1, task.settings.input_shape).build().to(device.torch_device)
    expect_background(network, 1)
    optimizer = build_optimizer(network, task.settings)
    image, target = image.to(device.torch_device), target.to(device.torch_device)
    reference = target.bool().cpu().numpy()
    started = time.monotonic()
    for step in range(1, MOST_STEPS + 1):
        network.train()
        task.loss(network(image), target).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % CHECK_EVERY == 0:
            network.eval()
            with torch.inference_mode():
                prediction = network(image) > 0
            score = dice(MaskPair(prediction.cpu().numpy(), reference, spacing_mm=(1, 1, 1)))
            if score >= ENOUGH_DICE:
                break
    return step, time.monotonic() - started, score


if __name__ == "__main__":
    main()
