"""Whether files are still those that something was made of: by their content, not by their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from verse_utils.download.checksums import file_digest


def describe_files(files: Iterable[Path], known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Size, time of the last change, and SHA-256 of files, by their names.

    Args:
        files: with names of their own.
        known: what this function returned before. A file with the same size and time is not read again, as no content
            changes without its time unless on purpose.

    Raises:
        FileNotFoundError: a file isn't there.
    """
    described = {}
    for path in files:
        status = path.stat()
        stamp = {"size": status.st_size, "modified_ns": status.st_mtime_ns}
        before = known.get(path.name, {})
        is_same = all(before.get(key) == value for key, value in stamp.items())
        described[path.name] = {**stamp, "sha256": before["sha256"] if is_same else file_digest(path, "sha256")}
    return described
