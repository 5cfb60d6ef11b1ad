"""One process at a time in a run's folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from verse_utils.errors import UserError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is made if it is missing. The lock ends with its process, even if that is killed.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        holder = path.read_text(encoding="utf-8") or "another process"
        raise UserError(
            f"{folder}: {holder} holds this run; wait for it, stop it, or choose another --model_name"
        ) from None
    try:
        holder = f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M},"
        path.write_text(holder, encoding="utf-8")
        yield
    finally:
        lock.release()
