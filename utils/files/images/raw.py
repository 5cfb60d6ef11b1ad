"""Voxels that lie in a file as they are, or packed, such as those of NRRD and MetaImage."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from verse_utils.errors import FileError
from verse_utils.files.unpacked import check_claim, count_bytes
from verse_utils.images import to_hu


@dataclass(frozen=True)
class RawImage:
    """A 3D image whose header was read.

    Attributes:
        file: that holds the voxels.
        start: of the voxels in the file; negative from its end.
        is_packed: whether they are packed by zlib or gzip.
        dtype: of the stored values.
        shape: (I, J, K) in stored order.
        affine: (4, 4), voxel indices to RAS mm.
        is_oriented: whether the header tells the directions of the axes; else they are a guess.
    """

    file: Path
    start: int
    is_packed: bool
    dtype: np.dtype
    shape: tuple[int, int, int]
    affine: np.ndarray
    is_oriented: bool

    def hu_slabs(self, shown: Path, start: int, stop: int, thickness: int) -> Iterator[tuple[int, np.ndarray]]:
        """The slabs of int16 HU, as ``verse_utils.images.hu_slabs``.

        Args:
            shown: named in errors.
            start, stop, thickness: slices along K.

        Raises:
            UserError: damaged; NaN or infinite values.
        """
        i, j, _ = self.shape
        try:
            with self._open() as stream:
                _skip(stream, i * j * start * self.dtype.itemsize)
                for first in range(start, stop, thickness):
                    count = min(thickness, stop - first)
                    values = np.frombuffer(stream.read(i * j * count * self.dtype.itemsize), self.dtype)
                    if first + count == self.shape[2]:
                        stream.read(1)  # only at its end, gzip's checksum tells that a bit was flipped
                    yield first, to_hu(values.reshape((i, j, count), order="F"), shown)
        except (OSError, ValueError, zlib.error) as error:
            raise FileError(f"{shown}: voxels can't be read ({error}); fetch the file again") from None

    def check_size(self, shown: Path) -> None:
        """Raise FileError unless the file holds as many voxels as claimed, before memory is taken for them."""
        claimed = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        try:
            with self._open() as stream:
                if self.is_packed:
                    held = count_bytes(stream, claimed)
                else:
                    held = os.fstat(stream.fileno()).st_size - stream.tell()
        except (OSError, zlib.error) as error:
            raise FileError(f"{shown}: voxels can't be read ({error}); fetch the file again") from None
        check_claim(shown, claimed, held, f"{self.shape} {self.dtype}", self.file.name)

    def _open(self) -> IO[bytes]:
        """The voxels' bytes, from the first on."""
        stream = self.file.open("rb")
        stream.seek(self.start, os.SEEK_SET if self.start >= 0 else os.SEEK_END)
        return io.BufferedReader(_Unpacked(stream)) if self.is_packed else stream


def _skip(stream: IO[bytes], count: int) -> None:
    if stream.seekable():
        stream.seek(count, os.SEEK_CUR)
        return
    while count > 0 and (block := stream.read(min(count, 1 << 20))):
        count -= len(block)


class _Unpacked(io.RawIOBase):
    """Bytes that zlib or gzip packed, as a stream."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._unpacker = packed, zlib.decompressobj(wbits=47)  # of either

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = b""
        while not data and (block := self._unpacker.unconsumed_tail or self._packed.read(1 << 16)):
            data = self._unpacker.decompress(block, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._packed.close()
        super().close()
