"""A mask's surface as a page that shows its errors in 3D, and as a file for a 3D printer.

``python -m reports.surfaces MASK --truth MASK --output FOLDER`` writes both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reports.surface import surface_of, write_stl
from reports.surface_figure import error_figure, label_figure, write_page
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
    mask, affine, names = _read(arguments.mask)
    name = arguments.mask.name.removesuffix(".gz").removesuffix(".nii")
    page, stl = (arguments.output / f"{name}.{ending}" for ending in ("html", "stl"))
    if arguments.truth is None:
        figure = label_figure(mask, affine, name, names)
    else:
        figure = error_figure(mask, _read_reference(arguments.truth, arguments.mask), affine, name)
    write_page(figure, page)
    write_stl(surface_of(mask > 0, affine), stl)
    print(f"{page}\n{stl}")


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """A mask, its affine, and the names of its labels that its file holds."""
    from utils.files.images.label_table import names_of_labels
    from verse_utils.images import open_image, read_mask

    mask = read_mask(path)
    if not mask.any():
        raise UserError(f"{path}: empty, no voxel is a vertebra; give a mask with vertebrae")
    image = open_image(path)
    return mask, image.affine, names_of_labels(image.header)


def _read_reference(path: Path, prediction: Path) -> np.ndarray:
    from verse_utils.images import check_same_grid, open_image

    reference, *_ = _read(path)
    try:
        check_same_grid(open_image(prediction), open_image(path), prediction, path)
    except UserError:
        raise UserError(f"{path}: lies on another grid than {prediction}; resample one of them to the other") from None
    return reference


if __name__ == "__main__":
    main()
