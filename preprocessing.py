"""VerSe folders to compressed HDF5: ``python preprocessing.py --data_path ROOT --task both``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from utils.constants import HEATMAP_SHAPE, HU_AIR, SEGMENTATION_SPACING_MM
from utils.misc import OneLineParser, run_command
from verse_utils.cases import Case, find_cases
from verse_utils.errors import UserError

TASKS = ("heatmap", "segmentation")
OUTPUT_FOLDER = Path("preprocessed")


@dataclass(frozen=True)
class Settings:
    """What a case is made into.

    Attributes:
        task: "heatmap" (the whole scan in one view of ``shape``) or "segmentation" (the whole scan at ``spacing_mm``).
        shape: (X, Y, Z) voxels of the view; heatmap only.
        spacing_mm: of the segmentation grid; segmentation only.
    """

    task: str
    shape: tuple[int, int, int] = HEATMAP_SHAPE
    spacing_mm: float = SEGMENTATION_SPACING_MM

    def as_dict(self) -> dict:
        """The settings that matter to the task, for the H5."""
        if self.task == "heatmap":
            return {"task": self.task, "shape": list(self.shape)}
        return {"task": self.task, "spacing_mm": self.spacing_mm}

    def file_name(self, root: Path, edition: int) -> str:
        """Name of the H5; it tells data and settings, so that no two mix."""
        grid = "x".join(map(str, self.shape)) if self.task == "heatmap" else f"{self.spacing_mm:g}mm"
        return f"{root.resolve().name}_verse{edition}_{self.task}_{grid}.h5"


def preprocess(
    root: Path,
    edition: int,
    settings: Settings,
    output: Path = OUTPUT_FOLDER,
    workers: int | None = None,
    exclude: Iterable[str] = (),
    pictures: bool = True,
) -> Path:
    """Write every case of a VerSe folder to an H5; cases that are there already are kept.

    Args:
        root: folder with VerSe's dataset folders.
        edition: 19 or 20.
        settings: the task and its grid.
        output: folder of the H5, its ``.cases`` and its ``.pictures``.
        workers: processes; one per core by default.
        exclude: ids or subjects to leave out.
        pictures: save a picture of each case.

    Returns:
        Path of the H5.

    Raises:
        UserError: nothing usable found, or cases that can't be read. Then no H5 is written; finished cases are kept
            for the next run.
    """
    from tqdm import tqdm

    from utils.h5_cases import write_links
    from verse_utils.images import check_case

    cases = find_cases(root, edition, exclude)
    for case in cases:  # what headers can tell is told before any work
        check_case(case)
    h5_path = output / settings.file_name(root, edition)
    work = partial(_preprocess_case, settings=settings, h5_path=h5_path, pictures=pictures)
    failures = []
    with tqdm(total=len(cases), desc=f"{settings.task} H5", unit="case") as progress:
        for failure in _run(work, cases, workers or os.cpu_count() or 1):
            failures += [failure] if failure else []
            progress.update()
    if failures:
        _remove_empty_folders(h5_path.with_suffix(".cases"))
        _remove_empty_folders(h5_path.with_suffix(".pictures"))
        _remove_empty_folders(output)
        raise UserError("; ".join(failures))
    write_links(h5_path, settings.task, settings.as_dict(), [(case.split, case.case_id) for case in cases])
    return h5_path


def _run(work: Callable[[Case], str | None], cases: list[Case], workers: int) -> Iterable[str | None]:
    """Results of ``work`` in the order in which they finish."""
    if workers == 1 or len(cases) == 1:
        yield from map(work, cases)
        return
    from multiprocessing import get_context

    # Spawned, as a fork of a process in which torch runs threads can hang.
    with ProcessPoolExecutor(min(workers, len(cases)), mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(work, case) for case in cases]):
            yield future.result()


def _preprocess_case(case: Case, settings: Settings, h5_path: Path, pictures: bool) -> str | None:
    """Preprocess one case unless it is there; returns what the user has to mend, or None."""
    from utils.h5_cases import case_file, is_written

    path = case_file(h5_path, case.split, case.case_id)
    source = {file.name: file.stat().st_size for file in (case.image_path, case.mask_path)}
    if is_written(path, settings.as_dict(), source):
        return None
    try:
        _write(case, settings, path, source, h5_path.with_suffix(".pictures") if pictures else None)
    except UserError as error:
        return str(error)
    return None


def _write(case: Case, settings: Settings, path: Path, source: dict, picture_folder: Path | None) -> None:
    from utils.h5_cases import StoredCase, write_case
    from utils.working_grid import WorkingGrid
    from verse_utils.images import read_case

    images = read_case(case)
    shape = images.image_hu.shape
    if settings.task == "heatmap":
        grid = WorkingGrid.view(shape, images.affine, settings.shape)
    else:
        grid = WorkingGrid.isotropic(shape, images.affine, settings.spacing_mm)
    image_hu = grid.forward(images.image_hu, fill=HU_AIR)
    label = grid.forward(images.label, fill=0, nearest=True)
    if picture_folder is not None:
        _draw(case, image_hu, label, grid.spacing_mm, picture_folder / f"{case.split}_{case.case_id}.png")
    write_case(
        path, StoredCase(case.case_id, case.patient, case.split, grid), image_hu, label, settings.as_dict(), source
    )


def _draw(case: Case, image_hu, label, spacing_mm, path: Path) -> None:
    from utils.visualize import TARGET_COLOUR, draw_planes, save_figure

    title = f"{case.case_id} ({case.split}), {'×'.join(map(str, label.shape))} voxels of {spacing_mm[0]:.2g} mm"
    figure = draw_planes(image_hu, spacing_mm, label > 0, {"vertebrae": {TARGET_COLOUR: label > 0}}, title)
    save_figure(figure, path)


def _remove_empty_folders(folder: Path) -> None:
    for below, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(below):
            os.rmdir(below)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Write VerSe CT scans and their vertebra masks as compressed HDF5.")
    add = parser.add_argument
    add("--data_path", type=Path, required=True, help="folder that holds VerSe's dataset folders at any depth")
    add("--dataset_edition", type=int, choices=(19, 20), default=19, help="VerSe19 or VerSe20 (default 19)")
    add("--task", choices=(*TASKS, "both"), default="both", help="what the H5 is for (default both: two H5 files)")
    add("--output", type=Path, default=OUTPUT_FOLDER, help=f"folder of the H5 files (default {OUTPUT_FOLDER})")
    add(
        "--input_shape",
        type=int,
        nargs=3,
        default=HEATMAP_SHAPE,
        help="voxels of the heatmap's view (default 64 64 128)",
    )
    add("--workers", type=int, help="processes (default: one per core)")
    add("--exclude", nargs="+", default=(), metavar="ID", help="case ids or subjects to leave out")
    add("--download", action="store_true", help="fetch the edition into --data_path where it is missing")
    arguments = parser.parse_args()
    if min(arguments.input_shape) < 1 or (arguments.workers is not None and arguments.workers < 1):
        parser.error("--input_shape and --workers must be positive")
    return arguments


def main() -> None:
    """Preprocess for one task or both, and say where the H5 files are."""
    arguments = parse_arguments()
    if arguments.download:
        from verse_utils.download import download_verse

        download_verse(arguments.data_path, arguments.dataset_edition)
    elif not arguments.data_path.exists():
        raise UserError(f"{arguments.data_path}: no such folder; correct it, or pass --download to fetch VerSe there")
    for task in TASKS if arguments.task == "both" else (arguments.task,):
        settings = Settings(task, shape=tuple(arguments.input_shape))
        root, edition = arguments.data_path, arguments.dataset_edition
        print(preprocess(root, edition, settings, arguments.output, arguments.workers, arguments.exclude))


if __name__ == "__main__":
    run_command(main)
