"""Layouts of data sets on disk: a module for each, which ``verse_utils.catalogue`` finds by itself.

A module here holds a ``LAYOUT``. To read another data set, add a module; nothing else has to change. VerSe's own
layouts are in ``verse_utils.cases``. What a layout is, and what its reader is given, stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verse_utils.cases import Case, Chosen
from verse_utils.errors import UserError, one_line

# A case whose data set tells no split; the catalogue draws one for its patient.
NO_SPLIT = ""

_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk.

    Attributes:
        title: as messages name it.
        example: a path of it, for messages.
        is_at: (folder, names of its folders, names of its files) -> whether the folder is such a data set.
        read: (folder, whether a case of this id and patient is left out) -> its cases, with ``NO_SPLIT`` where it tells
            none. Raises UserError.
    """

    title: str
    example: str
    is_at: Callable[[Path, Sequence[str], Sequence[str]], bool]
    read: Callable[[Path, Chosen], list[Case]]


def stem(path: Path) -> str | None:
    """The name of a NIfTI file without its ending; None for other files and for hidden ones (macOS' ``._*``)."""
    ending = next((ending for ending in _ENDINGS if path.name.endswith(ending)), None)
    return path.name.removesuffix(ending) if ending and not path.name.startswith(".") else None


def put_in_split(splits: dict[str, str], case_id: str, split: str, path: Path) -> None:
    """Note the split of a case as a list tells it. Raises UserError where the list has it in two splits."""
    if splits.setdefault(case_id, split) != split:
        raise UserError(
            f"{path}: {case_id} is in {splits[case_id]} and in {split}; keep it in one, or scores are too good"
        )


def pair(images: Mapping[str, Path], masks: Mapping[str, Path], chosen: Chosen) -> list[str]:
    """The ids, sorted, that have an image and a mask; where the id is the patient.

    Raises:
        UserError: an id that is not left out has only one of them, or holds line breaks or undecodable bytes; all are
            named.
    """
    problems: dict[str, str] = {}
    pairs = []
    for name in sorted({*images, *masks}):
        if chosen.leaves_out(name, name) or name in chosen.problems:
            continue
        if one_line(name) != name:
            path = images.get(name) or masks[name]
            problems[one_line(name)] = f"{path}: its name can't be shown, so it can't be a case's; rename it"
        elif name not in masks:
            problems[name] = f"{images[name]}: no mask of this id"
        elif name not in images:
            problems[name] = f"{masks[name]}: a mask without its CT"
        else:
            pairs.append(name)
    chosen.tell(problems)
    return pairs
