"""Volumes that need not fit into memory: a file of chunks, not compressed, that vanishes with the process."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from utils.constants import SLAB_SLICES
from utils.files.h5_target import H5Target
from verse_utils.errors import UserError
from verse_utils.files.disk import require_free

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


class Volume(h5py.Dataset):  # type: ignore[misc]  # it has no types
    """A volume of a ``Scratch``. Reading and writing raise UserError once anything could not be written."""

    def __init__(self, dataset: h5py.Dataset, target: H5Target) -> None:
        super().__init__(dataset.id)
        self._target = target

    def __getitem__(self, *arguments: Any, **options: Any) -> Any:
        """As of an array."""
        values = super().__getitem__(*arguments, **options)
        self._check()
        return values

    def __setitem__(self, *arguments: Any) -> None:
        """As of an array."""
        super().__setitem__(*arguments)
        self._check()

    def _check(self) -> None:
        if self._target.error is not None:
            raise _unwritten(self._target.error)


def _unwritten(error: OSError) -> UserError:
    where = f" {error.filename}" if error.filename else ""
    return UserError(f"a temporary file{where} can't be written ({error.strerror}); name another folder in TMPDIR")


class Scratch:
    """A temporary file of volumes, in the folder that ``TMPDIR`` names; even a kill leaves nothing behind.

    Raises:
        UserError: it can't be made.
    """

    def __init__(self) -> None:
        try:
            with tempfile.TemporaryFile() as file:
                self._target = H5Target(os.dup(file.fileno()))
        except OSError as error:
            raise _unwritten(error) from None
        self._file = h5py.File(self._target, "w", rdcc_nbytes=_CACHE_BYTES, rdcc_w0=0)
        self._needed_bytes = 0

    def volume(self, name: str, shape: Sequence[int], dtype: Any, fill: float = 0) -> Volume:
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
        lacking = self._needed_bytes - os.fstat(self._target.fileno()).st_size
        require_free(Path(tempfile.gettempdir()), lacking, "a temporary file", "name a larger folder in TMPDIR")
        chunk_shape = tuple(int(n) for n in np.minimum(_CHUNK_SHAPE, shape))
        made = self._file.create_dataset(name, tuple(shape), dtype, chunks=chunk_shape, fillvalue=fill)
        return Volume(made, self._target)
