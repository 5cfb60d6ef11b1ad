"""Room on a disk, and whether it can be written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

from verse_utils.errors import UserError


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that a path is on, or would be on."""
    existing = next(folder for folder in (path, *path.absolute().parents) if os.path.exists(folder))
    return shutil.disk_usage(existing).free


def used_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder, hidden ones too; other processes may be changing them."""
    size = os.path.getsize(path) if os.path.isfile(path) else 0  # Path's raise for long names
    for below, _, files in os.walk(path):
        for name in files:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(below, name)).st_size
    return size


def require_free(path: Path, needed: float, purpose: str, remedy: str = "make room, or choose another folder") -> None:
    """Raise UserError if fewer than ``needed`` bytes are free where ``path`` is, or would be.

    Args:
        path: named in the message.
        needed: bytes, which may be an estimate.
        purpose: what takes them, for the message.
        remedy: what the user can do.
    """
    free = free_bytes(path)
    if free < needed:
        raise UserError(f"{path}: {purpose} takes about {in_units(needed)}, and {in_units(free)} are free; {remedy}")


def require_writable(target: Path, option: str, kind: Literal["file", "folder"]) -> None:
    """Raise UserError before any work where its results can't be written after it.

    Args:
        target: a file, which is left as it is; or a folder, which is made.
        option: that names the target, for the message.
        kind: of the target.
    """
    try:
        if kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
        elif target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=target if kind == "folder" else target.parent):
            pass
    except OSError as error:
        raise UserError(f"{option} {target}: can't be written ({error.strerror}); choose another {kind}") from None


def require_name(folder: Path, name: str, scan: Path) -> None:
    """Raise UserError before any work where a file of a scan's results can't have its name.

    Args:
        folder: that it is written to, as ``written_aside`` does; it is there.
        name: of the file; too long, or with characters that the folder's disk doesn't take.
        scan: that is named in the message.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", suffix=".partial"):
            pass
    except OSError as error:
        reason = f"{error.strerror}; rename the scan, or choose another folder"
        raise UserError(f"{scan}: {folder / name} can't be written: {reason}") from None


def in_units(count: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
