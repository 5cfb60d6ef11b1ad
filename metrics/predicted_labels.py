"""What the numbers in a predicted mask mean: what the user says, else VerSe's; nothing is guessed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from verse_utils.errors import UserError
from verse_utils.images import open_image, read_mask, stored_slabs
from verse_utils.labels import LabelScheme
from verse_utils.numberings import NUMBERINGS, VERSE, Numbering, whole_numbers

# Tables that a mask without a name may be of. One of a single number could be "binary" too, but reads as the same.
_NAMED = tuple(numbering for numbering in NUMBERINGS.values() if not numbering.only_one)


def read_prediction(path: Path, numbering: str | None, reference: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """Read a predicted mask in VerSe's numbers.

    Args:
        path: of the mask.
        numbering: one of ``NUMBERINGS``; None where the user doesn't say: VerSe's, unless that is in doubt.
        reference: the reference mask, uint8 in VerSe's numbers. It decides whether VerSe's numbers are in doubt:
            another table fits the mask, gives other classes, and more of the reference's vertebrae than VerSe's does.
        scheme: what is scored.

    Returns:
        uint8 in VerSe's numbers, of the mask's shape.

    Raises:
        UserError: not readable; numbers that don't fit what the user says; or fit more than one table, or none.
    """
    slabs = (whole_numbers(values, path) for _, values in stored_slabs(open_image(path), path))
    numbers = set().union(*map(present_numbers, slabs))
    if numbering is None:
        _check_that_verse_is_meant(numbers, path, reference, scheme)
        return read_mask(path)
    chosen = NUMBERINGS[numbering]
    others = [name for name in _fitting(numbers) if name != numbering]
    is_known = numbers <= set(chosen.label_of) and not (chosen.only_one and len(numbers) > 1)
    if not is_known or (numbers and others and not chosen.fits(numbers)):
        raise UserError(
            f"{path}: its labels {_shown(numbers)} are not of --prediction_labels {numbering}; {_advice(others)}"
        )
    return read_mask(path, chosen)


def present_numbers(values: np.ndarray) -> set[int]:
    """The numbers in an array of whole numbers, without 0."""
    if not values.size or values.min() < 0 or values.max() > 255:
        return {int(number) for number in np.unique(values)} - {0}
    is_present = np.zeros(256, bool)
    is_present[values.astype(np.uint8, copy=False)] = True
    return {int(number) for number in np.flatnonzero(is_present)} - {0}


def _check_that_verse_is_meant(numbers: set[int], path: Path, reference: np.ndarray, scheme: LabelScheme) -> None:
    """Raise UserError where a mask of unsaid numbering isn't of VerSe's, or may be of another."""
    if not numbers <= set(VERSE.label_of):
        reach = f"{min(0, *numbers)} to {max(numbers)}"
        raise UserError(
            f"{path}: labels {reach} leave VerSe's 0 to {max(VERSE.label_of)}; {_advice(_fitting(numbers))}"
        )
    expected = present_numbers(reference)
    is_named = expected != {1}

    def agreement(numbering: Numbering) -> int:
        return len({numbering.label_of[number] for number in numbers} & expected)

    def classes(numbering: Numbering) -> list[int]:
        return [scheme.class_of.get(numbering.label_of[number], 0) for number in sorted(numbers)]

    for other in _NAMED:
        if not other.fits(numbers) or classes(other) == classes(VERSE):
            continue
        if not is_named or agreement(other) > agreement(VERSE):
            raise UserError(
                f"{path}: its labels {_shown(numbers)} fit {VERSE.name} and {other.name}; "
                "say which they are with --prediction_labels"
            )


def _fitting(numbers: Collection[int]) -> list[str]:
    return [name for name, numbering in NUMBERINGS.items() if numbering.fits(numbers)]


def _advice(names: list[str]) -> str:
    if not names:
        return f"they fit no table that is known ({', '.join(NUMBERINGS)}); map them to VerSe's"
    return f"if they are of {' or '.join(names)}, say so with --prediction_labels"


def _shown(numbers: Collection[int]) -> str:
    first = sorted(numbers)[:8]
    return ", ".join(map(str, first)) + (", …" if len(numbers) > len(first) else "")
