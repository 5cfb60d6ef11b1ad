"""Where a segmenter loses its Dice on phantoms, and how much could be had at all.

``python benchmarks/phantom_errors.py --run demo_output/trained_models/segmenter``, after ``make demo``.

Two things bound the score. A mask is drawn on the scan's voxels and brought to 1 mm by the nearest one, so it rises in
steps where slices are thick: "exact shape" is the Dice of the body's true shape against it. And a vertebra that the
scan's end cuts is in view but not labelled: "cut left out" scores the prediction without what it found there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from metrics.mask_metrics import dice, hd95_mm
from training.arguments import Settings
from training.checkpoints import load_checkpoint
from training.compute import find_compute
from training.evaluation import predict
from training.tasks import SegmentationTask
from utils.working_grid import WorkingGrid
from verse_utils.phantom import make_phantom, render

# A false voxel belongs to a cut vertebra when it lies this near to one, and farther than this from the labelled ones.
NEAR_MM = 2.0


def in_view(phantom, grid: WorkingGrid) -> tuple[np.ndarray, np.ndarray]:
    """True shapes on a working grid: (X, Y, Z) bool of the labelled vertebrae, and of the cut ones."""
    _, label = render(phantom.anatomy, grid.affine, grid.shape)
    labelled = np.isin(label, list(phantom.centroids.points_vox))
    return labelled, (label > 0) & ~labelled


def of_cut_vertebrae(found: np.ndarray, target: np.ndarray, cut: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """False voxels that belong to cut vertebrae: (X, Y, Z) bool."""
    if not cut.any():
        return cut
    to_cut, to_target = (distance_transform_edt(~mask, sampling=spacing_mm) for mask in (cut, target))
    return found & ~target & (to_cut < NEAR_MM) & (to_target > NEAR_MM)


def main() -> None:
    """Print a row for each test phantom, and the means."""
    parser = argparse.ArgumentParser(description="What a segmenter's Dice on phantoms is made of.")
    parser.add_argument("--run", type=Path, required=True, help="folder of a segmenter trained on phantoms")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom data set")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.run / "best.pt")
    saved = checkpoint["settings"]
    restored = {"data_path": Path(saved["data_path"]), "input_shape": checkpoint["network"].input_shape}
    settings = Settings(**{**saved, **restored})  # JSON has neither paths nor tuples
    task, compute = SegmentationTask(settings), find_compute(settings.device, settings.precision)
    network = checkpoint["network"].build().to(compute.device)
    network.load_state_dict(checkpoint["weights"])
    dataset = task.dataset(settings.data_path, "test")
    rows = []
    print("phantom  vertebrae    Dice  HD95 mm | cut left out: Dice  HD95 mm | exact shape: Dice")
    for index in range(len(dataset)):
        subject = dataset[index]
        spacing_mm = subject["image"].spacing
        probabilities = predict(network, subject["image"].data, settings, compute, task.overhang_vox)
        found = task.clean(probabilities, spacing_mm)[0].numpy() > 0.5
        target = subject["label"].data[0].numpy() > 0
        number = int(subject["case_id"].removeprefix("sub-phantom")[:3])
        phantom = make_phantom((arguments.seed, number))
        exact, cut = in_view(phantom, dataset.store.case("test", subject["case_id"]).grid)
        without_cut = found & ~of_cut_vertebrae(found, target, cut, spacing_mm)
        row = [f(mask, target, spacing_mm) for mask in (found, without_cut) for f in (dice, hd95_mm)]
        rows.append([*row, dice(exact, target, spacing_mm)])
        print(f"{number:7} {len(phantom.centroids.points_vox):10}" + _shown(rows[-1]), flush=True)
    print(f"{'mean':>7} {'':10}" + _shown(np.mean(rows, axis=0)))


def _shown(row) -> str:
    return "{:8.3f} {:8.2f} | {:18.3f} {:8.2f} | {:17.3f}".format(*row)


if __name__ == "__main__":
    main()
