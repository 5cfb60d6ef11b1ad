"""How scans are segmented: the options, the command line, and nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from utils.files.run_folder import RUNS_FOLDER
from utils.misc import OneLineParser

# Which connected components of the mask are kept: those of 5 cm³ and more that form one spinal column, all of 5 cm³ and
# more, the largest alone, or all.
POSTPROCESSING = ("column", "blobs", "largest", "none")

# What the mask tells apart: the segmenter's own classes, or each vertebra by the names of the localiser.
LABELS = ("segmenter", "vertebrae")


@dataclass(frozen=True)
class Options:
    """How a scan is segmented; the fields are arguments of ``inference.py``.

    Attributes:
        margin_mm: kept around the spine that the localiser found. Its view is coarse, and it may miss the ends of the
            spine and of processes.
        overlap: smallest share of a window's side that its neighbour covers, 0 to below 1.
        batch_size: windows in a forward pass.
        tta: average the prediction with that of the mirrored image (test-time augmentation).
        postprocess: one of ``POSTPROCESSING``.
        probabilities: return the probability of foreground, too.
        labels: one of ``LABELS``.
    """

    margin_mm: float = 10.0
    overlap: float = 0.5
    batch_size: int = 1
    tta: bool = False
    postprocess: str = "column"
    probabilities: bool = False
    labels: str = "segmenter"


def parse_arguments() -> argparse.Namespace:
    """Read the command line, and check what each argument says by itself."""
    parser = _build_parser()
    arguments = parser.parse_args()
    if not 0 <= arguments.margin_mm < math.inf or not 0 <= arguments.overlap < 1:
        parser.error("--margin_mm must be a distance from 0 on, --overlap lie between 0 and below 1")
    if min(arguments.batch_size, arguments.workers) < 1:
        parser.error("--batch_size and --workers must be positive")
    for name in ("output", "as_dataset"):
        if (folder := getattr(arguments, name)) is not None and folder.is_file():
            parser.error(f"--{name} {folder}: is a file; give a folder")
    if arguments.evaluate is not None and not arguments.evaluate.is_dir():
        parser.error(f"--evaluate {arguments.evaluate}: no such folder of masks")
    return arguments


def _build_parser() -> OneLineParser:
    """The command line."""
    parser = OneLineParser(
        description="Segment the vertebrae of CT scans; the masks lie on the scans' own grids.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    input_help = "images, DICOM folders, folders or ZIPs of them, globs"
    add("--input", nargs="+", required=True, metavar="SCAN", help=input_help)
    add("--series", metavar="NAME", help="UID or description of the DICOM series to take, where there are several")
    add("--resample_series", action="store_true", help="put DICOM slices of uneven spacing on an even grid")
    add("--output", type=Path, default="results", help="folder of the results")
    segmenter_help = "run's name, its folder, or a checkpoint file; of several, the probabilities are averaged; "
    segmenter_help += "if not given, the pretrained one, with the pretrained localiser"
    add("--segmentation_model", type=Path, nargs="+", metavar="RUN", help=segmenter_help)
    localiser_help = "the same of the localiser; without one, the whole scan is searched for a --segmentation_model"
    add("--heatmap_model", type=Path, help=localiser_help)
    add("--no_localiser", action="store_true", help="search the whole scan, even with a --heatmap_model")
    add("--runs", type=Path, default=RUNS_FOLDER, help="folder in which names of runs are looked up")
    add("--margin_mm", type=float, default=Options.margin_mm, help="around the spine that the localiser found")
    add("--overlap", type=float, default=Options.overlap, help="smallest share of a window that its neighbour covers")
    add("--batch_size", type=int, default=Options.batch_size, help="windows in a forward pass")
    add("--tta", action="store_true", help="average with the prediction of the mirrored scan: twice the time")
    keep = "connected components to keep: of one spinal column, of 5 cm³ and more (blobs), the largest, or all (none)"
    add("--postprocess", choices=POSTPROCESSING, default=Options.postprocess, help=keep)
    labels_help = "what the mask tells apart: the segmenter's classes, or each of the vertebrae, named by the localiser"
    add("--labels", choices=LABELS, default=Options.labels, help=labels_help)
    add("--probabilities", action="store_true", help="save the probability of foreground, too")
    seg_help = "also write each mask as DICOM Segmentation, which refers to the slices of its series"
    add("--dicom_seg", action="store_true", help=seg_help)
    bids_help = "name mask, centres and picture as VerSe does, in the manner of BIDS: <subject>_seg-vert_msk.nii.gz"
    add("--bids", action="store_true", help=bids_help)
    add("--as_dataset", type=Path, metavar="FOLDER", help="also write each scan and its mask as a training case")
    add("--no_preview", action="store_true", help="draw no pictures")
    add("--evaluate", type=Path, metavar="MASKS", help="folder of reference masks to score the results by")
    add("--overwrite", action="store_true", help="segment scans again whose results exist")
    add("--json", action="store_true", help="print the summaries as JSON instead of the table")
    add("--workers", type=int, default=1, help="scans at a time, each in a process")
    add("--scheduler", metavar="ADDRESS", help="running Dask scheduler that gets the scans; workers see the same files")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--precision", default="auto", choices=("fp32", "bf16", "fp16", "auto"), help="auto: the fastest here")
    return parser
