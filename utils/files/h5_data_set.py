"""One or several H5 files of preprocessed cases, read as one data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.files.h5_cases import H5Cases, Name, StoredCase, canonical_json
from utils.preprocessing_settings import data_name
from utils.tasks import Task
from verse_utils.cases import DATA_SET
from verse_utils.catalogue import is_verse
from verse_utils.errors import UserError
from verse_utils.splits import Member, join


class H5DataSet:
    """Read access to the cases of one or several H5 files: no scan twice, no patient in two splits.

    ``verse_utils.splits.join`` says which case stays and what it is called; the file that is named first decides.

    Args:
        paths: the files, at least one.
        task: that they must have been made for; any one if None.

    Attributes:
        files: each for itself.
        settings: of the preprocessing, the same for all.
        name: the paths, for messages.

    Raises:
        UserError: as of ``H5Cases``; or the files were not made with the same settings, or have a scan in two splits.

    Warns:
        UserWarning: scans that two files hold.
    """

    def __init__(self, paths: Sequence[Path], task: Task | None = None) -> None:
        self.files = [H5Cases(path, task) for path in paths]
        self.settings = self.files[0].settings
        self.name = ", ".join(str(file.path) for file in self.files)
        self._check_alike()
        # Where each case is stored, and what it is called here if the rule has changed that.
        self._stored: dict[Name, tuple[H5Cases, Name]] = {}
        self._renamed: dict[Name, Member] = {}
        if len(self.files) == 1:
            self._stored = {name: (self.files[0], name) for name in self.files[0].names}
        else:
            self._join()

    def _check_alike(self) -> None:
        first = self.files[0]
        for file in self.files[1:]:
            for name in first.settings | file.settings:
                wanted, found = first.settings.get(name), file.settings.get(name)
                if wanted != found:
                    raise UserError(
                        f"{file.path}: made with {name} {found}, but {first.path} with {wanted}; "
                        "give files that preprocessing.py made with the same settings"
                    )

    def _join(self) -> None:
        members: list[Member] = []
        for file in self.files:
            joined = join(members, [_member(file, name) for name in file.names], _name(file), str(file.path))
            for name, member in zip(file.names, joined, strict=True):
                if member is not None:
                    members.append(member)
                    self._stored[member.split, member.case_id] = file, name
                    self._renamed[member.split, member.case_id] = member

    def case_ids(self, split: str) -> list[str]:
        """Ids of a split's cases, sorted."""
        return sorted(case_id for its_split, case_id in self._stored if its_split == split)

    def case(self, split: str, case_id: str) -> StoredCase:
        """What is stored of a case besides its arrays, by the names and in the split that it has here."""
        file, name = self._stored[split, case_id]
        case, member = file.case(*name), self._renamed.get((split, case_id))
        return case if member is None else replace(case, case_id=case_id, patient=member.patient, split=split)

    def read(self, split: str, case_id: str, where: tuple[slice, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Image (int16 HU) and label (uint8, raw) of a case, or of a part of it."""
        file, name = self._stored[split, case_id]
        return file.read(*name, where)

    def foreground_vox(self, split: str, case_id: str) -> np.ndarray:
        """(N, 3) int16 foreground voxels, as ``H5Cases.foreground_vox``."""
        file, name = self._stored[split, case_id]
        return file.foreground_vox(*name)

    def fingerprint(self) -> str:
        """Hash of what the cases were made from and how: the same for copies, and for one file of the same cases."""
        cases: dict[str, Any] = {}
        for (split, case_id), (file, name) in self._stored.items():
            made_of = file.made_of(*name)
            cases[f"{split}/{case_id}"] = [made_of.source, made_of.settings]
        return hashlib.sha256(canonical_json(cases).encode()).hexdigest()


def _member(file: H5Cases, name: Name) -> Member:
    """What the rule of ``join`` needs to know; images of one checksum are one scan's."""
    case = file.case(*name)
    verse = is_verse(case.data_set)
    return Member(
        case.case_id,
        case.patient,
        case.split,
        scan=file.scan(*name),
        person=(DATA_SET if verse else case.data_set, case.patient),
        is_verse=verse,
        data_set=case.data_set,
        place=f"{file.path}: {case.split}/{case.case_id}",
    )


def _name(file: H5Cases) -> str:
    """The name of the folders that a file was made from, which stays when the file is renamed."""
    return data_name(map(Path, file.notes.get("data_path", ()))) or file.path.stem
