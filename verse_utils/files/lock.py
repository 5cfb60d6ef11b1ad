"""One process at a time."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from verse_utils.errors import UserError

_PATIENCE_S = 1.0  # between two looks at the lock's folder, which its holder may remove
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems that have none


@contextmanager
def locked(path: Path, on_busy: Callable[[str], None]) -> Iterator[None]:
    """Be the only process that holds a lock.

    Its file is made with its folder, and removed at the end; so is the folder, if nothing else is in it.

    The system lifts the lock when the process ends, even if it is killed. On a file system without locks, there is
    none.

    Args:
        path: of the lock's file.
        on_busy: called once, with who holds the lock, if another process does: it raises an error, or returns to wait.

    Raises:
        UserError: the folder can't be made or written.
    """
    lock, own = FileLock(path), f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M},"
    try:
        _acquire(lock, path, on_busy)
        with suppress(OSError):  # on a full disk, the others are not told who it is
            path.write_text(own, encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            if lock.is_locked and path.read_text(encoding="utf-8") in ("", own):  # its folder may have been moved
                path.unlink()
                path.parent.rmdir()
        lock.release()


def _acquire(lock: FileLock, path: Path, on_busy: Callable[[str], None]) -> None:
    waits = False
    while not lock.is_locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # who held it has removed the folder since it was made here
                lock.acquire(timeout=_PATIENCE_S if waits else 0)
        except Timeout:
            if not waits:
                on_busy(_holder(path))
            waits = True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            reason = os.strerror(error.errno) if error.errno else error
            raise UserError(
                f"{path.parent}: can't be written ({reason}); choose another folder, or make it writable"
            ) from None


def _holder(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8") or "another process"
    return "another process"
