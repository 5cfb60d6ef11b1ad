"""CT in, vertebra mask on the same grid out.

From a shell: ``python inference.py --input SCAN … --output FOLDER --segmentation_model RUN --heatmap_model RUN``.
From Python::

    models = load_models(Path("trained_models/segmenter"), Path("trained_models/localiser"))
    mask = segment("scan.nii.gz", models).mask  # (I, J, K) uint8 on the scan's own grid
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.whole_scans import MARGIN_MM, POSTPROCESSING, Models, Options, Segmentation, load_models, segment
from utils.constants import SEGMENTATION_SPACING_MM
from utils.misc import OneLineParser, run_command, write_json
from verse_utils.errors import UserError

if TYPE_CHECKING:
    from utils.scans import Scan, ScanSource

# Bytes of memory for each voxel of a scan: those of its mask and, where all of it is searched, of a layer of windows.
_MASK_BYTES, _WHOLE_BYTES = 1, 4
# Bytes in the temporary folder for each voxel that is searched: HU, a probability, the number of its blob.
_SCRATCH_BYTES = 10
# Scans of fewer voxels are small for any machine that runs a network.
_WORTH_A_WORD_VOXELS = 3e8


@dataclass(frozen=True)
class Job:
    """The command line's arguments, as each worker gets them."""

    output: Path
    segmentation_model: Path
    heatmap_model: Path | None
    device: str
    precision: str
    options: Options
    true_masks: Path | None
    overwrite: bool
    workers: int


def process(source: ScanSource, job: Job) -> dict[str, Any]:
    """Segment a scan into files; returns its summary, or its name and the error that the user has to mend."""
    import torch

    from metrics.true_masks import find_true_mask, score_scan
    from utils.scans import open_scan

    base = {"name": source.name, "scan": str(source.path)}
    mask_path, summary_path = (job.output / f"{source.name}{end}" for end in ("_vertebrae.nii.gz", "_summary.json"))
    if summary_path.exists() and mask_path.exists() and not job.overwrite:
        return {**json.loads(summary_path.read_text(encoding="utf-8")), "kept": True}
    try:
        models = _models(job)
        scan = open_scan(source)
        true_mask = job.true_masks and find_true_mask(source, job.true_masks)
        _warn_of_memory(scan, source, job)
        found = segment(scan, models, job.options)
        metrics = {"metrics": score_scan(found.mask, scan, true_mask)} if true_mask else {}
        with found.timed("write"):
            scan.save(found.mask, mask_path)
            if found.probabilities is not None:
                scan.save(found.probabilities, job.output / f"{source.name}_probabilities.nii.gz")
            _save_picture(source.name, found, job.output / f"{source.name}.png")
        summary = {**base, **_summary(scan, found, models, job), **metrics}
        write_json(summary_path, summary)
        return summary
    except UserError as error:
        return {**base, "error": str(error)}
    except (MemoryError, torch.OutOfMemoryError):
        return {**base, "error": f"{source.path}: memory was not enough; give a --heatmap_model, or fewer --workers"}


@lru_cache(maxsize=1)
def _models(job: Job) -> Models:
    """The models, loaded once in each process."""
    import torch

    if job.workers > 1:  # else each of them takes all cores
        torch.set_num_threads(max(1, torch.get_num_threads() // job.workers))
    return load_models(job.segmentation_model, job.heatmap_model, job.device, job.precision)


def _warn_of_memory(scan: Scan, source: ScanSource, job: Job) -> None:
    if scan.voxel_count < _WORTH_A_WORD_VOXELS:
        return
    memory_gb = 1 + (_MASK_BYTES if job.heatmap_model else _WHOLE_BYTES) * scan.voxel_count / 1e9
    told = f"{source.path}: {scan.voxel_count:.1e} voxels, about {memory_gb:.0f} GB of memory"
    if not job.heatmap_model:
        searched = scan.voxel_count * abs(np.linalg.det(scan.affine[:3, :3])) / SEGMENTATION_SPACING_MM**3
        told += f" and up to {_SCRATCH_BYTES * searched / 1e9:.0f} GB in {tempfile.gettempdir()} to search all of it"
    print(told, file=sys.stderr, flush=True)


def _summary(scan: Scan, found: Segmentation, models: Models, job: Job) -> dict[str, Any]:
    """What was found and how, in JSON's types."""
    from utils.mask_facts import mask_facts

    return {
        "shape": list(scan.shape),
        "searched_voxels": None if found.region is None else [[axis.start, axis.stop] for axis in found.region],
        **mask_facts(found.mask, scan.affine),
        "settings": {**asdict(job.options), "device": job.device, "precision": job.precision},
        "models": {
            model.task: {"name": model.name, "network": str(model.spec), "sha256": model.sha256}
            for model in models
            if model is not None
        },
        "seconds": found.seconds,
        "warnings": found.warnings,
    }


def _save_picture(name: str, found: Segmentation, path: Path) -> None:
    from utils.visualize import draw_mask, save_figure

    if found.working_hu is None or found.working_blobs is None:
        return
    save_figure(draw_mask(found.working_hu, [found.spacing_mm] * 3, found.working_blobs, name), path)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print a line for each scan: what was found, or what went wrong."""
    width = max(len(row["name"]) for row in rows)
    print(f"{'scan':{width}} {'ml':>8} {'height mm':>10} {'Dice':>6} {'HD95 mm':>8} {'s':>6}")
    for row in rows:
        if "error" in row:
            print(f"{row['name']:{width}} failed")
            continue
        height = f"{row['extent_mm']['Z']:.0f}" if row["extent_mm"] else "-"
        metrics = row.get("metrics", {})
        dice, hd95 = (f"{metrics[key]:.3f}" if key in metrics else "-" for key in ("dice", "hd95_mm"))
        numbers = f"{row['volume_ml']:8.1f} {height:>10} {dice:>6} {hd95:>8} {sum(row['seconds'].values()):6.1f}"
        remarks = "; ".join([*(["kept from before"] if row.get("kept") else []), *row["warnings"]])
        print(f"{row['name']:{width}} {numbers}  {remarks}".rstrip())


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(
        description="Segment the vertebrae of CT scans; the masks lie on the scans' own grids.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="SCAN", help="NIfTI files, DICOM folders, folders of them, globs")
    add("--output", type=Path, required=True, help="folder of the results")
    add("--segmentation_model", type=Path, required=True, help="run's name, its folder, or a checkpoint file")
    add("--heatmap_model", type=Path, help="the same of the localiser; without one the whole scan is searched")
    add("--no_localiser", action="store_true", help="search the whole scan, whatever --heatmap_model says")
    add("--runs", type=Path, default=Path("trained_models"), help="folder in which runs' names are looked up")
    add("--margin_mm", type=float, default=MARGIN_MM, help="around the spine that the localiser found")
    add("--overlap", type=float, default=0.5, help="least share of a window that its neighbour covers")
    add("--batch_size", type=int, default=1, help="windows in a forward pass")
    add("--tta", action="store_true", help="average with the answer to the mirrored scan: twice the time")
    add("--postprocess", choices=POSTPROCESSING, default="blobs", help="drop blobs under 5 cm³, or all but the largest")
    add("--probabilities", action="store_true", help="save the probability of vertebra too")
    add("--evaluate", type=Path, metavar="MASKS", help="folder of true masks to score the results by")
    add("--overwrite", action="store_true", help="do scans again whose results are there")
    add("--json", action="store_true", help="print the summaries as JSON in place of the table")
    add("--workers", type=int, default=1, help="scans at a time, each in a process")
    add("--scheduler", metavar="ADDRESS", help="running Dask scheduler that gets the scans; workers see the same files")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--precision", default="auto", choices=("fp32", "bf16", "fp16", "auto"), help="auto: the fastest here")
    arguments = parser.parse_args()
    if arguments.margin_mm < 0 or not 0 <= arguments.overlap < 1:
        parser.error("--margin_mm must not be negative, --overlap lie between 0 and below 1")
    if min(arguments.batch_size, arguments.workers) < 1:
        parser.error("--batch_size and --workers must be positive")
    if arguments.output.is_file():
        parser.error(f"--output {arguments.output}: is a file; give a folder")
    if arguments.evaluate is not None and not arguments.evaluate.is_dir():
        parser.error(f"--evaluate {arguments.evaluate}: no such folder of masks")
    return arguments


def main() -> None:
    """Segment every scan, go on where one fails, and end with a table; exit code 1 where one failed."""
    arguments = parse_arguments()
    from training.checkpoints import find_checkpoint
    from training.compute import find_compute
    from training.trained_model import load_checkpoint_of
    from utils.pool import run_all
    from utils.scans import find_scans

    sources = find_scans(arguments.input)
    if arguments.scheduler:  # workers run in other folders
        sources = [replace(source, path=source.path.resolve()) for source in sources]
    runs = arguments.runs.resolve()
    heatmap_model = None if arguments.no_localiser else arguments.heatmap_model
    names = [option.name for option in fields(Options)]
    job = Job(
        output=arguments.output.resolve(),
        segmentation_model=find_checkpoint(arguments.segmentation_model, runs).resolve(),
        heatmap_model=heatmap_model and find_checkpoint(heatmap_model, runs).resolve(),
        device=arguments.device,
        precision=arguments.precision,
        options=Options(**{name: getattr(arguments, name) for name in names}),
        true_masks=arguments.evaluate and arguments.evaluate.resolve(),
        overwrite=arguments.overwrite,
        workers=arguments.workers,
    )
    load_checkpoint_of("segmentation", job.segmentation_model)  # a wrong one is told before any work
    if job.heatmap_model is not None:
        load_checkpoint_of("heatmap", job.heatmap_model)
    if arguments.scheduler is None:
        find_compute(job.device, job.precision)
    rows = []
    for row in run_all(partial(process, job=job), sources, arguments.workers, arguments.scheduler):
        rows.append(row)
        if "error" in row:
            print(f"error: {row['error']}", file=sys.stderr, flush=True)
    order = [source.name for source in sources]
    rows.sort(key=lambda row: order.index(row["name"]))
    if arguments.json:
        print(json.dumps(rows, indent=2, allow_nan=False))
    else:
        print_table(rows)
    if any("error" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    # Imported by its name: workers on other machines can't import anything of __main__.
    from inference import main as main_by_name

    run_command(main_by_name)
