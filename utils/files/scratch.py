"""Volumes that need not fit into memory: a file of chunks, not compressed, that vanishes with the process."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.constants import SLAB_SLICES
from verse_utils.files.disk import require_free

if TYPE_CHECKING:
    import h5py

# Of each volume. Chunks that are written in part stay in memory until they are whole: a layer of them in a spine's box.
_CACHE_BYTES = 8 * 2**20
_CHUNK_SHAPE = (64, 64, SLAB_SLICES)


def return_freed_memory() -> None:
    """Have the C library return to the system what was freed, where it can.

    glibc keeps arrays below 32 MiB that were freed for later ones, in fragments that grow with every slab of a scan.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class Scratch:
    """A temporary file of volumes, in the folder that ``TMPDIR`` names; even a kill leaves nothing behind."""

    def __init__(self) -> None:
        import h5py

        self._bytes = tempfile.TemporaryFile()  # noqa: SIM115 - as long as its volumes are used
        self._file = h5py.File(self._bytes, "w", rdcc_nbytes=_CACHE_BYTES, rdcc_w0=0)
        self._needed_bytes = 0

    def volume(self, name: str, shape: Sequence[int], dtype: Any, fill: float = 0) -> h5py.Dataset:
        """A new volume that is read and written by slices, as an array is.

        Args:
            name: unique in this file.
            shape: (X, Y, Z).
            dtype: of its voxels.
            fill: value of voxels that were not written.

        Raises:
            UserError: all volumes together may not fit the folder.
        """
        self._needed_bytes += int(np.prod(shape)) * np.dtype(dtype).itemsize
        lacking = self._needed_bytes - os.fstat(self._bytes.fileno()).st_size
        require_free(Path(tempfile.gettempdir()), lacking, "a temporary file", "name a larger folder in TMPDIR")
        chunk_shape = tuple(int(n) for n in np.minimum(_CHUNK_SHAPE, shape))
        return self._file.create_dataset(name, tuple(shape), dtype, chunks=chunk_shape, fillvalue=fill)
