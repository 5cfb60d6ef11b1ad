"""The editions of VerSe, one by one or together."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from verse_utils.names import SPLITS

# Scans in the official subject-based releases (Sekuboyina et al. 2021).
EXPECTED_COUNTS: dict[int, dict[str, int]] = {
    19: {"training": 80, "validation": 40, "test": 40},
    20: {"training": 61, "validation": 80, "test": 73},
}
EDITIONS = tuple(EXPECTED_COUNTS)
BOTH = "both"

# One edition, or several that are taken as one data set.
Edition = int | Sequence[int]


def as_editions(edition: Edition) -> tuple[int, ...]:
    """The editions in ascending order. Raises ValueError for others than 19 and 20."""
    editions = tuple(sorted({edition} if isinstance(edition, int) else set(edition)))
    if not editions or not set(editions) <= set(EDITIONS):
        raise ValueError(f"VerSe has the editions 19 and 20, not {edition}")
    return editions


def edition_name(edition: Edition) -> str:
    """As in file names: ``verse19``, or ``verse19+20``."""
    return f"verse{'+'.join(map(str, as_editions(edition)))}"


def add_edition_argument(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add ``--dataset_edition 19``, ``20``, ``19 20`` or ``both``: an int, or a tuple of both."""
    parser.add_argument(
        "--dataset_edition",
        nargs="+",
        type=_edition_or_both,
        choices=(*EDITIONS, BOTH),
        default=EDITIONS[0],
        action=_EditionAction,
        help=help_text,
    )


def _edition_or_both(text: str) -> int | str:
    return BOTH if text == BOTH else int(text)


class _EditionAction(argparse.Action):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        editions = EDITIONS if BOTH in values else as_editions(values)
        setattr(namespace, self.dest, editions[0] if len(editions) == 1 else editions)


def describe_counts(splits: Sequence[str], edition: Edition) -> str:
    """How many of VerSe's scans each split has, and why VerSe20 has fewer than its paper says."""
    count = Counter(splits)
    text = f"{edition_name(edition)}: " + ", ".join(f"{count[split]} {split}" for split in SPLITS) + " cases"
    if as_editions(edition) == (20,):
        by_subject = " + ".join(map(str, EXPECTED_COUNTS[20].values()))
        text += (
            ". The paper of VerSe20 counts more: it repeats scans of VerSe19, which the files by subject "
            f"({by_subject}) leave out; --dataset_edition {BOTH} takes both editions"
        )
    return text
