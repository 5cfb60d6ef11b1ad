"""Find the cases of a VerSe folder, those that are wanted, and pair their files by id."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from verse_utils.editions import EXPECTED_COUNTS
from verse_utils.errors import UserError
from verse_utils.files.walk import walk
from verse_utils.labels import ANATOMICAL_ORDER
from verse_utils.names import CENTROIDS, CT, MASK, SPLITS, FileName, parse_dataset_folder, parse_file_name
from verse_utils.numberings import VERSE, Numbering, vertebra_label

# Lower numbers of VerSe20 are scans of VerSe19 again (the data's owner in github.com/anjany/verse, issue 1).
FIRST_OF_VERSE20 = 500

DATA_SET = "VerSe"
LICENCE = "CC BY-SA 4.0"  # github.com/anjany/verse
GL_LICENCE = f"{LICENCE}; users say CC BY-NC-ND"  # of the 30 scans sub-gl*


class Chosen:
    """Which cases are wanted; readers of layouts ask it for each case, and tell it of files that make none.

    Args:
        include: globs of case ids or patients, such as ``sub-gl*``; all cases if there are none.
        exclude: globs of those to leave out.
        goes_on: keep in mind what is wrong with files instead of raising an error for it.

    Attributes:
        problems: case id -> what is wrong with its files; filled if it ``goes_on``.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = (), goes_on: bool = False) -> None:
        self._globs = {"--include": tuple(include), "--exclude": tuple(exclude)}
        self.unmatched = {(flag, glob) for flag, globs in self._globs.items() for glob in globs}
        self.goes_on = goes_on
        self.problems: dict[str, str] = {}

    @property
    def is_everything(self) -> bool:
        """Whether no case was chosen by hand."""
        return not any(self._globs.values())

    def leaves_out(self, case_id: str, patient: str) -> bool:
        """Whether a case is not wanted."""
        is_included = self._match("--include", case_id, patient) or not self._globs["--include"]
        is_excluded = self._match("--exclude", case_id, patient)
        return is_excluded or not is_included

    def _match(self, flag: str, *names: str) -> bool:
        matching = {(flag, glob) for glob in self._globs[flag] if any(fnmatchcase(name, glob) for name in names)}
        self.unmatched -= matching
        return bool(matching)

    def tell(self, problems: Mapping[str, str]) -> None:
        """Take note of cases whose files don't pair: id -> what is wrong. Raises UserError unless it is to go on."""
        if problems and not self.goes_on:
            shown = "; ".join([*problems.values()][:5])
            shown += f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            remedy = "add what is missing, remove what is double, or leave cases out with --exclude ID"
            raise UserError(f"{shown}; {remedy}")
        self.problems |= problems

    def check_used(self, place: object) -> None:
        """Raise UserError for a glob that no case matched; after all cases of ``place`` were asked for."""
        for flag, glob in sorted(self.unmatched):
            raise UserError(f"{place}: {flag} {glob} matches no case or patient; correct it or remove it")


@dataclass(frozen=True)
class Case:
    """One CT series with its vertebra mask.

    Attributes:
        case_id: subject, ``split-`` and ``dir-`` as in the file names.
        patient: the subject; a patient can have several cases.
        split: training, validation or test.
        image_path: the CT.
        mask_path: the vertebra mask on the CT's grid: a file, or a folder with a file for each vertebra, named like
            ``vertebrae_L1.nii.gz``.
        centroid_path: the list of vertebral body centres, or None.
        numbering: what the numbers in the mask mean; of no account where each vertebra has a file.
        data_set: that the case is of, such as "VerSe19".
        licence: under which the data set is published.
    """

    case_id: str
    patient: str
    split: str
    image_path: Path
    mask_path: Path
    centroid_path: Path | None = None
    numbering: Numbering = VERSE
    data_set: str = ""
    licence: str = ""

    @property
    def mask_parts(self) -> list[tuple[Path, int]]:
        """The files of a mask that has one for each vertebra, with VerSe's label of it, from head to foot; else none.

        Raises:
            UserError: two files of one vertebra, or none of any.
        """
        if not self.mask_path.is_dir():
            return []
        parts: dict[int, Path] = {}
        for path in sorted(self.mask_path.iterdir()):
            label = vertebra_label(path.name.removesuffix(".gz").removesuffix(".nii"))
            if label is None or not path.name.endswith((".nii", ".nii.gz")):
                continue
            if label in parts:
                raise UserError(f"{path}: the same vertebra as {parts[label].name}; remove one of them")
            parts[label] = path
        if not parts:
            raise UserError(f"{self.mask_path}: no mask of a vertebra (vertebrae_L1.nii.gz, …) in this folder")
        return [(parts[label], label) for label in ANATOMICAL_ORDER if label in parts]

    @property
    def files(self) -> list[Path]:
        """All files that the case's image and label are made from."""
        return [self.image_path, *([path for path, _ in self.mask_parts] or [self.mask_path])]


@dataclass(frozen=True)
class _Found:
    path: Path
    name: FileName
    split: str
    edition: int | None


def find_cases(root: Path, edition: int, chosen: Chosen | None = None) -> list[Case]:
    """Every case of one edition at or below ``root``, sorted by split and id.

    Args:
        root: a folder that holds VerSe's dataset folders at any depth, or is one.
        edition: 19 or 20. Folders that don't tell their edition count for both.
        chosen: which cases are wanted; all by default.

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
        remedy = "give a folder in one of the layouts of docs/data.md, or a CSV table"
        if other_editions:
            remedy = f"it holds VerSe{other_editions.pop()}: pass that as --dataset_edition"
        raise UserError(f"{root}: no case of VerSe{edition} (sub-*_ct.nii.gz below a dataset folder) found; {remedy}")
    chosen = chosen or Chosen()
    cases = _pair(found, chosen)
    if not cases:  # none is wanted, or none has its files
        return []
    _warn_about_counts(root, cases, edition)
    return sorted(cases, key=lambda case: (SPLITS.index(case.split), case.case_id))


def _is_of_verse19(case: Case) -> bool:
    """Whether a scan's number is one of VerSe19's, which VerSe20 repeats in the MICCAI layout."""
    number = re.search(r"verse(\d+)(?:_dir-\w+)?$", case.case_id)
    return number is not None and int(number[1]) < FIRST_OF_VERSE20


def _find_files(root: Path, edition: int) -> tuple[dict[str, list[_Found]], set[int]]:
    """All VerSe files below ``root`` by kind (ct, mask, centroids), and the other editions met."""
    found: dict[str, list[_Found]] = defaultdict(list)
    other_editions: set[int] = set()
    for folder, _, files in walk(root):
        for file in files:
            name = parse_file_name(file)
            if name is None:
                continue
            dataset = parse_dataset_folder(folder)
            if dataset is None:
                raise UserError(
                    f"{folder / file}: no folder above it tells the split; "
                    "put it below a folder named like dataset-verse19training"
                )
            split, found_edition = dataset
            if found_edition not in (None, edition):
                other_editions.add(found_edition)
                continue
            kind = "centroids" if name.kind in CENTROIDS else name.kind
            found[kind].append(_Found(folder / file, name, split, found_edition))
    return found, other_editions


def _pair(found: dict[str, list[_Found]], chosen: Chosen) -> list[Case]:
    """Pair CTs, masks and centroid lists by id."""

    def by_scan(kind: str) -> dict[tuple[str, str | None], list[_Found]]:
        scans: dict[tuple[str, str | None], list[_Found]] = defaultdict(list)
        for file in found[kind]:
            if not chosen.leaves_out(file.name.case_id(), file.name.subject):
                scans[file.name.subject, file.name.split].append(file)
        return scans

    images, masks, centroids = by_scan(CT), by_scan(MASK), by_scan("centroids")
    problems: dict[str, str] = {}
    cases: list[Case] = []
    for scan in sorted({*images, *masks}, key=str):
        left_masks = list(masks[scan])
        for image in images[scan]:
            twins = [other for other in images[scan] if other.name.direction == image.name.direction]
            if len(twins) > 1:
                paths = ", ".join(str(twin.path) for twin in twins)
                problems[image.name.case_id()] = f"two CTs of one id: {paths}"
                left_masks.clear()
                break
            matches = _matches(image, left_masks, alone=len(images[scan]) == 1)
            if len(matches) != 1:
                several = f"{len(matches)} masks" if matches else "no mask"
                problems[image.name.case_id()] = f"{image.path}: {several} of this id"
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
                    data_set=DATA_SET if image.edition is None else f"{DATA_SET}{image.edition}",
                    licence=GL_LICENCE if image.name.subject.startswith("sub-gl") else LICENCE,
                )
            )
        for mask in left_masks:
            known = problems.get(mask.name.case_id())
            told = f"{mask.path}: a mask without its CT"
            problems[mask.name.case_id()] = f"{known}; {told}" if known else told
    chosen.tell(problems)
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
    repeated = [case.case_id for case in cases if case.data_set == "VerSe20" and _is_of_verse19(case)]
    if repeated:
        numbers = f"{len(repeated)} of its VerSe20 scans have numbers under {FIRST_OF_VERSE20}"
        warnings.warn(f"{root}: {numbers}, as VerSe19's: these are the same scans", stacklevel=3)
    splits_of_patient: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        splits_of_patient[case.patient].add(case.split)
    for patient, splits in splits_of_patient.items():
        if len(splits) > 1:
            warnings.warn(f"{root}: {patient} is in {' and '.join(sorted(splits))}; scores are biased", stacklevel=3)
