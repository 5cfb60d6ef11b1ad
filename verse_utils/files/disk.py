"""Room on a disk."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from verse_utils.errors import UserError


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that a path is on, or would be on."""
    existing = next(folder for folder in (path, *path.absolute().parents) if os.path.exists(folder))
    return shutil.disk_usage(existing).free


def used_bytes(folder: Path) -> int:
    """Bytes of the files below a folder, which other processes may be changing."""
    size = 0
    for below, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(below, name)).st_size
    return size


def require_free(path: Path, needed: int, purpose: str) -> None:
    """Raise UserError if fewer than ``needed`` bytes are free where ``path`` is."""
    free = free_bytes(path)
    if free < needed:
        raise UserError(
            f"{path}: {purpose} takes {in_units(needed)}, and {in_units(free)} are free; "
            "make room, or choose another folder"
        )


def in_units(count: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
