"""How long all surface metrics of a large case take, beside MONAI's 95th percentile Hausdorff distance alone.

    python benchmarks/surface_metrics.py

The case has 360×300×330 voxels of 1 mm and a column of ellipsoids of the size of vertebrae; the prediction is shifted
by a voxel and eroded. MONAI gets the whole volume, as its documentation has it; both give the same distance. The two
take turns, and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import binary_erosion

from metrics.mask_metrics import MaskPair, hd95_mm, hd_mm, mean_surface_distance_mm, surface_dice_1mm, surface_dice_3mm
from utils.misc import OneLineParser, command

SHAPE = (360, 300, 330)
SPACING_MM = (1.0, 1.0, 1.0)
VERTEBRAE = 12
SURFACE_METRICS = (hd_mm, hd95_mm, mean_surface_distance_mm, surface_dice_1mm, surface_dice_3mm)
# Half axes of a vertebra with its arch, in mm.
RADII_MM = (40.0, 35.0, 12.0)


def make_case() -> tuple[np.ndarray, np.ndarray]:
    """Prediction and reference, (X, Y, Z) bool."""
    reference = np.zeros(SHAPE, bool)
    axes = np.ogrid[tuple(slice(0, size) for size in SHAPE)]
    for place in range(VERTEBRAE):
        centre = (SHAPE[0] / 2, SHAPE[1] / 2, (place + 0.5) * SHAPE[2] / VERTEBRAE)
        reference |= sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, RADII_MM, strict=True)) <= 1
    return binary_erosion(np.roll(reference, 1, axis=(0, 1))), reference


def monai_alone(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """MONAI's 95th percentile of the whole volume."""
    pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distance_mm = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=SPACING_MM)
    return {"hd95_mm": float(distance_mm)}


def ours(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """All five, which share the distances of a pair."""
    pair = MaskPair(prediction, reference, SPACING_MM)
    return {metric.name: metric(pair) for metric in SURFACE_METRICS}


@command
def main() -> None:
    """Print a row for each, and the ratio."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="times that each is run")
    repeats = parser.parse_args().repeats
    case = make_case()
    ways: dict[str, Callable[..., dict[str, float]]] = {"all of ours": ours, "MONAI's HD95": monai_alone}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            found[name] = way(*case)
            seconds[name].append(time.perf_counter() - started)
    print("| | s | HD95 mm |\n|---|---|---|")
    for name in ways:
        print(f"| {name} | {min(seconds[name]):.2f} | {found[name]['hd95_mm']:.3f} |")
    fastest = [min(times) for times in seconds.values()]
    print(f"ours takes {fastest[0] / fastest[1]:.2f} times as long")


if __name__ == "__main__":
    main()
