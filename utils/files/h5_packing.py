"""One H5 of all cases: those that ``preprocessing.py`` wrote as a file each are put into ``NAME.h5`` itself.

``NAME.h5`` is written aside, with the compressed chunks as they are, brought to disk, and renamed. Only then do the
files of the cases go. Whatever kills this, each finished case is in ``NAME.h5`` or in a file of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from utils.files.h5_cases import (
    CASE_GROUP,
    DAMAGE,
    SCHEMA_VERSION,
    MadeOf,
    Name,
    case_file,
    h5_written_aside,
    header_of,
    read_made_of,
)
from utils.tasks import Task
from verse_utils.errors import UserError
from verse_utils.files.disk import require_free
from verse_utils.files.lock import locked
from verse_utils.files.writing import bring_to_disk


@contextmanager
def only_writer(h5_path: Path) -> Iterator[None]:
    """Be the only run that writes an H5, and remove what runs that were killed left half-written.

    The folders of the H5 that are empty at the end are removed.

    Raises:
        UserError: another run writes this H5, or its folder can't be made.
    """
    folders = [h5_path.with_suffix(suffix) for suffix in (".cases", ".pictures")]

    def on_busy(holder: str) -> None:
        raise UserError(f"{h5_path}: {holder} is writing it; wait for its end")

    try:
        with locked(folders[0] / ".lock", on_busy):
            try:
                for path in _half_written(h5_path, folders):
                    path.unlink(missing_ok=True)
                yield
            finally:
                for folder in folders:
                    _remove_empty_folders(folder)
    finally:
        with suppress(OSError):
            h5_path.parent.rmdir()  # where it holds nothing


def _half_written(h5_path: Path, folders: Iterable[Path]) -> list[Path]:
    """The files that ``written_aside`` had begun when a run was killed."""
    target = Path(os.path.realpath(h5_path))
    beside = [path for path in target.parent.glob(".*") if path.name.startswith(f".{target.name}.")]
    below = [path for folder in folders for path in folder.rglob(".*")]
    return [path for path in (*beside, *below) if path.name.endswith(".partial")]


def _remove_empty_folders(folder: Path) -> None:
    for below, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(below)


def check_data_path(h5_path: Path, data_path: Sequence[str]) -> None:
    """Raise UserError where an H5 was made from another place of the same name, which is still there; or is no file."""
    if h5_path.exists() and not h5_path.is_file():
        raise UserError(f"{h5_path}: a folder or a device is in the way; move it, or choose another --output")
    with suppress(*DAMAGE), h5py.File(h5_path, "r") as file:
        before = json.loads(file.attrs["notes"])["data_path"]
        if before != list(data_path) and all(os.path.exists(path) for path in before):
            raise UserError(
                f"{h5_path}: was made from {', '.join(before)}, not from {', '.join(data_path)}; "
                "choose another --output, or remove it"
            )


def pack_cases(
    h5_path: Path, task: Task, settings: dict[str, Any], names: Sequence[Name], notes: dict[str, Any] | None = None
) -> None:
    """Make ``NAME.h5`` hold these cases and no others, and remove their files.

    A case in a file of its own replaces the one that ``NAME.h5`` holds. A case that ``NAME.h5`` holds and that is not
    among ``names`` becomes a file again, so that it is there when it is wanted again. Nothing is written where
    ``NAME.h5`` is what it should be.

    Args:
        h5_path: the ``NAME.h5``.
        task: that it is made for.
        settings: what the cases were made with.
        names: the (split, case id) of each; written by ``write_case``, or in ``NAME.h5`` already.
        notes: what else is to be known of them.

    Raises:
        UserError: the disk has not enough room, or a file can't be read or written.
    """
    header = header_of(task, settings, notes)
    held = held_cases(h5_path)
    files = {name: case_file(h5_path, *name) for name in names if case_file(h5_path, *name).exists()}
    new = {name: path for name, path in files.items() if read_made_of(path, CASE_GROUP) != held.get(name)}
    if new or held.keys() != set(names) or _header(h5_path) != header:
        _check_room(h5_path, new.values())
        _set_aside(h5_path, held.keys() - set(names))
        with h5_written_aside(h5_path, durable=True) as target:
            target.attrs.update(header)
            for name in names:
                _add(target, name, new.get(name), h5_path)
        bring_to_disk(h5_path.parent)
    for path in files.values():
        path.unlink()


def held_cases(h5_path: Path) -> dict[Name, MadeOf]:
    """The cases in an H5 and what they were made of; none where it is absent, damaged, or of another schema."""
    held = {}
    with suppress(*DAMAGE), h5py.File(h5_path, "r") as file:
        if file.attrs.get("schema_version") == SCHEMA_VERSION:
            for split in file:
                with suppress(*DAMAGE):
                    for case_id in file[split]:
                        with suppress(*DAMAGE):
                            held[split, case_id] = MadeOf.of_group(file[split][case_id])
    return held


def _header(h5_path: Path) -> dict[str, Any]:
    with suppress(*DAMAGE), h5py.File(h5_path, "r") as file:
        return dict(file.attrs)
    return {}


def _check_room(h5_path: Path, case_files: Iterable[Path]) -> None:
    needed = sum(path.stat().st_size for path in (h5_path, *case_files) if path.exists())
    require_free(h5_path, needed, "one file of all cases", "make room; the same command goes on from here")


def _set_aside(h5_path: Path, names: Iterable[Name]) -> None:
    """Write cases of an H5 as files of their own, unless they have one."""
    for split, case_id in names:
        path = case_file(h5_path, split, case_id)
        if not path.exists():
            with h5_written_aside(path, durable=True) as target, h5py.File(h5_path, "r") as file:
                file.copy(f"{split}/{case_id}", target, CASE_GROUP)


def _add(target: h5py.File, name: Name, path: Path | None, h5_path: Path) -> None:
    """Copy a case, its compressed chunks as they are, from its file or, where that is None, from the H5 before."""
    split, case_id = name
    group = target.require_group(split)
    with h5py.File(path or h5_path, "r") as file:
        file.copy(CASE_GROUP if path else f"{split}/{case_id}", group, case_id)
