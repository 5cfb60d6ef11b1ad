"""A table of cases, for data that lies in no layout that is known: ``--data_path cases.csv``.

    image,mask,split,patient,centroids,case,labels,licence,data_set
    scans/anna.nii.gz,masks/anna.nii.gz,training,anna,,,,,

Only ``image`` and ``mask`` are needed. Paths are relative to the table's folder; a mask may be a folder with a file for
each vertebra. ``split`` is training, validation or test (train and val will do). Without a patient, each case is one.
``labels`` names what the numbers of the mask mean: one of ``NUMBERINGS``, VerSe's if it is empty.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from verse_utils.cases import Case, Chosen
from verse_utils.errors import UserError, one_line
from verse_utils.layouts import NO_SPLIT, Layout, stem
from verse_utils.numberings import NUMBERINGS, VERSE

NEEDED = ("image", "mask")
COLUMNS = (*NEEDED, "split", "patient", "centroids", "case", "labels", "licence", "data_set")
_SPLITS = {
    "": NO_SPLIT,
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    "test": "test",
}
_ROLE = re.compile(r"_(ct|image|img|0000)\Z", re.IGNORECASE)
_NO_NAME = re.compile(r"[/\\\0]|^\.*\Z")


def _is_at(folder: Path, subfolders: Sequence[str], files: Sequence[str]) -> bool:
    return folder.suffix.lower() == ".csv" and folder.is_file()


def _read(path: Path, chosen: Chosen) -> list[Case]:
    cases: list[Case] = []
    problems: dict[str, str] = {}
    line_of: dict[str, int] = {}
    for line, row in read_rows(path):
        try:
            case = _read_row(path, row)
            if chosen.leaves_out(case.case_id, case.patient):
                continue
            if case.case_id in line_of:
                raise UserError(
                    f"the case {case.case_id} is in line {line_of[case.case_id]} too; name it by a column case"
                )
            _check_files(case)
        except UserError as error:
            problems[f"line {line}"] = f"{path}, line {line}: {error}"
            continue
        line_of[case.case_id] = line
        cases.append(case)
    chosen.tell(problems)
    return cases


def read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line and content of each row that holds anything; commas, semicolons or tabs separate.

    Raises:
        UserError: no table, or columns that are absent, double or unknown.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=header.count)
            reader = csv.DictReader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            names = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = [(reader.line_num, row) for row in reader if any(row.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: can't be read as a table ({error}); save it as CSV in UTF-8") from None
    absent = [name for name in NEEDED if name not in names]
    if absent or len(set(names)) < len(names):
        raise UserError(f"{path}: its first line must name the columns {', '.join(NEEDED)}, each once; got {header!r}")
    strange = sorted(set(names) - set(COLUMNS))
    if strange:
        raise UserError(f"{path}: unknown column {strange[0]!r}; known are {', '.join(COLUMNS)}")
    return [(line, {name: (value or "").strip() for name, value in row.items() if name}) for line, row in rows]


def _read_row(path: Path, row: dict[str, str]) -> Case:
    """A row's case; UserError without the place in the table."""
    for name in NEEDED:
        if not row[name]:
            raise UserError(f"no {name}")
    split, labels = row.get("split", "").lower(), row.get("labels", "").lower() or VERSE.name
    if split not in _SPLITS:
        raise UserError(f"split {split!r} is none of training, validation, test")
    if labels not in NUMBERINGS:
        raise UserError(f"labels {labels!r} are none of {', '.join(NUMBERINGS)}")
    image = path.parent / row["image"]
    case_id = row.get("case") or _ROLE.sub("", stem(image) or "")
    if _NO_NAME.search(case_id) or one_line(case_id) != case_id:
        raise UserError(f"{image}: no NIfTI file (.nii, .nii.gz), or no name for a case; name it by a column case")
    return Case(
        case_id,
        row.get("patient") or case_id,
        _SPLITS[split],
        image,
        path.parent / row["mask"],
        path.parent / row["centroids"] if row.get("centroids") else None,
        NUMBERINGS[labels],
        row.get("data_set") or one_line(path.stem),
        row.get("licence") or "not stated",
    )


def _check_files(case: Case) -> None:
    for file in (*case.files, *([case.centroid_path] if case.centroid_path else [])):
        if not file.exists():
            raise UserError(f"{file}: no such file")


LAYOUT = Layout("CSV", "cases.csv", _is_at, _read)
