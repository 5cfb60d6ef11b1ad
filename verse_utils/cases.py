"""Find the cases of a VerSe folder and pair their files by id."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from verse_utils.errors import UserError
from verse_utils.names import CENTROIDS, CT, MASK, SPLITS, FileName, parse_dataset_folder, parse_file_name

# Scans in the official subject-based releases (Sekuboyina et al. 2021).
EXPECTED_COUNTS: dict[int, dict[str, int]] = {
    19: {"training": 80, "validation": 40, "test": 40},
    20: {"training": 61, "validation": 80, "test": 73},
}


@dataclass(frozen=True)
class Case:
    """One CT series with its vertebra mask.

    Attributes:
        case_id: subject, ``split-`` and ``dir-`` as in the file names.
        patient: the subject; a patient can have several cases.
        split: training, validation or test.
        image_path: the CT.
        mask_path: the vertebra mask on the CT's grid.
        centroid_path: the list of vertebral body centres, or None.
    """

    case_id: str
    patient: str
    split: str
    image_path: Path
    mask_path: Path
    centroid_path: Path | None = None


@dataclass(frozen=True)
class _Found:
    path: Path
    name: FileName
    split: str


def find_cases(root: Path, edition: int, exclude: Iterable[str] = ()) -> list[Case]:
    """Every case of one edition at or below ``root``, sorted by split and id.

    Args:
        root: a folder that holds VerSe's dataset folders at any depth, or is one.
        edition: 19 or 20. Folders that don't tell their edition count for both.
        exclude: case ids or subjects to leave out.

    Raises:
        UserError: no such folder, no case in it, files that don't pair, or two CTs of one id.

    Warns:
        UserWarning: fewer cases than the edition has, or a patient in two splits.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root}: no such file or folder; give the folder that holds rawdata and derivatives")
    if not root.is_dir():
        raise UserError(f"{root}: not a folder; give the folder that holds rawdata and derivatives")
    found, other_editions = _find_files(root.resolve(), edition)
    if not any(found.values()):
        others = f"; it holds VerSe{other_editions.pop()}: pass that as --dataset_edition" if other_editions else ""
        raise UserError(f"{root}: no case of VerSe{edition} (sub-*_ct.nii.gz below a dataset folder) found{others}")
    cases = _pair(found, set(exclude))
    if not cases:
        raise UserError(f"{root}: every case is excluded; shorten the list given to --exclude")
    _warn_about_counts(root, cases, edition)
    return sorted(cases, key=lambda case: (SPLITS.index(case.split), case.case_id))


def _find_files(root: Path, edition: int) -> tuple[dict[str, list[_Found]], set[int]]:
    """All VerSe files below ``root`` by kind (ct, mask, centroids), and the other editions met."""
    found: dict[str, list[_Found]] = defaultdict(list)
    other_editions: set[int] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders.sort()
        for file in sorted(files):
            name = parse_file_name(file)
            if name is None:
                continue
            dataset = parse_dataset_folder(Path(folder))
            if dataset is None:
                raise UserError(
                    f"{Path(folder) / file}: no folder above it tells the split; "
                    "put it below a folder named like dataset-verse19training"
                )
            split, found_edition = dataset
            if found_edition not in (None, edition):
                other_editions.add(found_edition)
                continue
            kind = "centroids" if name.kind in CENTROIDS else name.kind
            found[kind].append(_Found(Path(folder) / file, name, split))
    return found, other_editions


def _pair(found: dict[str, list[_Found]], exclude: set[str]) -> list[Case]:
    """Pair CTs, masks and centroid lists by id."""

    def by_scan(kind: str) -> dict[tuple[str, str | None], list[_Found]]:
        scans: dict[tuple[str, str | None], list[_Found]] = defaultdict(list)
        for file in found[kind]:
            if not exclude & {file.name.subject, file.name.case_id()}:
                scans[file.name.subject, file.name.split].append(file)
        return scans

    images, masks, centroids = by_scan(CT), by_scan(MASK), by_scan("centroids")
    problems: list[str] = []
    cases: list[Case] = []
    for scan in sorted({*images, *masks}, key=str):
        left_masks = list(masks[scan])
        for image in images[scan]:
            twins = [other for other in images[scan] if other.name.direction == image.name.direction]
            if len(twins) > 1:
                problems.append(f"two CTs of one id: {', '.join(str(twin.path) for twin in twins)}")
                left_masks.clear()
                break
            matches = _matches(image, left_masks, alone=len(images[scan]) == 1)
            if len(matches) != 1:
                several = f"{len(matches)} masks" if matches else "no mask"
                problems.append(f"{image.path}: {several} of this id")
                left_masks = [mask for mask in left_masks if mask not in matches]
                continue
            mask = matches[0]
            left_masks.remove(mask)
            lists = _matches(image, centroids[scan], alone=len(images[scan]) == 1)
            cases.append(
                Case(
                    case_id=image.name.case_id(direction=mask.name.direction),
                    patient=image.name.subject,
                    split=image.split,
                    image_path=image.path,
                    mask_path=mask.path,
                    centroid_path=lists[0].path if lists else None,
                )
            )
        problems += [f"{mask.path}: a mask without its CT" for mask in left_masks]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise UserError(f"{shown}; add what is missing, remove what is double, or leave cases out with --exclude ID")
    return cases


def _matches(image: _Found, candidates: list[_Found], alone: bool) -> list[_Found]:
    """Files of the CT's id; where the scan has one CT, `dir-` may be on one of the two names only."""
    exact = [file for file in candidates if file.name.direction == image.name.direction]
    if exact or not alone:
        return exact
    return [file for file in candidates if None in (file.name.direction, image.name.direction)]


def _warn_about_counts(root: Path, cases: list[Case], edition: int) -> None:
    counts = {split: sum(case.split == split for case in cases) for split in SPLITS}
    expected = EXPECTED_COUNTS[edition]
    if any(counts[split] < expected[split] for split in SPLITS):
        found = ", ".join(f"{counts[split]} of {expected[split]} {split}" for split in SPLITS)
        warnings.warn(f"{root}: not all of VerSe{edition}, but {found} cases", stacklevel=3)
    splits_of_patient: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        splits_of_patient[case.patient].add(case.split)
    for patient, splits in splits_of_patient.items():
        if len(splits) > 1:
            warnings.warn(f"{root}: {patient} is in {' and '.join(sorted(splits))}; scores are biased", stacklevel=3)
