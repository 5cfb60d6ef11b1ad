"""What the numbers in a mask mean: VerSe's, and those of other tools, by the tables that these publish.

Sources:
    VerSe: Sekuboyina et al. 2021 (10.1016/j.media.2021.102166), section 2.
    TotalSegmentator: ``class_map["total"]`` (version 2 and later) and ``class_map["total_v1"]`` in
        ``totalsegmentator/map_to_binary.py`` of github.com/wasserth/TotalSegmentator.
    SPINEPS: "Labels" in the README of github.com/Hendrik-code/spineps; the numbers of the sacrum's parts in
        ``vert_constants.py`` of github.com/Hendrik-code/TPTBox, on which it builds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from verse_utils.errors import MaskError
from verse_utils.labels import ANATOMICAL_ORDER, COCCYX, SACRUM, T13, VERTEBRA_NAMES

# In tables of 256 entries: the number means nothing.
UNKNOWN = 255

_LABEL_OF_NAME = {name: label for label, name in VERTEBRA_NAMES.items()}
_VERTEBRA = re.compile(
    r"(?:vertebrae?[ _-]?)?(?P<region>C|Th?|L)[ _-]?(?P<number>\d{1,2})(?:[ _-]?vertebrae?)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Numbering:
    """What each number of a mask means.

    Attributes:
        name: as ``--prediction_labels`` takes it.
        label_of: number from 1 to 255 -> VerSe's label; 0 for what is no vertebra.
        only_one: a mask holds no more than one number besides 0.
    """

    name: str
    label_of: Mapping[int, int] = field(hash=False, repr=False)
    only_one: bool = False

    def table(self) -> np.ndarray:
        """(256,) uint8: VerSe's label of each number, ``UNKNOWN`` where the number means nothing."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[0] = 0
        table[list(self.label_of)] = list(self.label_of.values())
        return table

    def fits(self, numbers: Collection[int]) -> bool:
        """Whether the numbers of a mask, without 0, all mean something, and one of them a vertebra."""
        if self.only_one and len(numbers) != 1:
            return False
        return all(number in self.label_of for number in numbers) and any(self.label_of[n] for n in numbers)


def vertebra_label(name: str) -> int | None:
    """VerSe's label of a vertebra's name, such as ``L1``, ``Th12`` or ``vertebrae_C7``; None for other names."""
    match = _VERTEBRA.fullmatch(name.strip())
    return _LABEL_OF_NAME.get(f"{match['region'][0].upper()}{int(match['number'])}") if match else None


def _downward(first: int, others: range) -> dict[int, int]:
    """A table that counts from L5 at ``first`` up to C1, as TotalSegmentator's do, among other structures."""
    return {**dict.fromkeys(others, 0), **{first + step: label for step, label in enumerate(range(24, 0, -1))}}


_VERTEBRAE = {label: label for label in ANATOMICAL_ORDER}
_DISCS = dict.fromkeys(range(101, 134), 0)  # 100 + the vertebra above
_ENDPLATES = dict.fromkeys(range(201, 234), 0)  # 200 + the vertebra
_SACRUM_PARTS = dict.fromkeys((SACRUM, COCCYX, *range(29, 34)), 0)
_SPINEPS_OTHERS = dict.fromkeys((60, 61, 62, 100), 0)  # cord, canal, endplate, disc

VERSE = Numbering("verse", {**_VERTEBRAE, SACRUM: 0, COCCYX: 0})
NUMBERINGS: dict[str, Numbering] = {
    numbering.name: numbering
    for numbering in (
        VERSE,
        Numbering("totalsegmentator", _downward(27, range(1, 118))),
        Numbering("totalsegmentator_v1", _downward(18, range(1, 105))),
        Numbering("spineps", {**_SPINEPS_OTHERS, **_DISCS, **_ENDPLATES, **_SACRUM_PARTS, **_VERTEBRAE}),
        Numbering("binary", dict.fromkeys(range(1, 256), 1), only_one=True),
    )
}


def to_labels(values: np.ndarray, path: Path, numbering: Numbering = VERSE) -> np.ndarray:
    """A mask in VerSe's numbers, without sacrum and coccyx.

    Args:
        values: as stored, of any shape.
        path: of the mask, for messages.
        numbering: what the values mean.

    Returns:
        uint8 of the same shape.

    Raises:
        MaskError: values that are no whole numbers, or mean nothing in the numbering.
    """
    numbers = whole_numbers(values, path)
    if numbering.name == VERSE.name and (numbers.min() < 0 or numbers.max() > T13):
        labels = f"labels {numbers.min():g} to {numbers.max():g}"
        raise MaskError(f"{path}: {labels} leave VerSe's 0 to {T13}; give a mask of VerSe's labels, or of 0 and 1")
    label: np.ndarray = numbering.table()[np.clip(numbers, 0, UNKNOWN).astype(np.uint8)]
    strange = (label == UNKNOWN) | (numbers != np.clip(numbers, 0, UNKNOWN))
    if strange.any():
        found = ", ".join(f"{number:g}" for number in np.unique(numbers[strange])[:5])
        raise MaskError(f"{path}: holds {found}, which means nothing in the numbering {numbering.name}")
    if numbering.only_one and len(present := np.unique(numbers[numbers != 0])) > 1:
        raise MaskError(f"{path}: holds {present[0]:g} and {present[1]:g}: not a binary mask, give one of 0 and 1")
    return label


def whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    """Stored values of a mask, rounded where they are floats. Raises MaskError for fractions and NaN."""
    if values.dtype.kind != "f":
        return values
    rounded: np.ndarray = np.rint(values)  # VerSe's masks are often float64
    if not np.allclose(values, rounded, atol=1e-3):  # also False for NaN
        raise MaskError(f"{path}: holds values that are not whole numbers; give a mask of vertebra numbers")
    return rounded


def paint_part(label: np.ndarray, values: np.ndarray, number: int, path: Path) -> None:
    """Label the voxels of one vertebra's mask, in place; voxels that another has already stay that one's.

    Args:
        label: uint8, of any shape.
        values: of the vertebra's mask, stored values of the same shape; 0 outside of it.
        number: VerSe's label.
        path: of the mask, for messages.

    Raises:
        UserError: the mask holds fractions, NaN, or more than one number besides 0.
    """
    if not values.any():  # most slabs, as a vertebra is small
        return
    inside = to_labels(values, path, NUMBERINGS["binary"]) > 0
    label[inside & (label == 0)] = number
