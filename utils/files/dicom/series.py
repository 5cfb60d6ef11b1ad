"""A CT series as one volume: opened by its headers, read in slabs of HU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.files.dicom.headers import Slice
from utils.files.dicom.pixels import PixelMeaning, stored_frames
from utils.files.dicom.stacks import Stack, stack_slices
from verse_utils.errors import UserError
from verse_utils.images import to_hu

# PS3.6, table A-1; what pydicom has no name for.
_UNKNOWN_SYNTAXES = {f"1.2.840.10008.1.2.4.{number}": "JPEG XL" for number in (110, 111, 112)}


class DicomSeries(NamedTuple):
    """A CT series whose slices make a stack.

    Attributes:
        stack: its slices in the order of K, and their place.
        shape: (I, J, K): columns, rows, planes.
        affine: (4, 4), voxel indices to RAS millimetres; sheared where the gantry was tilted.
        warnings: what the user should know, a line each.
    """

    stack: Stack
    shape: tuple[int, int, int]
    affine: np.ndarray
    warnings: list[str]


def open_series(place: Path, slices: Sequence[Slice], resample: bool = False) -> DicomSeries:
    """Make a volume of a series' slices.

    Args:
        place: its folder, file or archive, for messages.
        slices: of one series, as ``find_series`` found them; at least one.
        resample: put slices whose spacing varies on an even grid.

    Raises:
        UserError: they make no even stack, or their pixels can't be told to be HU.
    """
    stack = stack_slices(place, slices, resample)
    for one in stack.slices:
        if not one.syntax.is_transfer_syntax:  # of those that pydicom knows
            coding = _UNKNOWN_SYNTAXES.get(one.syntax, f"transfer syntax {one.syntax}")
            where = one.file.place / one.name
            raise UserError(f"{where}: coded in {coding}, which can't be decoded; export the CT uncompressed")
        if isinstance(one.meaning, str):
            raise UserError(f"{one.file.place / one.name}: {one.meaning}; export the CT again, in HU")
    if any(isinstance(one.meaning, PixelMeaning) and one.meaning.is_unspecified for one in stack.slices):
        stack.remarks.append(f"{place}: Rescale Type US (unspecified), its values are taken for HU; look at the result")
    columns, rows = stack.slices[0].size
    return DicomSeries(stack, (columns, rows, len(stack.planes)), stack.affine, stack.remarks)


def series_slabs(stack: Stack, start: int, stop: int, thickness: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first index along K, (I, J, ``thickness`` or less) int16 HU) of the planes ``start`` to ``stop`` - 1."""
    for first in range(start, stop, thickness):
        planes = stack.planes[first : min(first + thickness, stop)]
        # With a share of 0, the second slice has no part in a plane.
        needed = sorted({slice_ for low, high, share in planes for slice_ in ((low, high) if share else (low,))})
        hu = dict(zip(needed, _slices_hu([stack.slices[index] for index in needed]), strict=True))
        slab_hu = [_between(hu[low], hu[high], share) if share else hu[low] for low, high, share in planes]
        yield first, np.stack(slab_hu).T


def _between(low_hu: np.ndarray, high_hu: np.ndarray, share: float) -> np.ndarray:
    hu: np.ndarray = np.rint(low_hu + share * (high_hu.astype(np.float32) - low_hu)).astype(np.int16)
    return hu


def _slices_hu(slices: Sequence[Slice]) -> Iterator[np.ndarray]:
    """Yield (rows, columns) int16 HU of slices, a file opened once for all its frames that follow each other."""
    for file, of_file in groupby(slices, key=lambda one: one.file):
        group = list(of_file)
        try:
            with file.open_whole() as stream:
                for one, words in zip(
                    group, stored_frames(stream, group[0].syntax, [one.frame for one in group]), strict=True
                ):
                    assert isinstance(one.meaning, PixelMeaning)  # open_series refuses others
                    yield to_hu(one.meaning.to_hu(words), file.path).reshape(one.size[::-1])
        except MemoryError:
            raise
        except Exception:  # a damaged file makes pydicom and the decoders raise whatever Python has
            coding, remedy = "", "fetch the file again"
            if group[0].syntax.is_compressed:
                coding, remedy = f" ({group[0].syntax.name})", f"{remedy}, or export the CT uncompressed"
            raise UserError(f"{file}: voxels can't be read{coding}; {remedy}") from None
