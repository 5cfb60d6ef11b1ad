"""A mask's surface as a page that shows its errors in 3D, and as a file for a 3D printer.

``python -m reports.surfaces MASK --truth MASK --output FOLDER`` writes both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reports.surface import surface_of, write_stl
from reports.surface_figure import error_figure, write_page
from utils.misc import OneLineParser, command
from verse_utils.errors import UserError


@command
def main() -> None:
    """Write the page and the STL file of a mask."""
    parser = OneLineParser(description="Write a mask's surface as a 3D page (.html) and for a 3D printer (.stl).")
    parser.add_argument("mask", type=Path, metavar="MASK", help="NIfTI mask: 0 is background")
    parser.add_argument("--truth", type=Path, metavar="MASK", help="reference mask on the same grid")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where <name of MASK>.* go")
    arguments = parser.parse_args()
    mask, affine = _read(arguments.mask)
    reference = None if arguments.truth is None else _read_reference(arguments.truth, arguments.mask)
    name = arguments.mask.name.removesuffix(".gz").removesuffix(".nii")
    page, stl = (arguments.output / f"{name}.{ending}" for ending in ("html", "stl"))
    write_page(error_figure(mask, reference, affine, name), page)
    write_stl(surface_of(mask > 0, affine), stl)
    print(f"{page}\n{stl}")


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from verse_utils.images import open_image, read_mask

    mask = read_mask(path)
    if not mask.any():
        raise UserError(f"{path}: empty, no voxel is a vertebra; give a mask with vertebrae")
    return mask, open_image(path).affine


def _read_reference(path: Path, prediction: Path) -> np.ndarray:
    from verse_utils.images import check_same_grid, open_image

    reference, _ = _read(path)
    try:
        check_same_grid(open_image(prediction), open_image(path), prediction, path)
    except UserError:
        raise UserError(f"{path}: lies on another grid than {prediction}; resample one of them to the other") from None
    return reference


if __name__ == "__main__":
    main()
