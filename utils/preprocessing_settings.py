"""Settings of ``preprocessing.py``, and the command line that they are read from; nothing heavy for ``--help``."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from utils.constants import SEGMENTATION_SPACING_MM
from utils.misc import OneLineParser
from utils.tasks import HEATMAP, SEGMENTATION, TASKS, Task
from verse_utils.catalogue import name_of
from verse_utils.editions import Edition, add_edition_argument, edition_name

if TYPE_CHECKING:
    import numpy as np

    from utils.geometry.working_grid import WorkingGrid

OUTPUT_FOLDER = Path("preprocessed")
DATA_HELP = (
    "folders that hold data at any depth, in the layout of VerSe (subject-based or MICCAI), nnU-Net, TotalSegmentator "
    "or CTSpine1K; or CSV tables of images and masks"
)


def data_name(roots: Iterable[Path]) -> str:
    """The name of data in the name of its H5."""
    return "+".join(map(name_of, roots))


def is_h5(data_path: Path) -> bool:
    """Whether a path is that of an H5, not of a folder or table that is yet to be preprocessed."""
    return data_path.is_file() and data_path.suffix.lower() != ".csv"


class PreprocessingSettings(ABC):
    """What the cases of an H5 are resampled to; one kind for each task.

    Attributes:
        task: that the H5 is made for.
    """

    task: ClassVar[Task]

    @property
    @abstractmethod
    def grid_name(self) -> str:
        """The grid in the name of the H5."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """The settings as they are stored in the H5."""

    @abstractmethod
    def grid(self, shape: tuple[int, int, int], affine: np.ndarray) -> WorkingGrid:
        """The grid that a scan of this shape (I, J, K) and affine (4, 4) is resampled to."""

    def file_name(self, roots: Sequence[Path], edition: Edition | None) -> str:
        """Name of the H5; other data or settings give another name; ``edition`` is None where nothing is VerSe's."""
        verse = f"_{edition_name(edition)}" if edition else ""
        return f"{data_name(roots)}{verse}_{self.task}_{self.grid_name}.h5"


@dataclass(frozen=True)
class ViewSettings(PreprocessingSettings):
    """For the localiser: the whole scan in a view of ``shape`` (X, Y, Z) voxels."""

    task = HEATMAP
    shape: tuple[int, int, int] = HEATMAP.input_shape

    @property
    def grid_name(self) -> str:
        return "x".join(map(str, self.shape))

    def as_dict(self) -> dict[str, Any]:
        return {"task": self.task.name, "shape": list(self.shape)}

    def grid(self, shape: tuple[int, int, int], affine: np.ndarray) -> WorkingGrid:
        from utils.geometry.working_grid import WorkingGrid

        return WorkingGrid.view(shape, affine, self.shape)


@dataclass(frozen=True)
class IsotropicSettings(PreprocessingSettings):
    """For the segmenter: the whole scan with voxels of ``spacing_mm`` along each axis."""

    task = SEGMENTATION
    spacing_mm: float = SEGMENTATION_SPACING_MM

    @property
    def grid_name(self) -> str:
        return f"{self.spacing_mm:g}mm"

    def as_dict(self) -> dict[str, Any]:
        return {"task": self.task.name, "spacing_mm": self.spacing_mm}

    def grid(self, shape: tuple[int, int, int], affine: np.ndarray) -> WorkingGrid:
        from utils.geometry.working_grid import WorkingGrid

        return WorkingGrid.isotropic(shape, affine, self.spacing_mm)


def parse_arguments() -> argparse.Namespace:
    """Read the command line. Raises UserError: a value is wrong."""
    parser = _build_parser()
    arguments = parser.parse_args()
    for name in ("workers", "memory_gb"):
        if getattr(arguments, name) is not None and not getattr(arguments, name) > 0:
            parser.error(f"--{name} {getattr(arguments, name)} must be positive")
    if min(arguments.input_shape) < 1:
        parser.error("--input_shape must be positive")
    if arguments.validation_share is not None and not 0 < arguments.validation_share < 1:
        parser.error(f"--validation_share {arguments.validation_share}: must lie between 0 and 1")
    if len(arguments.data_path) > 1 and (arguments.download or arguments.from_zip):
        parser.error("--download and --from_zip bring VerSe to one --data_path; give no other")
    return arguments


def _build_parser() -> OneLineParser:
    parser = OneLineParser(description="Write CT scans and their vertebra masks as compressed HDF5.")
    add = parser.add_argument
    add("--data_path", type=Path, nargs="+", required=True, help=DATA_HELP)
    add_edition_argument(parser, "of VerSe: 19 or 20, or both as one data set (default 19)")
    add("--task", choices=(*TASKS, "both"), default="both", help="what the H5 is for (default both: two H5 files)")
    add("--output", type=Path, default=OUTPUT_FOLDER, help=f"folder of the H5 files (default {OUTPUT_FOLDER})")
    add(
        "--input_shape",
        type=int,
        nargs=3,
        default=HEATMAP.input_shape,
        help="voxels of the heatmap's view (default 64 64 128)",
    )
    add("--workers", type=int, help="processes (default: one per core, if their memory is free)")
    add("--memory_gb", type=float, help="GiB that all processes together may take (default: what is free)")
    add(
        "--scheduler",
        metavar="ADDRESS",
        help="running Dask scheduler (tcp://HOST:PORT) that gets the cases instead of --workers; it and its workers "
        "must have this project installed and see the same files",
    )
    globs = "case ids or patients; globs such as 'sub-gl*'"
    add("--include", nargs="+", default=(), metavar="ID", help=f"only these {globs}")
    add("--exclude", nargs="+", default=(), metavar="ID", help=f"all but these {globs}")
    add("--strict", action="store_true", help="stop if a case can't be used, instead of leaving it out")
    share_help = "share of the training patients that are taken for validation, where there is no validation split"
    add("--validation_share", type=float, metavar="SHARE", help=share_help)
    add("--seed", type=int, default=0, help="of splits that are drawn (default 0)")
    fetching = parser.add_mutually_exclusive_group()
    add_way = fetching.add_argument
    add_way("--download", action="store_true", help="download what is missing of the edition to --data_path")
    add_way("--no_download", action="store_true", help="never download, even if --data_path doesn't exist or is empty")
    add_way("--from_zip", type=Path, nargs="+", metavar="FILE", help="unpack VerSe's zips to --data_path first")
    return parser
