"""The cases of data sets in any known layout: VerSe's (``verse_utils.cases``) and those of ``verse_utils.layouts``."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from verse_utils import layouts
from verse_utils.cases import DATA_SET, Case, Chosen, find_cases
from verse_utils.editions import Edition, as_editions
from verse_utils.errors import UserError, one_line
from verse_utils.files.walk import walk
from verse_utils.layouts import NO_SPLIT, Layout
from verse_utils.names import SPLITS, parse_file_name
from verse_utils.splits import Member, join, split_patients

# Of the patients whose split nobody tells.
SHARES = {"validation": 0.15, "test": 0.15}


@cache
def known_layouts() -> tuple[Layout, ...]:
    """The layouts of ``verse_utils.layouts``, by the names of their modules."""
    names = sorted(module.name for module in iter_modules(layouts.__path__))
    return tuple(import_module(f"{layouts.__name__}.{name}").LAYOUT for name in names)


def list_cases(roots: Sequence[Path], edition: Edition, chosen: Chosen | None = None, seed: int = 0) -> list[Case]:
    """Every case of several data sets, sorted by split and id; each scan once.

    An earlier data set decides, as ``verse_utils.splits.join`` says; VerSe19 comes before VerSe20.

    Args:
        roots: folders, each with data of one layout at any depth, or CSV tables.
        edition: of VerSe: 19, 20 or both; of no account for other data.
        chosen: which cases are wanted; all by default.
        seed: of the splits of patients, where a data set tells none.

    Returns:
        Cases of unique ids. Where data sets share an id, the later root's name goes before it.

    Raises:
        UserError: no such folder, no case in it, two layouts in one root, files that don't pair, a scan in two splits;
            or both editions are wanted, and a folder doesn't tell its own.

    Warns:
        UserWarning: splits were drawn; scans that two roots share; and what ``find_cases`` warns of.
    """
    chosen = chosen or Chosen()
    cases: list[Case] = []
    members: list[Member] = []
    for root in map(Path, roots):
        for place, more in _data_sets(root, edition, chosen):
            with_splits = _with_splits(more, place, seed)
            told = [case.split != NO_SPLIT for case in more]
            joined = join(members, _members(with_splits, told, place), name_of(place), str(place))
            for case, member in zip(with_splits, joined, strict=True):
                if member is not None:
                    members.append(member)
                    cases.append(replace(case, case_id=member.case_id, patient=member.patient, split=member.split))
    if not cases and not chosen.problems:
        raise UserError(f"{', '.join(map(str, roots))}: every case is left out; change --include or --exclude")
    return sorted(cases, key=lambda case: (SPLITS.index(case.split), case.case_id))


def _data_sets(root: Path, edition: Edition, chosen: Chosen) -> Iterator[tuple[Path, list[Case]]]:
    """The data sets of one root: where each lies, and its cases, ``NO_SPLIT`` where it tells none."""
    found, verse_path = _find_layouts(root)
    if not found:
        for cases in _of_each_edition(root, as_editions(edition), chosen):
            yield root, cases
    titles = {layout.title: place for layout, place in found}
    titles |= {"VerSe": verse_path} if verse_path and found else {}
    if len(titles) > 1:
        places = ", ".join(f"{title} ({place})" for title, place in titles.items())
        raise UserError(
            f"{root}: holds data in {len(titles)} layouts: {places}; pass each folder that you want by itself"
        )
    for layout, place in found:
        cases = layout.read(place, chosen)
        if not cases and chosen.is_everything and not chosen.problems:
            raise UserError(f"{place}: no case of {layout.title} ({layout.example}) is left in it")
        yield place, cases


def _of_each_edition(root: Path, editions: Sequence[int], chosen: Chosen) -> list[list[Case]]:
    found = [find_cases(root, edition, chosen) for edition in editions]
    unnamed = set.intersection(*({case.image_path for case in cases} for cases in found))
    if len(found) > 1 and unnamed:
        raise UserError(
            f"{min(unnamed)}: no folder above it tells the edition, which is needed to take both; "
            "name the folder of its split like dataset-verse19training or dataset-verse20training"
        )
    return found


def _find_layouts(root: Path) -> tuple[list[tuple[Layout, Path]], Path | None]:
    """The data sets at or below a root, and a file in VerSe's layout beside them."""
    if root.is_file():
        return [(layout, root) for layout in known_layouts() if layout.is_at(root, (), ())], None
    found: list[tuple[Layout, Path]] = []
    verse_path = None
    for folder, subfolders, files in walk(root):
        here = next((layout for layout in known_layouts() if layout.is_at(folder, subfolders, files)), None)
        if here:
            found.append((here, folder))
            subfolders.clear()
        elif verse_path is None:
            verse_path = next((folder / file for file in files if parse_file_name(file)), None)
    return found, verse_path


def _with_splits(cases: list[Case], place: Path, seed: int) -> list[Case]:
    """Cases with the splits that their data set tells, else with drawn ones."""
    told: dict[str, str] = {case.patient: case.split for case in cases if case.split != NO_SPLIT}
    untold = {case.patient for case in cases} - set(told)
    if untold:
        shares = {split: share for split, share in SHARES.items() if split not in told.values()}
        drawn = split_patients(untold, shares, seed)
        counts = Counter(drawn.values())
        shown = ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
        of = f"{len(untold)} of its patients" if told else "its patients"
        warnings.warn(f"{place}: tells no split of {of}; drawn with seed {seed}: {shown}", stacklevel=3)
        told |= drawn
    return [case if case.split != NO_SPLIT else replace(case, split=told[case.patient]) for case in cases]


def _members(cases: Iterable[Case], told: Iterable[bool], place: Path) -> list[Member]:
    """What the rule of ``join`` needs to know; files are one scan's if they are one file."""
    return [
        Member(
            case.case_id,
            case.patient,
            case.split,
            scan=_file_identity(case.image_path),
            person=(DATA_SET if is_verse(case.data_set) else place, case.patient),
            is_verse=is_verse(case.data_set),
            data_set=case.data_set,
            place=f"{case.image_path} (of {place})",
            is_told=is_told,
        )
        for case, is_told in zip(cases, told, strict=True)
    ]


def _file_identity(path: Path) -> Hashable:
    """Equal for two paths of one file."""
    try:
        status = path.stat()
    except OSError:  # what is wrong with it is told where it is read
        return path
    return status.st_dev, status.st_ino


def name_of(place: Path) -> str:
    """The name of data, in the name of its H5 and before ids that another data set has; a link's is its own."""
    return one_line(os.path.basename(os.path.abspath(place)).removesuffix(".csv"))


def is_verse(data_set: str) -> bool:
    """Whether a data set's name is VerSe's, or that of what is named as if it were."""
    return data_set.startswith(DATA_SET)
