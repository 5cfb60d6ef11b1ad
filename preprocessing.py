"""VerSe folders to compressed HDF5: ``python preprocessing.py --data_path ROOT --task both``."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from utils.constants import HEATMAP_SHAPE, HU_AIR, SEGMENTATION_SPACING_MM
from utils.misc import OneLineParser, run_command
from utils.pool import run_all
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
    scheduler: str | None = None,
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
        scheduler: address of a Dask scheduler whose workers do the work instead; see ``utils.pool.run_all``. They must
            see ``root`` and ``output`` at the same paths.

    Returns:
        Path of the H5; absolute with a scheduler.

    Raises:
        UserError: nothing usable found, cases that can't be read, or workers that can't work. Then no H5 is written;
            finished cases are kept for the next run.
    """
    from tqdm import tqdm

    from utils.h5_cases import write_links
    from verse_utils.images import check_case

    if scheduler is not None:  # its workers run in other folders
        root, output = root.resolve(), output.resolve()
    cases = find_cases(root, edition, exclude)
    for case in cases:  # what headers can tell is told before any work
        check_case(case)
    h5_path = output / settings.file_name(root, edition)
    work = partial(_preprocess_case, settings=settings, h5_path=h5_path, pictures=pictures)
    failures = []
    with tqdm(total=len(cases), desc=f"{settings.task} H5", unit="case") as progress:
        for failure in run_all(work, cases, workers or os.cpu_count() or 1, scheduler):
            failures += [failure] if failure else []
            progress.update()
    if failures:
        _remove_empty_folders(h5_path.with_suffix(".cases"))
        _remove_empty_folders(h5_path.with_suffix(".pictures"))
        _remove_empty_folders(output)
        raise UserError("; ".join(failures))
    if scheduler is not None:
        _check_written(h5_path, cases)
    write_links(h5_path, settings.task, settings.as_dict(), [(case.split, case.case_id) for case in cases])
    return h5_path


def _check_written(h5_path: Path, cases: Iterable[Case]) -> None:
    """Raise UserError where workers wrote to folders of their own machines."""
    from utils.h5_cases import case_file

    for path in (case_file(h5_path, case.split, case.case_id) for case in cases):
        if not path.exists():
            raise UserError(f"{path}: written by a worker but not there; --output must be a folder that all share")


def _preprocess_case(case: Case, settings: Settings, h5_path: Path, pictures: bool) -> str | None:
    """Preprocess one case unless it is there; returns what the user has to mend, or None."""
    from utils.h5_cases import case_file, is_written

    path = case_file(h5_path, case.split, case.case_id)
    try:
        source = {file.name: file.stat().st_size for file in (case.image_path, case.mask_path)}
    except FileNotFoundError as error:  # as check_case found it, the likely reason is another machine
        return f"{error.filename}: not there on {platform.node()}; workers of --scheduler must see the same files"
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
    add(
        "--scheduler",
        metavar="ADDRESS",
        help="running Dask scheduler (tcp://HOST:PORT) that gets the cases instead of --workers; it and its workers "
        "must have this project installed and see the same files",
    )
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
        path = preprocess(
            arguments.data_path,
            arguments.dataset_edition,
            settings,
            arguments.output,
            arguments.workers,
            arguments.exclude,
            scheduler=arguments.scheduler,
        )
        print(path)


if __name__ == "__main__":
    # Imported by its name: workers on other machines can't import anything of __main__.
    from preprocessing import main as main_by_name

    run_command(main_by_name)
