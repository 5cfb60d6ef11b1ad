"""A file that HDF5 may write to though its disk becomes full."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class H5Target(io.FileIO):
    """A file for ``h5py.File``. HDF5 crashes where a write fails, so a failure is kept in ``error``, and not raised.

    What is written after it is lost: whoever writes must look.

    Args:
        file: path, or number of an open file.

    Attributes:
        error: the first failure; None where there was none.
    """

    def __init__(self, file: Path | int) -> None:
        super().__init__(file, "w+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the bytes, not only those that have room at once."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        with self._kept():
            while rest:
                rest = rest[super().write(rest) :]
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size."""
        with self._kept():
            return super().truncate(size)
        return size or 0

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
