"""Three ways to masks of single vertebrae: a binary mask divided among centres, patches with names, one at a time.

    python preprocessing.py --data_path trunks verse_sample --task segmentation
    python training/train_segmentation.py --data_path H5 --model_name in_patches --labels vertebrae …
    python benchmarks/single_vertebrae.py --data_path H5 --patches_model in_patches --minutes 30

- **Divided**: the binary segmenter's mask, divided among the reference's centres as inference divides it; and, plainly,
  to the nearest of them.
- **In patches**: a segmenter with a class for each vertebra, which has to read names from patches.
- **One at a time** (Lessmann et al. 2019, 10.1016/j.media.2019.02.005; Payer et al. 2020, 10.5220/0008975201240133): a
  network that is given a Gaussian at a vertebra's centre as a second channel, and finds that vertebra alone. It starts
  from the binary segmenter's weights and is trained here, for ``--minutes``.

The reference's centres stand for a localiser that never errs. Each test case of the H5 is scored at 1 mm: the mean Dice
of its vertebrae, and the seconds that its masks took after the windows of the binary segmenter.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchio as tio
from scipy.spatial import cKDTree
from torch import nn

from data_transforms.classes.scale_hu import ScaleHU
from data_transforms.presets import intensity_augmentation, spatial_augmentation
from data_transforms.segmentation_transforms import density_augmentation
from dataloader import Patches, h5VerSe
from metrics.losses import build_loss
from metrics.vertebra_metrics import dice_of_vertebrae
from prediction.device import find_device
from prediction.names.naming import divide
from prediction.pretrained import PRETRAINED
from prediction.probabilities import class_indices
from prediction.trained_model import TrainedModel, load_model
from training.steps.optimizer import learning_rate_factor
from utils.constants import HU_AIR
from utils.geometry.body_centres import body_centres
from utils.misc import OneLineParser, command
from utils.tasks import SEGMENTATION

SIGMA_MM = 8.0  # of the Gaussian
OFF_MM = 2.0  # how far centres are off in training, along each axis
# The window lies behind the centre of the body, since arch and processes do.
SHIFT_MM = np.array([0.0, -16.0, -8.0])


class OneVertebra(tio.Transform):  # type: ignore[misc]
    """Choose the vertebra whose body is nearest to the middle of a patch: a second channel shows it, the label is it.

    Of a patch without a vertebra, the channel is 0.
    """

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        image, label = subject["image"], subject["label"]
        raw = label.data[0].numpy()
        middle = np.array(raw.shape) / 2
        centres = body_centres(raw, label.spacing)
        chosen = min(centres, key=lambda one: float(np.linalg.norm(centres[one] - middle)), default=0)
        shown = torch.zeros(1, *raw.shape)
        if chosen:
            shown = gaussian(raw.shape, centres[chosen] + OFF_MM * torch.randn(3).numpy())
        image.set_data(torch.cat([image.data, shown]))
        label.set_data((label.data == chosen).to(torch.uint8) if chosen else torch.zeros_like(label.data))
        return subject


def gaussian(shape: tuple[int, ...], centre_vox: np.ndarray) -> torch.Tensor:
    """(1, X, Y, Z) float32, 1 at a centre; voxels of 1 mm."""
    along = [
        np.exp(-np.square(np.arange(size) - centre) / (2 * SIGMA_MM**2))
        for size, centre in zip(shape, centre_vox, strict=True)
    ]
    return torch.from_numpy(np.einsum("x,y,z->xyz", *along).astype(np.float32))[None]


def with_second_channel(segmenter: TrainedModel) -> nn.Module:
    """The segmenter's network with a second input, whose weights are 0."""
    network = replace(segmenter.spec, in_channels=2).build()
    weights = segmenter.network.state_dict()
    for name, wanted in network.state_dict().items():
        if weights[name].shape != wanted.shape:
            wider = torch.zeros_like(wanted)
            wider[:, : weights[name].shape[1]] = weights[name]
            weights[name] = wider
    network.load_state_dict(weights)
    return network


def train(network: nn.Module, h5_path: Path, segmenter: TrainedModel, minutes: float) -> int:
    """Train for some minutes; returns the steps."""
    transform = tio.Compose(
        [
            *spatial_augmentation("strong"),
            *density_augmentation("strong"),
            ScaleHU(),
            *intensity_augmentation("strong"),
            OneVertebra(),
        ]
    )
    patches = Patches(segmenter.spec.input_shape, per_volume=1000, foreground_share=0.95)
    dataset = h5VerSe(h5_path, "training", transform, patches, SEGMENTATION)
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    loader = torch.utils.data.DataLoader(dataset, sampler=order, num_workers=1, collate_fn=lambda items: items[0])
    loss_of, optimizer = build_loss(SEGMENTATION.losses[0]), torch.optim.AdamW(network.parameters(), lr=1e-3)
    began, losses = time.monotonic(), []
    network.train()
    for steps, subject in enumerate(loader):
        share = (time.monotonic() - began) / (60 * minutes)
        if share >= 1:
            return steps
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * learning_rate_factor("cosine", round(1e6 * share), 0, 1_000_000)
        with segmenter.device.autocast():
            logits = network(subject["image"].data[None])
        loss = loss_of(logits, subject["label"].data[None])
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if steps % 200 == 199:
            print(f"step {steps + 1}: mean loss {np.mean(losses[-200:]):.3f}", flush=True)
    return len(order)


def one_at_a_time(
    network: nn.Module, segmenter: TrainedModel, image_hu: np.ndarray, centres_vox: Mapping[int, np.ndarray]
) -> np.ndarray:
    """Labels (X, Y, Z) uint8: in each voxel that of the vertebra with the highest logit, 0 where none is above 0."""
    shape = np.array(segmenter.spec.input_shape)
    around = [(int(size), int(size)) for size in shape]
    padded_hu = np.pad(image_hu, around, constant_values=HU_AIR)
    best, labels = np.zeros(padded_hu.shape, np.float32), np.zeros(padded_hu.shape, np.uint8)
    network.eval()
    for label, centre in centres_vox.items():
        middle = np.rint(centre + SHIFT_MM).astype(int) + shape
        where = tuple(slice(low, low + size) for low, size in zip(middle - shape // 2, shape, strict=True))
        image = segmenter.scaling.scale(torch.from_numpy(padded_hu[where])[None])
        shown = gaussian(tuple(shape), centre + shape - (middle - shape // 2))
        with torch.inference_mode(), segmenter.device.autocast():
            logits = network(torch.cat([image, shown])[None])[0, 0].float().numpy()
        better = logits > best[where]
        best[where][better] = logits[better]
        labels[where][better] = label
    return labels[tuple(slice(size, -size) for size in shape)]


def nearest(mask: np.ndarray, centres_vox: Mapping[int, np.ndarray]) -> np.ndarray:
    """A mask whose voxels have the label of the nearest centre."""
    bone = np.argwhere(mask)
    _, index = cKDTree(np.array(list(centres_vox.values()))).query(bone)
    labels = np.zeros(mask.shape, np.uint8)
    labels[tuple(bone.T)] = np.array(list(centres_vox), np.uint8)[index]
    return labels


@command
def main() -> None:
    """Print a row for each test case, and the means."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data_path", type=Path, required=True, help="H5 of preprocessing.py for the segmenter")
    add("--segmentation_model", type=Path, default=Path(PRETRAINED), help="binary segmenter")
    add("--patches_model", type=Path, help="segmenter of --labels vertebrae")
    add("--minutes", type=float, default=30.0, help="of training for one vertebra at a time")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = find_device("auto", "auto")
    segmenter = load_model(arguments.segmentation_model, SEGMENTATION, device)
    in_patches = load_model(arguments.patches_model, SEGMENTATION, device) if arguments.patches_model else None
    alone = with_second_channel(segmenter)
    print(f"{train(alone, arguments.data_path, segmenter, arguments.minutes)} steps", flush=True)
    dataset = h5VerSe(arguments.data_path, "test", task=SEGMENTATION)
    rows = []
    for number in range(len(dataset)):
        rows.append(score(dataset[number], segmenter, alone, in_patches))
        print(dataset.case_ids[number], {name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
    print("mean", {name: round(float(np.mean([row[name] for row in rows])), 3) for name in rows[0]})


def score(
    subject: tio.Subject, segmenter: TrainedModel, alone: nn.Module, in_patches: TrainedModel | None
) -> dict[str, float]:
    """Dice and seconds of each way on a scan."""
    image_hu, reference = subject["image"].data[0].numpy(), subject["label"].data[0].numpy()
    centres = body_centres(reference, subject["image"].spacing)
    mask = class_indices(segmenter.predict(image_hu).numpy())
    ways: dict[str, Callable[[], np.ndarray]] = {
        "divided": lambda: divided(mask, centres),
        "nearest": lambda: nearest(mask, centres),
        "one at a time": lambda: one_at_a_time(alone, segmenter, image_hu, centres),
    }
    if in_patches is not None:
        values = np.array(in_patches.scheme.mask_values, np.uint8)
        ways["in patches"] = lambda: values[class_indices(in_patches.predict(image_hu).numpy())]
    row: dict[str, float] = {}
    for way, work in ways.items():
        began = time.perf_counter()
        labels = work()
        row[f"{way}, s"] = time.perf_counter() - began
        row[f"{way}, Dice"] = float(np.mean(list(dice_of_vertebrae(labels, reference).values())))
    return row


def divided(mask: np.ndarray, centres_vox: Mapping[int, np.ndarray]) -> np.ndarray:
    """A mask divided as inference divides it."""
    labels = np.zeros(mask.shape, np.uint8)
    divide(mask, centres_vox, 1.0, labels)
    return labels * (mask > 0)


if __name__ == "__main__":
    main()
