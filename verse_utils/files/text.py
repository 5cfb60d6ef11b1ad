"""Texts of users."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text in a file.

    Raises:
        OSError: there is none, or it can't be read.
        ValueError: a folder, a pipe that would be waited for, or a device; or another encoding than that.
    """
    if path.exists() and not path.is_file():
        raise ValueError("a folder, a pipe or a device")
    return path.read_text(encoding=encoding)
