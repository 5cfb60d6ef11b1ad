"""Folders of CT scans and masks to compressed HDF5: ``python preprocessing.py --data_path ROOT --task both``."""

from __future__ import annotations

import argparse
import math
import platform
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from utils.constants import HU_AIR
from utils.misc import command
from utils.pool import run_all
from utils.preprocessing_settings import (
    OUTPUT_FOLDER,
    IsotropicSettings,
    PreprocessingSettings,
    ViewSettings,
    parse_arguments,
)
from utils.resources import choose_workers
from verse_utils.cases import Case, Chosen
from verse_utils.catalogue import is_verse
from verse_utils.editions import Edition, as_editions, describe_counts
from verse_utils.errors import FileError, UserError

if TYPE_CHECKING:
    import numpy as np

    from utils.geometry.working_grid import WorkingGrid
    from verse_utils.check.findings import CaseReport
    from verse_utils.check.selection import Selection
    from verse_utils.images import OnGrid

# Functions import h5py, scipy, nibabel and matplotlib where they need them, so that --help is quick.

# What a worker takes besides its case: Python and the libraries.
_WORKER_BYTES = 200 * 2**20
# A voxel's image and label on disk, where much of the scan is air; others take up to twice as much.
_LEAST_PACKED_BYTES = 0.6


def preprocess(
    roots: Path | Sequence[Path],
    edition: Edition,
    settings: PreprocessingSettings,
    output: Path = OUTPUT_FOLDER,
    workers: int | None = None,
    exclude: Iterable[str] = (),
    pictures: bool = True,
    scheduler: str | None = None,
    memory_gb: float | None = None,
    needed_splits: Sequence[str] = ("training", "validation"),
) -> Path:
    """Write every case of one or several data sets that can be used to an H5, as ``preprocess_cases`` does.

    Args:
        roots: what holds the data, in any of the layouts of ``verse_utils.catalogue``.
        edition: of VerSe: 19, 20 or both.
        settings: what the cases are resampled to, for which task.
        output, workers, pictures, scheduler, memory_gb: as of ``preprocess_cases``.
        exclude: globs of ids or patients to leave out.
        needed_splits: as of ``select_cases``.

    Raises:
        UserError: as of ``select_cases`` and ``preprocess_cases``.
    """
    from verse_utils.check.selection import select_cases

    roots = [roots] if isinstance(roots, Path) else roots
    selection = select_cases(roots, edition, Chosen(exclude=exclude, goes_on=True), needed_splits=needed_splits)
    return preprocess_cases(selection, edition, settings, output, workers, pictures, scheduler, memory_gb=memory_gb)


def preprocess_cases(
    selection: Selection,
    edition: Edition,
    settings: PreprocessingSettings,
    output: Path = OUTPUT_FOLDER,
    workers: int | None = None,
    pictures: bool = True,
    scheduler: str | None = None,
    strict: bool = False,
    memory_gb: float | None = None,
) -> Path:
    """Write cases to an H5; those that were written before are kept, those that can't be used are left out.

    Args:
        selection: of ``select_cases``.
        edition: of VerSe: 19, 20 or both.
        settings: what the cases are resampled to, for which task.
        output: folder of the H5 and its ``.pictures``; of its ``.cases`` too, until all are done.
        workers: number of processes; by default one for each core, if the largest cases together fit the memory.
        pictures: save a picture of each case.
        scheduler: address of a Dask scheduler, see ``utils.pool.run_all``; its workers must see the same paths.
        strict: raise an error if a case can't be used.
        memory_gb: GiB that all processes together may take; by default what is free, unless ``workers`` is given.

    Returns:
        Path of the H5, absolute with a scheduler. ``H5Cases(path).notes`` tells which cases were left out, and why.

    Raises:
        UserError: no case can be used, the H5 is that of other data of the same name, the workers fail, the disk is
            full, or another run writes this H5. Then no H5 is written; finished cases are kept for the next run.
    """
    from utils.files.h5_packing import check_data_path, only_writer, pack_cases

    cases, output = selection.cases, output.resolve() if scheduler else output  # its workers run in other folders
    has_verse = any(is_verse(case.data_set) for case in cases)
    h5_path = output / settings.file_name(selection.roots, edition if has_verse else None)
    data_path = [str(root.resolve()) for root in selection.roots]
    if scheduler is None:
        workers = choose_workers(_memory_of_cases(selection, settings), workers, memory_gb)
    with only_writer(h5_path):
        check_data_path(h5_path, data_path)
        _require_room(selection, settings, h5_path)
        work = partial(preprocess_case, settings=settings, h5_path=h5_path, pictures=pictures)
        results = run_all(work, cases, workers or 1, scheduler)
        found = list(tqdm(results, f"{settings.task} H5", len(cases), unit="case"))
        names, notes = _judge(selection, found, strict)
        if scheduler is not None:
            _check_written(h5_path, names)
        pack_cases(h5_path, settings.task, settings.as_dict(), names, {"data_path": data_path, **notes})
    return h5_path


def _judge(
    selection: Selection, found: Sequence[CaseReport], strict: bool
) -> tuple[list[tuple[str, str]], dict[str, list[str]]]:
    """The (split, id) of each case that can be used, and lines for the H5 on those left out and what is worth a look.

    Args:
        selection: with what the headers of the cases tell.
        found: what their voxels tell, in any order.
        strict: raise UserError if a case is left out, not only if all are.
    """
    from verse_utils.check.cases import find_duplicates
    from verse_utils.check.findings import lines_of

    by_name = {(report.split, report.case_id): report for report in found}
    reports = [header.joined(by_name[header.split, header.case_id]) for header in selection.reports]
    find_duplicates(reports)
    left_out = lines_of([*selection.left_out, *reports], faults=True)
    usable = [(report.split, report.case_id) for report in reports if not report.faults]
    if left_out and (strict or not usable):
        raise UserError("; ".join(left_out))
    return usable, {"left_out": left_out, "remarks": lines_of(reports, faults=False)}


def _memory_of_cases(selection: Selection, settings: PreprocessingSettings) -> dict[str, int]:
    """``memory_bytes`` of each case, by its id."""
    cases = zip(selection.cases, selection.images, strict=True)
    return {case.case_id: memory_bytes(image, settings) for case, image in cases}


def memory_bytes(image: OnGrid, settings: PreprocessingSettings) -> int:
    """Estimate the most memory that a worker takes for a CT, itself included."""
    from verse_utils.check.voxels import SLAB_SLICES

    i, j, _ = image.shape
    voxels = _voxels(image, settings)
    # The image, the label, and what the C library keeps of freed memory. Slabs in float64: read and turned.
    return _WORKER_BYTES + voxels * (2 + 1 + 1) + SLAB_SLICES * i * j * 8 * 8


def _voxels(image: OnGrid, settings: PreprocessingSettings) -> int:
    """Voxels of a CT in the H5."""
    i, j, k = image.shape
    return math.prod(settings.grid((i, j, k), image.affine).shape)


def _require_room(selection: Selection, settings: PreprocessingSettings, h5_path: Path) -> None:
    """Raise UserError if the disk surely has too little room for new cases, and then for one file of all."""
    from utils.files.h5_cases import case_file
    from utils.files.h5_packing import held_cases
    from verse_utils.files.disk import require_free, used_bytes

    held = held_cases(h5_path)
    names = [(case.split, case.case_id) for case in selection.cases]
    images = zip(names, selection.images, strict=True)
    new = [image for name, image in images if name not in held and not case_file(h5_path, *name).exists()]
    if new:
        packed = _LEAST_PACKED_BYTES * sum(_voxels(image, settings) for image in new)
        kept = used_bytes(h5_path) + used_bytes(h5_path.with_suffix(".cases"))
        remedy = "make room, or choose another --output"
        require_free(h5_path, 2 * packed + kept, f"writing {len(new)} cases, and one file of all,", remedy)


def _check_written(h5_path: Path, names: Iterable[tuple[str, str]]) -> None:
    """Raise UserError if workers wrote to folders of their own machines."""
    from utils.files.h5_cases import case_file
    from utils.files.h5_packing import held_cases

    held = held_cases(h5_path)
    for name in names:
        path = case_file(h5_path, *name)
        if not path.exists() and name not in held:
            raise UserError(f"{path}: written by a worker but not there; --output must be a folder that all share")


def preprocess_case(case: Case, settings: PreprocessingSettings, h5_path: Path, pictures: bool) -> CaseReport:
    """Preprocess one case unless it was written before, or can't be used; returns what was found in its voxels."""
    from utils.files.h5_cases import is_written, read_notes
    from utils.files.sources import describe_files
    from verse_utils.check.findings import CaseReport

    report = CaseReport(case.case_id, case.split)
    notes = read_notes(h5_path, case.split, case.case_id)
    with report.catching():
        try:
            files = describe_files(case.files, known=notes.get("files", {}))
        except FileNotFoundError as error:  # it was there when its header was read
            reason = f"no longer there, or not on {platform.node()}: workers of --scheduler must see the same files"
            raise FileError(f"{error.filename}: {reason}") from None
        source = _source(case, files)
        if is_written(h5_path, case.split, case.case_id, settings.as_dict(), source):
            with suppress(KeyError, TypeError):  # which whoever edited the file may have taken
                return CaseReport.of_dict(notes["report"])
        _write(case, settings, h5_path, source, report, files, pictures)
    return report


def _source(case: Case, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a case is made of: its files' content; and what only other data sets than VerSe tell of it."""
    source: dict[str, Any] = {name: file["sha256"] for name, file in files.items()}
    if not is_verse(case.data_set):
        labels = {str(number): label for number, label in case.numbering.label_of.items()}
        source["case"] = {"patient": case.patient, "data_set": case.data_set, "licence": case.licence, "labels": labels}
    return source


def _write(
    case: Case,
    settings: PreprocessingSettings,
    h5_path: Path,
    source: dict[str, Any],
    report: CaseReport,
    files: dict[str, dict[str, Any]],
    pictures: bool,
) -> None:
    """Write a case to a file of its own, unless its voxels are at fault; what was found in them is in the report."""
    from utils.files.h5_cases import StoredCase, case_file, write_case
    from utils.files.scratch import return_freed_memory

    grid, image_hu, label = resample(case, settings, report)
    if report.faults:
        return
    return_freed_memory()  # which drawing and writing would add to
    if pictures:
        path = h5_path.with_suffix(".pictures") / f"{case.split}_{case.case_id}.png"
        _draw(case, image_hu, label, grid.spacing_mm.tolist(), path)
    stored = StoredCase(case.case_id, case.patient, case.split, grid, case.data_set, case.licence)
    notes = {"files": files, "image": case.image_path.name, "report": report.as_dict()}
    path = case_file(h5_path, case.split, case.case_id)
    write_case(path, stored, image_hu, label, settings.as_dict(), source, notes)


def resample(
    case: Case, settings: PreprocessingSettings, report: CaseReport
) -> tuple[WorkingGrid, np.ndarray, np.ndarray]:
    """Bring a case to its grid, read slab by slab and checked on the way: only what is returned is in memory whole.

    Args:
        case: that is read.
        settings: of the grid.
        report: what is found in the voxels is added to it.

    Returns:
        The grid, the image (X, Y, Z) int16 HU, and the label (X, Y, Z) uint8 raw VerSe labels.

    Raises:
        UserError: the case can't be read.
    """
    from verse_utils.check.voxels import SLAB_SLICES, VoxelChecks
    from verse_utils.images import check_grids, hu_slabs, label_slabs, open_image

    image: Any = open_image(case.image_path)
    check_grids(case, image)
    checks = VoxelChecks(case, image.shape, image.affine)
    grid = settings.grid(image.shape, image.affine)
    image_hu = grid.forward_slabs(checks.image(hu_slabs(image, case.image_path, thickness=SLAB_SLICES)), fill=HU_AIR)
    label = grid.forward_slabs(checks.label(label_slabs(case, SLAB_SLICES)), fill=0, nearest=True)
    checks.conclude(report)
    return grid, image_hu, label


def _draw(case: Case, image_hu: np.ndarray, label: np.ndarray, spacing_mm: list[float], path: Path) -> None:
    from utils.visualize import REFERENCE_COLOUR, draw_planes, save_figure

    title = f"{case.case_id} ({case.split}), {'×'.join(map(str, label.shape))} voxels of {spacing_mm[0]:.2g} mm"
    figure = draw_planes(image_hu, spacing_mm, label, {"vertebrae": {REFERENCE_COLOUR: label}}, title)
    save_figure(figure, path)


def _fetch(arguments: argparse.Namespace) -> None:
    """Put the edition into the data folder, if that is asked for or nothing is there; several must be there."""
    from verse_utils.download.fetch import fetch_where_missing, unpack_zips

    root, *others = arguments.data_path
    if arguments.from_zip:
        unpack_zips(root, arguments.from_zip, as_editions(arguments.dataset_edition))
    elif not others:
        download = False if arguments.no_download else arguments.download or None
        fetch_where_missing(root, as_editions(arguments.dataset_edition), download)


@command
def main() -> None:
    """Preprocess for one task or both, and print the paths of the H5 files."""
    arguments = parse_arguments()
    _fetch(arguments)
    from verse_utils.check.findings import lines_of
    from verse_utils.check.selection import select_cases

    chosen = Chosen(arguments.include, arguments.exclude, goes_on=not arguments.strict)
    selection = select_cases(
        [path.resolve() for path in arguments.data_path] if arguments.scheduler else arguments.data_path,
        arguments.dataset_edition,
        chosen,
        arguments.validation_share,
        arguments.seed,
    )
    if verse := [case.split for case in selection.cases if is_verse(case.data_set)]:
        print(describe_counts(verse, arguments.dataset_edition), file=sys.stderr)
    tell("left out", lines_of(selection.left_out, faults=True))  # now, as the work may take hours
    if preprocess_for_tasks(selection, arguments):
        sys.exit(1)


def preprocess_for_tasks(selection: Selection, arguments: argparse.Namespace) -> bool:
    """Preprocess for each task that was asked for and print the paths; what stops one doesn't stop the other.

    Returns:
        Whether cases were left out. These and all remarks are printed at the end.

    Raises:
        UserError: no H5 could be written for a task.
    """
    from utils.files.h5_cases import H5Cases

    left_out: dict[str, None] = {}  # each line once, in order
    remarks: dict[str, None] = {}
    errors: dict[str, None] = {}
    for settings in (ViewSettings(tuple(arguments.input_shape)), IsotropicSettings()):
        if arguments.task not in ("both", settings.task.name):
            continue
        try:
            path = preprocess_cases(
                selection,
                arguments.dataset_edition,
                settings,
                arguments.output,
                arguments.workers,
                scheduler=arguments.scheduler,
                strict=arguments.strict,
                memory_gb=arguments.memory_gb,
            )
        except UserError as error:
            errors[str(error)] = None
            continue
        print(path)
        notes = H5Cases(path).notes
        left_out |= dict.fromkeys(notes["left_out"])
        remarks |= dict.fromkeys(notes["remarks"])
    tell("worth a look", list(remarks), most=20)
    tell("left out", list(left_out))
    if left_out:
        print(f"{len(left_out)} left out; mend them and run the same command again", file=sys.stderr)
    if errors:
        raise UserError("; ".join(errors))
    return bool(left_out)


def tell(what: str, lines: Sequence[str], most: int | None = None) -> None:
    """Print lines about cases to stderr, no more than ``most``."""
    for line in lines[:most]:
        print(f"{what}: {line}", file=sys.stderr, flush=True)
    if most is not None and len(lines) > most:
        print(f"{what}: {len(lines) - most} more; python -m verse_utils.check lists all", file=sys.stderr)


if __name__ == "__main__":
    # Imported by its name, because workers on other machines can't import functions of __main__.
    from preprocessing import main as main_by_name

    main_by_name()
