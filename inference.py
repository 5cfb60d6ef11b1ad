"""CT in, vertebra mask on the same grid out.

From a shell: ``python inference.py --input SCAN … --output FOLDER --segmentation_model RUN --heatmap_model RUN``.
From Python::

    from inference import load_models, segment

    models = load_models(Path("trained_models/segmenter"), Path("trained_models/localiser"))
    mask = segment("scan.nii.gz", models).mask  # (I, J, K) uint8 on the scan's own grid
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prediction.options import Options, parse_arguments
from prediction.results.results_folder import ScanResults, check_names_in_bids, print_table, write_results
from utils.constants import SEGMENTATION_SPACING_MM
from utils.misc import command
from verse_utils.errors import UserError, one_line
from verse_utils.files.disk import require_writable
from verse_utils.files.writing import write_json

if TYPE_CHECKING:
    from prediction.whole_scans import Models, Segmentation
    from utils.files.find_scans import ScanSource
    from utils.files.scans import Scan

# Bytes of memory for each voxel of a scan: those of its mask and, where all of it is searched, of a layer of windows
# for each channel of the segmenter.
_MASK_BYTES, _LAYER_BYTES = 1, 3
# Bytes in the temporary folder for each voxel that is searched: HU and the number of its component; and the probability
# of each channel.
_SCRATCH_BYTES, _PROBABILITY_BYTES = 6, 4
# Scans of fewer voxels fit any machine that runs a network; no need to tell what memory they take.
_LARGE_SCAN_VOXELS = 3e8


def __getattr__(name: str) -> Any:
    """``load_models`` and ``segment``, loaded when they are used: torch takes a second, and --help needs none."""
    if name in ("load_models", "segment"):
        from prediction import whole_scans

        return getattr(whole_scans, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class Job:
    """What each worker needs: arguments of the command line by their names, paths resolved.

    Attributes:
        options: the arguments that concern the segmentation itself.
    """

    output: Path
    segmentation_model: tuple[Path, ...]
    heatmap_model: Path | None
    device: str
    precision: str
    evaluate: Path | None
    overwrite: bool
    workers: int
    no_preview: bool
    resample_series: bool
    dicom_seg: bool
    bids: bool
    as_dataset: Path | None
    options: Options


def process(source: ScanSource, job: Job) -> dict[str, Any]:
    """Segment a scan into files; returns its summary, or its name and the error that the user has to mend."""
    import torch

    from metrics.mask_scores import score_scan
    from metrics.reference_masks import find_reference_mask
    from prediction.whole_scans import segment
    from utils.files.dicom.segmentation import check_source
    from utils.files.scans import open_scan
    from utils.files.training_cases import check_labels

    base = _base(source)
    results = ScanResults(job.output, source.name, job.bids)
    if source.error:
        return {**base, "error": source.error}
    try:
        reference_path = job.evaluate and find_reference_mask(source.path, job.evaluate)
        if not job.overwrite and (kept := _kept(base, results, reference_path, job)):
            return _with_case(kept, source, results, job)
        results.require_names(source.path)
        models = load_models_once(job)
        if job.as_dataset is not None:
            check_labels(models.scheme.name, source.path)
        scan = open_scan(source, job.resample_series)
        if job.dicom_seg:
            check_source(scan.series, scan.path)
        _warn_of_memory(scan, source, job, models.segmenter.spec.out_channels)
        found = segment(scan, models, job.options)
        metrics = {"metrics": score_scan(found.mask, scan, scan.path, reference_path)} if reference_path else {}
        started = time.perf_counter()
        _write_volumes(found, scan, models, results, job)
        seconds = {**found.seconds, "write": round(time.perf_counter() - started, 2)}
        if not job.no_preview:
            started = time.perf_counter()
            _save_picture(source.name, found, results.picture)
            seconds["preview"] = round(time.perf_counter() - started, 2)
        summary = {**base, **_summary(scan, found, models, job), "seconds": seconds, "warnings": found.warnings}
        summary |= metrics
        write_json(results.summary, summary)
        return _with_case(summary, source, results, job)
    except UserError as error:
        return {**base, "error": str(error)}
    except (MemoryError, torch.OutOfMemoryError):
        return {**base, "error": f"{source.path}: memory was not enough; give a --heatmap_model, or fewer --workers"}
    except Exception as error:  # one scan must never stop the others
        reason = (str(error).splitlines() or [""])[0][:200]
        return {**base, "error": f"{source.path}: {type(error).__name__}: {reason}; leave it out"}


def _write_volumes(found: Segmentation, scan: Scan, models: Models, results: ScanResults, job: Job) -> None:
    """Write what was found, in all the forms that are asked for."""
    from prediction.results.named_centroids import write_names
    from utils.files.dicom.segmentation import write_segmentation

    scheme = models.scheme
    names = dict(zip(scheme.mask_values[1:], scheme.class_names, strict=True))
    results.clear()
    scan.save(found.mask, results.mask, names)
    if scan.tilt is not None:
        scan.save_on_slices(found.mask, results.mask_on_slices, names)
    if found.probabilities is not None:
        scan.save(found.probabilities, results.probabilities)
    if job.options.labels == "vertebrae":
        write_names(found.vertebrae, scan.with_right_angles(found.mask)[1], results.centroids)
    if job.dicom_seg and scan.series is not None:
        model = models.segmenter
        write_segmentation(found.mask, scan.series, names, model.name, model.sha256, results.segmentation)


def _kept(base: dict[str, Any], results: ScanResults, reference_path: Path | None, job: Job) -> dict[str, Any] | None:
    """The summary of a scan's results from before; None where there are none, or not all that is asked for.

    Raises:
        UserError: they are those of another scan, or can't be scored by the reference mask.
    """
    from metrics.mask_scores import score_scan
    from verse_utils.images import open_image, read_mask

    asked = {results.probabilities: job.options.probabilities, results.segmentation: job.dicom_seg}
    asked[results.centroids] = job.options.labels == "vertebrae"
    summary = results.read_summary(base["scan"], [path for path, is_asked in asked.items() if is_asked])
    if summary is None or summary.get("settings", {}).get("labels", Options.labels) != job.options.labels:
        return None
    if reference_path is not None:
        mask = read_mask(results.mask), open_image(results.mask)
        summary["metrics"] = score_scan(*mask, results.mask, reference_path)
    return {**summary, "kept": True}


def _with_case(summary: dict[str, Any], source: ScanSource, results: ScanResults, job: Job) -> dict[str, Any]:
    """The summary of a scan, which is written as a training case, too, if that is wanted."""
    from utils.files.training_cases import TrainingCase

    if job.as_dataset is None:
        return summary
    case = TrainingCase(job.as_dataset, source.name)
    told = case.write(source, job.resample_series, results.mask, summary.get("labels"), job.overwrite)
    return {**summary, "training_case": case.case_id, "warnings": list(dict.fromkeys([*summary["warnings"], *told]))}


def _base(source: ScanSource) -> dict[str, Any]:
    """What each summary begins with, that of a failure too."""
    return {"name": source.name, "scan": os.path.abspath(source.path)}


def _killed(source: ScanSource, reason: str) -> dict[str, Any]:
    """What ``process`` would have returned, had its process not been killed for want of memory."""
    return {**_base(source), "error": f"{source.path}: {reason}"}


@lru_cache(maxsize=1)
def load_models_once(job: Job) -> Models:
    """The models, loaded once in each process."""
    import torch

    from prediction.whole_scans import load_models

    if job.workers > 1:  # else each of them takes all cores
        torch.set_num_threads(max(1, torch.get_num_threads() // job.workers))
    return load_models(job.segmentation_model, job.heatmap_model, job.device, job.precision)


def _warn_of_memory(scan: Scan, source: ScanSource, job: Job, channels: int) -> None:
    if scan.voxel_count < _LARGE_SCAN_VOXELS:
        return
    memory_gb = 1 + (_MASK_BYTES + (0 if job.heatmap_model else channels * _LAYER_BYTES)) * scan.voxel_count / 1e9
    message = f"{source.path}: {scan.voxel_count:.1e} voxels, about {memory_gb:.0f} GB of memory"
    if not job.heatmap_model:
        searched = scan.voxel_count * abs(np.linalg.det(scan.affine[:3, :3])) / SEGMENTATION_SPACING_MM**3
        scratch_gb = (_SCRATCH_BYTES + channels * _PROBABILITY_BYTES) * searched / 1e9
        message += f" and up to {scratch_gb:.0f} GB in {tempfile.gettempdir()} to search all of it"
    print(message, file=sys.stderr, flush=True)


def _summary(scan: Scan, found: Segmentation, models: Models, job: Job) -> dict[str, Any]:
    """What was found and how, in JSON's types."""
    from utils.geometry.mask_facts import mask_facts

    return {
        "shape": list(scan.shape),
        "labels": models.scheme.name,
        "vertebrae": [asdict(vertebra) for vertebra in found.vertebrae],
        "searched_voxels": [[axis.start, axis.stop] for axis in found.region],
        **mask_facts(*scan.with_right_angles(found.mask)),
        "components": found.components,
        "settings": {**asdict(job.options), "device": job.device, "precision": job.precision},
        "models": models.described(),
    }


def _save_picture(name: str, found: Segmentation, path: Path) -> None:
    from prediction.results.preview import draw_mask, save_preview

    names = {vertebra.label: vertebra.name for vertebra in found.vertebrae}
    save_preview(draw_mask(found.working_hu, [found.spacing_mm] * 3, found.working_mask, name, names), path)


def _job(arguments: argparse.Namespace) -> Job:
    """The arguments, with models found and paths that hold in any working folder."""
    from prediction.checkpoints import find_checkpoint
    from prediction.pretrained import PRETRAINED, pretrained_checkpoint
    from utils.tasks import HEATMAP, SEGMENTATION, Task

    values = dict(vars(arguments))
    segmenters, localiser = arguments.segmentation_model, arguments.heatmap_model
    if segmenters is None:
        segmenters, localiser = [Path(PRETRAINED)], localiser or Path(PRETRAINED)

    def found(run: Path, task: Task) -> Path:
        is_pretrained = str(run) == PRETRAINED
        path = (
            pretrained_checkpoint(task, arguments.labels)
            if is_pretrained
            else find_checkpoint(run, arguments.runs, task)
        )
        return path.resolve()

    has_localiser = localiser is not None and not arguments.no_localiser
    values["heatmap_model"] = found(localiser, HEATMAP) if has_localiser else None
    values["segmentation_model"] = tuple(found(one, SEGMENTATION) for one in segmenters)
    for name in ("output", "evaluate", "as_dataset"):
        values[name] = values[name] and values[name].resolve()
    options = Options(**{option.name: values[option.name] for option in fields(Options)})
    return Job(**{part.name: values[part.name] for part in fields(Job) if part.name != "options"}, options=options)


def _check_models(job: Job, here: bool) -> None:
    """Raise UserError for a wrong model before any work, and tell what is worth knowing of the models.

    Args:
        job: that names them.
        here: whether this process does the work; then they are loaded, once. Others load them on their own machines.
    """
    from prediction.device import find_device
    from prediction.pretrained import WHAT_IT_IS, is_pretrained
    from prediction.whole_scans import check_checkpoints

    if any(is_pretrained(path) for path in (*job.segmentation_model, job.heatmap_model) if path):
        print(WHAT_IT_IS, file=sys.stderr, flush=True)
    if here:
        models = load_models_once(job)
        models.check_labels(job.options.labels)
        _tell_of_ensemble([model.weight_bytes for model in models.segmenters], job)
        return
    _tell_of_ensemble(check_checkpoints(job.segmentation_model, job.heatmap_model, job.options.labels), job)
    if job.workers > 1:
        find_device(job.device, job.precision)


def _tell_of_ensemble(weight_bytes: Sequence[int], job: Job) -> None:
    """Say what several segmenters cost, before any work."""
    count, sizes = len(weight_bytes), [size / 2**20 for size in weight_bytes]
    if count == 1:
        return
    message = f"{count} segmenters, one after the other: {count} times the time of one; weights of {sum(sizes):.0f} MiB"
    message += f" in the memory of each of {job.workers} processes" if job.workers > 1 else " in memory"
    print(f"{message}, on a GPU those of one at a time, {max(sizes):.0f} MiB at most", file=sys.stderr, flush=True)


@command
def main() -> None:
    """Segment every scan, go on where one fails, and end with a table; exit code 1 where one failed."""
    arguments = parse_arguments()
    from utils.files.find_scans import find_scans
    from utils.files.training_cases import with_names_of_cases
    from utils.pool import run_all

    sources = find_scans(arguments.input, arguments.series)
    if all(source.error for source in sources):
        for source in sources[:-1]:
            print(f"error: {one_line(source.error)}", file=sys.stderr)
        raise UserError(sources[-1].error)
    if arguments.scheduler:  # workers run in other folders
        sources = [source.resolved() for source in sources]
        arguments.workers = 1  # of each of its processes
    arguments.workers = min(arguments.workers, len(sources))
    job = _job(arguments)
    _check_models(job, here=arguments.scheduler is None and job.workers == 1)
    if job.bids:
        check_names_in_bids([source.name for source in sources])
    require_writable(job.output, "--output", "folder")
    if job.as_dataset is not None:
        sources = with_names_of_cases(sources, job.as_dataset)
    rows = []
    for row in run_all(partial(process, job=job), sources, job.workers, arguments.scheduler, _killed):
        rows.append(row)
        if "error" in row:
            print(f"error: {one_line(row['error'])}", file=sys.stderr, flush=True)
    order = [source.name for source in sources]
    rows.sort(key=lambda row: order.index(row["name"]))
    if arguments.json:
        print(json.dumps(rows, indent=2, allow_nan=False))
    else:
        print_table(rows)
    write_results(rows, job.output / "results.csv")
    if any("error" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    # Imported by its name: workers on other machines can't import anything of __main__.
    from inference import main as main_by_name

    main_by_name()
