"""Why the Dice of a segmenter on phantoms is not higher, and which Dice is possible.

``python benchmarks/phantom_errors.py --run demo_output/trained_models/segmenter``, after ``make demo``.

Two things limit the Dice. First, the reference mask has the scan's resolution; at 1 mm, it has steps where slices are
thick. "Exact shape" is the Dice of the phantom's exact shape against this mask. Second, a vertebra that the end of the
scan cuts is visible but not labelled. "Cut left out" scores the prediction without its voxels of such vertebrae.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from metrics.mask_metrics import MaskPair, dice, hd95_mm
from prediction.checkpoints import load_checkpoint
from prediction.device import find_device
from training.settings import TrainingSettings
from training.steps.step_plan import StepPlan
from training.tasks.segmenter import SegmentationTraining
from utils.files.run_folder import RunFolder
from utils.geometry.working_grid import WorkingGrid
from utils.misc import command
from utils.tasks import SEGMENTATION
from verse_utils.phantom.case import Phantom
from verse_utils.phantom.dataset import make_phantom
from verse_utils.phantom.render import render

# A false positive voxel belongs to a cut vertebra if it is closer than this to one, and farther from the labelled ones.
NEAR_MM = 2.0


def in_view(phantom: Phantom, grid: WorkingGrid) -> tuple[np.ndarray, np.ndarray]:
    """Exact shapes on a working grid: (X, Y, Z) bool of the labelled vertebrae, and of the cut ones."""
    _, label = render(phantom.anatomy, grid.affine, grid.shape)
    labelled = np.isin(label, list(phantom.centroids.points_vox))
    return labelled, (label > 0) & ~labelled


def of_cut_vertebrae(
    prediction: np.ndarray, reference: np.ndarray, cut: np.ndarray, spacing_mm: Sequence[float]
) -> np.ndarray:
    """False positive voxels that belong to cut vertebrae: (X, Y, Z) bool."""
    if not cut.any():
        return cut
    to_cut, to_reference = (distance_transform_edt(~mask, sampling=spacing_mm) for mask in (cut, reference))
    of_cut: np.ndarray = prediction & ~reference & (to_cut < NEAR_MM) & (to_reference > NEAR_MM)
    return of_cut


@command
def main() -> None:
    """Print a row for each test phantom, and the means."""
    parser = argparse.ArgumentParser(description="What a segmenter's Dice on phantoms is made of.")
    parser.add_argument("--run", type=Path, required=True, help="folder of a segmenter trained on phantoms")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom data set")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(RunFolder(arguments.run).best_checkpoint)
    saved = checkpoint["settings"]
    settings = TrainingSettings(  # JSON has neither paths nor tuples
        **{
            **saved,
            "task": SEGMENTATION,
            "data_path": tuple(map(Path, saved["data_path"])),
            "input_shape": checkpoint["network"].input_shape,
        }
    )
    task = SegmentationTraining(settings)
    plan = StepPlan(find_device(settings.device, settings.precision))
    network = checkpoint["network"].build().to(plan.device.torch_device)
    network.load_state_dict(checkpoint["weights"])
    dataset = task.dataset(settings.data_path, "test")
    rows = []
    print("phantom  vertebrae    Dice  HD95 mm | cut left out: Dice  HD95 mm | exact shape: Dice")
    for index in range(len(dataset)):
        subject = dataset[index]
        spacing_mm = subject["image"].spacing
        probabilities = task.predict(network, subject, plan)
        prediction = task.clean(probabilities, spacing_mm)[0].numpy() > 0.5
        reference = subject["label"].data[0].numpy() > 0
        number = int(subject["case_id"].removeprefix("sub-phantom")[:3])
        phantom = make_phantom((arguments.seed, number))
        exact, cut = in_view(phantom, dataset.store.case("test", subject["case_id"]).grid)
        without_cut = prediction & ~of_cut_vertebrae(prediction, reference, cut, spacing_mm)
        pairs = [MaskPair(mask, reference, spacing_mm) for mask in (prediction, without_cut, exact)]
        rows.append([dice(pairs[0]), hd95_mm(pairs[0]), dice(pairs[1]), hd95_mm(pairs[1]), dice(pairs[2])])
        print(f"{number:7} {len(phantom.centroids.points_vox):10}" + _shown(rows[-1]), flush=True)
    print(f"{'mean':>7} {'':10}" + _shown(np.mean(rows, axis=0)))


def _shown(row: Sequence[float]) -> str:
    return "{:8.3f} {:8.2f} | {:18.3f} {:8.2f} | {:17.3f}".format(*row)


if __name__ == "__main__":
    main()
