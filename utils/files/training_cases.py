"""Segmented scans as training cases: CTs and masks in VerSe's layout, and the table that preprocessing reads.

A folder of them holds, for the scan ``anna_1``:

    cases.csv
    dataset-verse19training/rawdata/sub-anna1/sub-anna1_ct.nii.gz
                                              sub-anna1_ct.json                     which scan it is
    dataset-verse19training/derivatives/sub-anna1/sub-anna1_seg-vert_msk.nii.gz     to be corrected by hand
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from utils.files.scans import open_scan
from verse_utils.errors import UserError
from verse_utils.files.disk import require_name, require_writable
from verse_utils.files.lock import locked
from verse_utils.files.writing import write_csv, write_json, written_aside
from verse_utils.layouts.table import read_rows
from verse_utils.names import CT, MASK

if TYPE_CHECKING:
    from utils.files.find_scans import ScanSource

TABLE = "cases.csv"
_DATA_SET = "dataset-verse19training"
# The numbering of masks, as the table names it, by the labels that a segmenter tells apart.
_NUMBERINGS = {"binary": "binary", "vertebrae": "verse"}
_NO_PART_OF_A_NAME = re.compile(r"[^A-Za-z0-9]+")
_ROLE = re.compile(r"^sub-|_(ct|image|img|0000)\Z", re.IGNORECASE)
_GZIP = b"\x1f\x8b"


class TrainingCase:
    """The files of one case; the paths say where a file belongs, not that it is there.

    Args:
        folder: of the cases.
        name: of the scan.

    Attributes:
        case_id: ``sub-`` and what VerSe's names allow of the scan's: letters and digits.
        image: the CT.
        mask: of its vertebrae, on the CT's grid.
        origin: which scan it is, as JSON.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.case_id = f"sub-{_NO_PART_OF_A_NAME.sub('', _ROLE.sub('', name))}"
        raw, derived = (folder / _DATA_SET / kind / self.case_id for kind in ("rawdata", "derivatives"))
        self.image = raw / f"{self.case_id}_{CT}.nii.gz"
        self.origin = raw / f"{self.case_id}_{CT}.json"
        self.mask = derived / f"{self.case_id}_{MASK}.nii.gz"

    def check_is_of(self, scan: Path) -> None:
        """Raise UserError where the case is that of another scan, or of nobody knows which."""
        of_scan = None
        with suppress(OSError, ValueError, LookupError, TypeError):
            of_scan = json.loads(self.origin.read_text(encoding="utf-8"))["scan"]
        is_there = any(path.exists() for path in (self.origin, self.image, self.mask))
        if is_there and of_scan != os.path.abspath(scan):
            other = f"of another scan, {of_scan}" if of_scan else f"of a scan that {self.origin} doesn't tell"
            raise UserError(f"{scan}: {self.image} is {other}; rename the scan, or choose another --as_dataset")

    def write(
        self, source: ScanSource, resample_series: bool, mask: Path, labels: str | None, overwrite: bool
    ) -> list[str]:
        """Write what is absent of the case, each file whole or not at all, and its line of the table.

        A mask that is there may have been corrected by hand: it stays unless it is to be overwritten.

        Args:
            source: the scan.
            resample_series: as it was opened with for the mask.
            mask: file of the mask that inference wrote of it.
            labels: that the mask holds: name of a ``LabelScheme``, None where it isn't known.
            overwrite: replace the CT and the mask.

        Returns:
            What the user should know, a line each.

        Raises:
            UserError: another scan's case has this name; labels that no numbering has; files can't be read or written.
        """
        numbering = check_labels(labels, source.path)
        with locked(self.image.parent / ".lock", _wait):
            self.check_is_of(source.path)
            write_json(self.origin, {"scan": os.path.abspath(source.path)})
            if overwrite or not self.image.exists():
                _write_image(source, resample_series, self.image)
            told = []
            if overwrite or not self.mask.exists():
                _copy(mask, self.mask)
            elif not filecmp.cmp(mask, self.mask, shallow=False):
                told = [f"{self.mask}: stays, though it differs from {mask}; --overwrite replaces it"]
        self._add_to_table(numbering)
        return told

    def _add_to_table(self, numbering: str) -> None:
        """Add the case's line, if the table has none; those that are there stay as they are."""
        table = self.folder / TABLE
        image, mask = (path.relative_to(self.folder).as_posix() for path in (self.image, self.mask))
        with locked(self.folder / ".lock", _wait):
            rows = [row for _, row in read_rows(table)] if table.exists() else []
            if image not in [row["image"] for row in rows]:
                row = {"image": image, "mask": mask, "split": "training", "labels": numbering}
                write_csv(table, [*rows, row])


def check_labels(labels: str | None, scan: Path) -> str:
    """The numbering of masks that hold the labels of a ``LabelScheme``; errors name the scan.

    Raises:
        UserError: none has them, or they aren't known.
    """
    if labels is None:
        raise UserError(f"{scan}: its result, of an older version, doesn't tell its labels; give --overwrite")
    if labels not in _NUMBERINGS:
        known = " or ".join(_NUMBERINGS)
        raise UserError(f"{scan}: no case can have the labels {labels}; take a segmenter of --labels {known}")
    return _NUMBERINGS[labels]


def with_names_of_cases(sources: Sequence[ScanSource], folder: Path) -> list[ScanSource]:
    """The scans, with an error in those that can't be told from another one by the names of their cases.

    Raises:
        UserError: nothing can be written to the folder, or its table can't be read.
    """
    require_writable(folder, "--as_dataset", "folder")
    if (folder / TABLE).exists():
        read_rows(folder / TABLE)
    checked: list[ScanSource] = []
    scan_of: dict[str, Path] = {}
    for source in sources:
        case = TrainingCase(folder, source.name)
        name = case.case_id.lower()  # not all file systems tell capitals from small letters
        try:
            if name == "sub-":
                raise UserError(f"{source.path}: no letter from a to z and no digit for a case's name; rename the scan")
            if name in scan_of:
                raise UserError(f"{source.path}: would be {case.case_id}, as {scan_of[name]} is; rename one of them")
            require_name(folder, case.mask.name, source.path)
            case.check_is_of(source.path)
            scan_of[name] = source.path
        except UserError as error:
            source = replace(source, error=source.error or str(error))
        checked.append(source)
    return checked


def _write_image(source: ScanSource, resample_series: bool, path: Path) -> None:
    """Copy a packed NIfTI; write any other scan as one.

    No hard link: a viewer that saves the case's CT would change the user's scan.
    """
    if source.member is None and not source.files and _is_packed_nifti(source.path):
        _copy(source.path, path)
    else:
        open_scan(source, resample_series).save_hu(path)


def _is_packed_nifti(path: Path) -> bool:
    if not path.name.endswith(".nii.gz"):
        return False
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _copy(path: Path, to: Path) -> None:
    with written_aside(to) as aside:
        shutil.copyfile(path, aside)


def _wait(holder: str) -> None:
    """Another command writes the same: its turn ends soon."""
