"""Files that are whole or absent."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from verse_utils.errors import DiskError, one_line


@contextmanager
def written_aside(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place on success and is removed on failure.

    The file is on disk before it takes its place, so that a loss of power leaves the one or the other. A link at
    ``path`` stays: what it points to is written.

    Args:
        path: of the file.
        keep: new name for the file, or link, that is at ``path`` until now; without it, that is replaced.

    Raises:
        DiskError: an OSError in the body, which is to do nothing but write: the disk is full, the folder read-only.
    """
    path = Path(path)
    target = path if keep else Path(os.path.realpath(path))
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            bring_to_disk(aside)
            if keep is not None and target.exists():
                os.replace(target, keep)
            os.replace(aside, target)
            with suppress(OSError):  # some file systems can't do it for a folder
                bring_to_disk(target.parent)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        where = error.filename2 or path  # a file that is to be kept is renamed first
        raise DiskError(f"{where}: can't be written ({reason}); make room, or choose another folder") from None


def bring_to_disk(path: Path) -> None:
    """Have the system write a file, or the names in a folder, so that a power cut loses neither."""
    if os.name != "posix" and path.is_dir():
        return  # where folders can't be opened
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_json(path: Path, content: Any) -> None:
    """Write JSON (no NaN, no infinity), whole or not at all. Raises UserError where it can't be written."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, a line each, under the names of all their values, whole or not at all. Raises UserError."""
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(
            {name: one_line(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows
        )
