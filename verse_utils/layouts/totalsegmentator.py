"""TotalSegmentator's data set: ``s0001/ct.nii.gz`` and ``s0001/segmentations/vertebrae_L1.nii.gz``, a file a structure.

Source: github.com/wasserth/TotalSegmentator and the data set itself (10.5281/zenodo.6802613). ``meta.csv``, with
semicolons, has a row for each ``image_id`` with its ``split``: train, val or test. Versions 1, 2 and 3 differ in their
numbers, but not in the names of the vertebrae. Its sacrum is background here. Other than in VerSe, vertebrae that the
scan's end cuts are annotated. A few patients have several scans, but the data set doesn't tell which (issue 569).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from verse_utils.cases import Case, Chosen
from verse_utils.errors import UserError
from verse_utils.files.text import read_text
from verse_utils.layouts import NO_SPLIT, Layout, pair, put_in_split

_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def _is_at(folder: Path, subfolders: Sequence[str], files: Sequence[str]) -> bool:
    return any(_image(folder / name) and (folder / name / "segmentations").is_dir() for name in subfolders)


def _image(folder: Path) -> Path | None:
    return next((path for path in (folder / "ct.nii.gz", folder / "ct.nii") if path.exists()), None)


def _read(folder: Path, chosen: Chosen) -> list[Case]:
    splits = _read_meta(folder / "meta.csv")
    images, masks = {}, {}
    for subject in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if image := _image(subject):
            images[subject.name] = image
        if (subject / "segmentations").is_dir():
            masks[subject.name] = subject / "segmentations"
    cases: list[Case] = []
    problems: dict[str, str] = {}
    for name in pair(images, masks, chosen):
        split = splits.get(name, NO_SPLIT)
        case = Case(name, name, split, images[name], masks[name], data_set="TotalSegmentator", licence="CC BY 4.0")
        try:
            _ = case.mask_parts
        except UserError as error:
            problems[name] = str(error)
            continue
        cases.append(case)
    chosen.tell(problems)
    return cases


def _read_meta(path: Path) -> dict[str, str]:
    """Case -> split; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        table = read_text(path, "utf-8-sig")
        delimiter = max(";,", key=table.partition("\n")[0].count)  # spreadsheets may have saved it with commas
        rows = list(csv.DictReader(io.StringIO(table, newline=""), delimiter=delimiter))
        splits: dict[str, str] = {}
        for row in rows:
            if row["split"]:
                put_in_split(splits, row["image_id"], _SPLITS[row["split"].strip()], path)
        return splits
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(
            f"{path}: not a table of image_id;…;split (train, val, test) ({error!r}); fetch the file again"
        ) from None


LAYOUT = Layout("TotalSegmentator", "s0001/ct.nii.gz", _is_at, _read)
