"""How fast and in how much memory a large scan is segmented, beside TorchIO's and MONAI's windows over all of it.

    python benchmarks/whole_scan.py --segmentation_model RUN --heatmap_model RUN

The scan is a phantom's body from head to pelvis, 512×512×600 voxels of 0.8×0.8×1 mm, without gzip. All ways use one
network, window and overlap; the same code reads the scan, drops connected components and brings the mask to the scan's
grid. They differ in which windows the network sees, in how the windows are stitched, and in the precision: fp32, and
what ``--precision auto`` takes on this CPU. Dice is that in the box around the spine that the localiser found. Peak
memory is that of the whole command, for the scan and for its lower 300 slices, in which the spine's box is as wide.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import torch
import torchio as tio
from monai.inferers import sliding_window_inference
from torch import Tensor

from metrics.mask_metrics import MaskPair, dice
from prediction.device import fastest_precision
from prediction.localisation import locate_spine
from prediction.options import Options
from prediction.postprocessing import without_dropped_components
from prediction.trained_model import TrainedModel
from prediction.whole_scans import Models, load_models, segment
from utils.constants import HU_AIR, HU_PER_UNIT, OVERHANG_VOX
from utils.files.find_scans import ScanSource
from utils.files.scans import Scan, open_scan
from utils.geometry.boxes import mask_box
from utils.geometry.working_grid import WorkingGrid
from utils.intensity import scale_hu
from utils.misc import OneLineParser, command
from verse_utils.errors import UserError
from verse_utils.phantom.anatomy import make_anatomy
from verse_utils.phantom.render import render

SHAPE, SPACING_MM = (512, 512, 600), (0.8, 0.8, 1.0)
OVERLAP = 0.5
NOISE_HU = 20.0


def write_body(folder: Path) -> list[Path]:
    """A body as NIfTI, and its lower half."""
    anatomy = make_anatomy(np.random.default_rng(0))
    origins = np.array([pose.origin for pose in anatomy.body_pose.values()])
    centre_mm = (origins.min(axis=0) + origins.max(axis=0)) / 2 + [0, 30, 0]
    affine = nib.affines.from_matvec(np.diag(SPACING_MM), centre_mm - np.multiply(SPACING_MM, np.array(SHAPE) - 1) / 2)
    image_hu, _ = render(anatomy, affine, SHAPE, NOISE_HU)
    paths = [folder / "body_600.nii", folder / "body_300.nii"]
    whole = nib.Nifti1Image(image_hu, affine)
    nib.save(whole, paths[0])
    nib.save(whole.slicer[:, :, :300], paths[1])
    return paths


def run_whole_command(scan: Path, arguments: argparse.Namespace, output: Path) -> tuple[float, float]:
    """Seconds and peak memory in GB of ``inference.py`` in a process of its own."""
    words = [sys.executable, str(Path(__file__).parents[1] / "inference.py"), "--input", str(scan), "--overwrite"]
    words += ["--segmentation_model", str(arguments.segmentation_model), "--output", str(output)]
    words += ["--heatmap_model", str(arguments.heatmap_model)]
    started = time.perf_counter()
    process = subprocess.Popen(words)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(words)} failed")
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9


def by_torchio(model: TrainedModel, image_CXYZ: Tensor) -> Tensor:
    """Logits (K, X, Y, Z) by GridSampler and GridAggregator."""
    window = model.spec.input_shape
    image_CXYZ = _with_air(image_CXYZ)
    subject = tio.Subject(image=tio.ScalarImage(tensor=image_CXYZ))
    sampler = tio.inference.GridSampler(subject, window, [int(OVERLAP * size) for size in window])
    aggregator = tio.inference.GridAggregator(sampler, overlap_mode="hann")
    for batch in tio.SubjectsLoader(sampler, batch_size=1):
        with model.device.autocast():
            logits = model.network(batch["image"][tio.DATA]).float()
        aggregator.add_batch(logits, batch[tio.LOCATION])
    return _without_air(aggregator.get_output_tensor())


def by_monai(model: TrainedModel, image_CXYZ: Tensor) -> Tensor:
    """Logits (K, X, Y, Z) by sliding_window_inference."""
    window = model.spec.input_shape
    image_BCXYZ = _with_air(image_CXYZ)[None]
    with model.device.autocast():
        logits = sliding_window_inference(image_BCXYZ, window, 1, model.network, overlap=OVERLAP, mode="gaussian")
    return _without_air(logits[0].float())


def _with_air(image_CXYZ: Tensor) -> Tensor:
    """Air above and below, as this project's windows see it."""
    return torch.nn.functional.pad(image_CXYZ, (OVERHANG_VOX[2], OVERHANG_VOX[2]), value=HU_AIR / HU_PER_UNIT)


def _without_air(logits_KXYZ: Tensor) -> Tensor:
    return logits_KXYZ[..., OVERHANG_VOX[2] : -OVERHANG_VOX[2]]


@torch.inference_mode()
def segment_all(
    scan: Scan, model: TrainedModel, logits_of: Callable[[TrainedModel, Tensor], Tensor]
) -> tuple[np.ndarray, float]:
    """Mask of a whole scan on its grid, and the seconds that the windows alone took."""
    grid = WorkingGrid.isotropic(scan.shape, scan.affine, model.spacing_mm)
    image_hu = grid.forward_slabs(scan.slabs(), HU_AIR)
    started = time.perf_counter()
    probabilities_KXYZ = torch.sigmoid(logits_of(model, scale_hu(torch.from_numpy(image_hu)[None])))
    windows_seconds = time.perf_counter() - started
    probabilities_KXYZ = without_dropped_components(probabilities_KXYZ, grid.spacing_mm.tolist(), Options.postprocess)
    mask = np.zeros(scan.shape, np.uint8)
    for first, slab in grid.undo_slabs(probabilities_KXYZ[0].numpy()):
        mask[..., first : first + slab.shape[2]] = slab > 0.5
    return mask, windows_seconds


@command
def main() -> None:
    """Print both tables."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segmentation_model", type=Path, required=True, help="folder of a binary segmenter's run")
    parser.add_argument("--heatmap_model", type=Path, required=True, help="folder of a localiser's run")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        # In a process of its own: what a process holds when it starts another counts as that one's peak memory.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            paths = process.submit(write_body, Path(folder)).result()
        print("| inference.py | s | peak memory, GB |\n|---|---|---|")
        for path in paths:
            seconds, peak = run_whole_command(path, arguments, Path(folder) / "results")
            print(f"| {path.name} | {seconds:.0f} | {peak:.2f} |", flush=True)
        compare(open_scan(ScanSource(paths[0], "body")), arguments)


def spine_box(scan: Scan, models: Models) -> tuple[slice, slice, slice]:
    """The stored voxels around the spine and its margin, as the localiser found it."""
    assert models.localiser is not None
    spine = locate_spine(scan, models.localiser, Options.margin_mm)
    box = mask_box(spine.mask)
    if box is None:
        raise UserError("--heatmap_model: finds no spine in the phantom; train it longer")
    return spine.view.source_region(box, margin_mm=0)


def compare(scan: Scan, arguments: argparse.Namespace) -> None:
    """Print a row for each way of segmenting a scan, in each precision."""
    print("\n| way | precision | whole, s | × | localiser and windows, s | × | Dice with the first |")
    print("|---|---|---|---|---|---|---|")
    first: np.ndarray | None = None
    whole_unit = windows_unit = 0.0
    for precision in dict.fromkeys([fastest_precision(torch.device("cpu")), "fp32"]):
        models = load_models(arguments.segmentation_model, arguments.heatmap_model, device="cpu", precision=precision)
        for model in (models.localiser, models.segmenter):
            assert model is not None
            model.predict_window(torch.zeros(1, *model.spec.input_shape))  # none is to pay for warming up
        ways: dict[str, Callable[[], tuple[np.ndarray, float]]] = {
            "localiser, then segmenter": partial(segment_by, models, scan),
            "segmenter everywhere": partial(segment_by, Models(models.segmenters), scan),
            "TorchIO everywhere": partial(segment_all, scan, models.segmenter, by_torchio),
            "MONAI everywhere": partial(segment_all, scan, models.segmenter, by_monai),
        }
        for name, way in ways.items():
            started = time.perf_counter()
            mask, windows = way()
            whole = time.perf_counter() - started
            if first is None:
                first, whole_unit, windows_unit, box = mask, whole, windows, spine_box(scan, models)
            agreement = dice(MaskPair(mask[box], first[box], SPACING_MM))
            times = f"{whole:.1f} | {whole / whole_unit:.1f} | {windows:.1f} | {windows / windows_unit:.1f}"
            print(f"| {name} | {precision} | {times} | {agreement:.4f} |", flush=True)


def segment_by(models: Models, scan: Scan) -> tuple[np.ndarray, float]:
    """Mask of a whole scan by ``segment``, and the seconds that localiser and windows took."""
    found = segment(scan, models, Options(overlap=OVERLAP))
    return found.mask, found.seconds.get("localise", 0.0) + found.seconds["segment"]


if __name__ == "__main__":
    main()
