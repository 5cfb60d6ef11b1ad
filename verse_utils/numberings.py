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

import numpy as np

from verse_utils.labels import ANATOMICAL_ORDER, COCCYX, SACRUM, VERTEBRA_NAMES

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
