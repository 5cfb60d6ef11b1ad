"""Ways to masks of single vertebrae: a binary mask divided among centres, patches with names, one at a time.

    python preprocessing.py --data_path trunks verse_sample --task segmentation
    python training/train_segmentation.py --data_path H5 --model_name in_patches --labels vertebrae …
    python benchmarks/single_vertebrae.py --data_path H5 --patches_model in_patches

- **Nearest**: the binary segmenter's mask, each voxel of it that of the reference's nearest centre.
- **In patches**: a segmenter with a class for each vertebra, which has to read names from patches.
- **One at a time**: a segmenter that is shown the reference's centres, as inference shows it those of the localiser.

The reference's centres stand for a localiser that never errs. Each test case of the H5 is scored at 1 mm: the mean Dice
of its vertebrae, and the seconds that its masks took.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torchio as tio
from scipy.spatial import cKDTree

from dataloader import h5VerSe
from metrics.vertebra_metrics import dice_of_vertebrae
from prediction.device import find_device
from prediction.names.single import SingleVertebrae
from prediction.pretrained import pretrained_checkpoint
from prediction.probabilities import class_indices
from prediction.sliding_window import Windows, joined
from prediction.trained_model import TrainedModel, load_model
from utils.geometry.body_centres import body_centres
from utils.misc import OneLineParser, command
from utils.tasks import SEGMENTATION


def nearest(mask: np.ndarray, centres_vox: Mapping[int, np.ndarray]) -> np.ndarray:
    """A mask whose voxels have the label of the nearest centre."""
    bone = np.argwhere(mask)
    _, index = cKDTree(np.array(list(centres_vox.values()))).query(bone)
    labels = np.zeros(mask.shape, np.uint8)
    labels[tuple(bone.T)] = np.array(list(centres_vox), np.uint8)[index]
    return labels


def one_at_a_time(model: TrainedModel, image_hu: np.ndarray, centres_vox: Mapping[int, np.ndarray]) -> np.ndarray:
    """Labels (X, Y, Z) uint8 of the vertebrae at the centres."""
    single = SingleVertebrae(
        network=model.predict_window,
        image=model.scaled(image_hu),
        air=model.scaling.air,
        window_shape=model.spec.input_shape,
        spacing_mm=model.spacing_mm,
        probability=np.zeros(image_hu.shape, np.float32),
        numbers=np.zeros(image_hu.shape, np.uint8),
    )
    label_of = np.zeros(256, np.uint8)
    for label, centre_vox in centres_vox.items():
        body = single.find(centre_vox)
        if body is not None:
            label_of[body.number] = label
    labels: np.ndarray = label_of[single.numbers * (np.asarray(single.probability) > 0.5)]
    return labels


@command
def main() -> None:
    """Print a row for each test case, and the means."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data_path", type=Path, required=True, help="H5 of preprocessing.py for the segmenter")
    binary, single = (pretrained_checkpoint(SEGMENTATION, labels) for labels in ("segmenter", "vertebrae"))
    add("--binary_model", type=Path, default=binary, help="binary segmenter")
    add("--single_model", type=Path, default=single, help="segmenter of --labels single")
    add("--patches_model", type=Path, help="segmenter of --labels vertebrae")
    arguments = parser.parse_args()
    device = find_device("auto", "auto")
    paths = {"nearest": arguments.binary_model, "in patches": arguments.patches_model}
    paths["one at a time"] = arguments.single_model
    models = {way: load_model(path, SEGMENTATION, device) for way, path in paths.items() if path is not None}
    dataset = h5VerSe(arguments.data_path, "test", task=SEGMENTATION)
    rows = []
    for number in range(len(dataset)):
        rows.append(score(dataset[number], models))
        print(dataset.case_ids[number], {name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
    print("mean", {name: round(float(np.mean([row[name] for row in rows])), 3) for name in rows[0]})


def score(subject: tio.Subject, models: Mapping[str, TrainedModel]) -> dict[str, float]:
    """Dice and seconds of each way on a scan."""
    image_hu, reference = subject["image"].data[0].numpy(), subject["label"].data[0].numpy()
    centres = body_centres(reference, subject["image"].spacing)

    def classes(model: TrainedModel) -> np.ndarray:
        windows = Windows.cover(image_hu.shape, model.spec.input_shape, overhang_vox=model.overhang_vox)
        with model.on_device():
            return class_indices(joined(model.predict_slabs(image_hu, windows), image_hu.shape[2]).numpy())

    ways: dict[str, Callable[[TrainedModel], np.ndarray]] = {
        "nearest": lambda model: nearest(classes(model), centres),
        "in patches": lambda model: np.array(model.scheme.mask_values, np.uint8)[classes(model)],
        "one at a time": lambda model: one_at_a_time(model, image_hu, centres),
    }
    row: dict[str, float] = {}
    for way, model in models.items():
        began = time.perf_counter()
        labels = ways[way](model)
        row[f"{way}, s"] = time.perf_counter() - began
        row[f"{way}, Dice"] = float(np.mean(list(dice_of_vertebrae(labels, reference).values())))
    return row


if __name__ == "__main__":
    main()
