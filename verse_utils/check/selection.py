"""The cases to preprocess: found, split, and without those whose headers say that they can't be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from verse_utils.cases import Case, Chosen
from verse_utils.catalogue import list_cases
from verse_utils.check.findings import CaseReport, lines_of
from verse_utils.check.headers import check_headers
from verse_utils.editions import EDITIONS, Edition
from verse_utils.errors import UserError
from verse_utils.images import OnGrid
from verse_utils.names import SPLITS
from verse_utils.splits import split_patients


@dataclass(frozen=True)
class Selection:
    """Cases that can be used as far as their headers tell, and those that can't.

    Attributes:
        roots: where they were looked for.
        cases: sorted by split and id.
        images: of the cases, in their order: the CTs as their headers tell.
        reports: of the cases, in their order.
        left_out: reports of cases that can't be used, or whose files don't pair.
    """

    roots: list[Path]
    cases: list[Case]
    images: list[OnGrid] = field(default_factory=list)
    reports: list[CaseReport] = field(default_factory=list)
    left_out: list[CaseReport] = field(default_factory=list)


def select_cases(
    roots: Sequence[Path],
    edition: Edition,
    chosen: Chosen | None = None,
    validation_share: float | None = None,
    seed: int = 0,
    needed_splits: Sequence[str] = ("training", "validation"),
) -> Selection:
    """Find cases and check their headers, all of them, in seconds.

    Args:
        roots: what holds the data, in any of the layouts of ``verse_utils.catalogue``.
        edition: of VerSe: 19, 20 or both.
        chosen: which cases are wanted; all by default. One that ``goes_on`` leaves cases out, another raises.
        validation_share: share of the training patients that are moved to validation, where there is no such split.
        seed: of that draw, and of the splits of data that tells none.
        needed_splits: that training needs cases of; folds of a cross-validation need no validation split.

    Raises:
        UserError: no case, a glob that matches none, no case of a needed split that can be used though all cases are
            wanted, or a fault that is not to be left out.
    """
    chosen = chosen or Chosen()
    places = ", ".join(map(str, roots))
    cases = list_cases(roots, edition, chosen, seed)
    chosen.check_used(places)
    if validation_share is not None:
        cases = _with_validation(cases, validation_share, seed, places)
    selection = Selection(list(roots), [], left_out=unpaired(chosen))
    for case in cases:
        report, image = check_headers(case)
        if report.faults:
            selection.left_out.append(report)
        else:
            selection.cases.append(case)
            selection.images.append(image)
            selection.reports.append(report)
    if selection.left_out and not chosen.goes_on:
        raise UserError("; ".join(lines_of(selection.left_out, faults=True)))
    if not selection.cases:
        raise UserError(f"{places}: no case can be used: " + "; ".join(lines_of(selection.left_out, faults=True)))
    if chosen.is_everything:
        _check_splits(selection, cases, places, needed_splits)
    return selection


def unpaired(chosen: Chosen) -> list[CaseReport]:
    """Reports of the cases whose files don't pair."""
    reports = []
    for case_id, problem in chosen.problems.items():
        report = CaseReport(case_id, "")
        report.fault("pairing", f"{problem}; add what is missing, or remove what is double")
        reports.append(report)
    return reports


def _with_validation(cases: Sequence[Case], share: float, seed: int, places: str) -> list[Case]:
    """Cases with some of the training patients in validation."""
    if any(case.split == "validation" for case in cases):
        raise UserError(f"{places}: has validation cases already; leave --validation_share out")
    patients = {case.patient for case in cases if case.split == "training"}
    if len(patients) < 2:
        raise UserError(
            f"{places}: --validation_share needs two training patients, there are {len(patients)}; add some"
        )
    split_of = split_patients(patients, {"validation": share}, seed)
    moved = [replace(case, split=split_of[case.patient]) if case.split == "training" else case for case in cases]
    return sorted(moved, key=lambda case: (SPLITS.index(case.split), case.case_id))


_REMEDIES = {
    "training": "training needs some; name a folder of cases like dataset-verse19training",
    "validation": "training picks the best epoch by them; name a folder of cases like dataset-verse19validation, or "
    "run preprocessing.py with --validation_share 0.15, which draws them from the training patients",
}


def _check_splits(selection: Selection, cases: Sequence[Case], places: str, needed_splits: Sequence[str]) -> None:
    """Raise UserError unless each needed split has cases; training would refuse the H5."""
    for split in needed_splits:
        if any(case.split == split for case in selection.cases):
            continue
        found = sum(case.split == split for case in cases)
        if found:
            lines = lines_of([report for report in selection.left_out if report.split == split], faults=True)
            raise UserError(f"{places}: none of its {found} {split} cases can be used: " + "; ".join(lines))
        unpaired_lines = "".join(f"; {line}" for line in lines_of(selection.left_out, faults=True)[:3])
        raise UserError(f"{places}: has no {split} cases; {_REMEDIES[split]}{unpaired_lines}")


def find_all(root: Path, include: Sequence[str], exclude: Sequence[str]) -> tuple[list[Case], list[CaseReport]]:
    """Cases of all editions of VerSe, or of other data, and reports of those whose files don't pair.

    Raises:
        UserError: no case of any edition, or a glob that matches none.
    """
    cases: dict[Path, Case] = {}
    problems: dict[str, CaseReport] = {}
    choices, errors = [], []
    for edition in EDITIONS:
        chosen = Chosen(include, exclude, goes_on=True)
        try:
            cases |= {case.image_path: case for case in list_cases([root], edition, chosen)}
        except UserError as error:
            errors.append(error)
            continue
        problems |= {report.case_id: report for report in unpaired(chosen)}
        choices.append(chosen)
    if len(errors) == len(EDITIONS):
        raise errors[0]
    chosen.unmatched = set.intersection(*(choice.unmatched for choice in choices))
    chosen.check_used(root)
    return list(cases.values()), list(problems.values())
