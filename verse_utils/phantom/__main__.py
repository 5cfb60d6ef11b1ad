"""Write phantoms: ``python -m verse_utils.phantom --output FOLDER``. Other commands take it as ``--data_path``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from verse_utils.errors import UserError, one_line
from verse_utils.names import SPLITS
from verse_utils.phantom.dataset import FIELDS_OF_VIEW, write_phantom_dataset


def main() -> None:
    """Write a phantom data set and say how a threshold does on it."""
    parser = argparse.ArgumentParser(description="Write synthetic spine CTs in VerSe's layout.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    for split, count in zip(SPLITS, (8, 2, 3), strict=True):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"{split} cases (default {count})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--field_of_view", choices=FIELDS_OF_VIEW, default="spine", help="what is scanned")
    parser.add_argument("--shapes", type=Path, help="folder with masks whose vertebrae trunks are built around")
    voxel_help = "edge of the voxels of trunks and bodies, if it isn't to be drawn; coarse ones are quickly made"
    parser.add_argument("--voxel_mm", type=float, help=voxel_help)
    arguments = parser.parse_args()
    if arguments.voxel_mm is not None and not 0.3 <= arguments.voxel_mm <= 10:
        parser.error(f"--voxel_mm {arguments.voxel_mm:g}: must lie between 0.3 and 10")
    counts = {split: getattr(arguments, split) for split in SPLITS}
    try:
        scores = write_phantom_dataset(
            arguments.output,
            counts,
            arguments.seed,
            arguments.workers,
            field_of_view=arguments.field_of_view,
            shapes=arguments.shapes,
            voxel_mm=arguments.voxel_mm,
        )
    except UserError as error:
        parser.exit(2, f"error: {one_line(error)}\n")
    print(f"{arguments.output}: {len(scores)} phantoms; HU > 150 alone has a Dice of {np.mean(scores):.2f}")


if __name__ == "__main__":
    main()
