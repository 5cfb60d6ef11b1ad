"""Files by what they hold, not by their names: bytes unpacked where they are packed, and how many there are."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
from pathlib import Path
from typing import IO

_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file's bytes, unpacked where it is gzip or bzip2. Raises OSError."""
    start = _start(path)
    if start.startswith(_GZIP):
        return gzip.open(path)  # type: ignore[return-value]
    return bz2.open(path) if start == _BZIP2 else path.open("rb")


def unpacked_size(path: Path, claimed: int) -> int:
    """Bytes of a file once it is unpacked, counted no further than to more than were claimed.

    Raises:
        OSError, EOFError, zlib.error: it can't be unpacked.
    """
    start = _start(path)
    if not start.startswith((_GZIP, _BZIP2)):
        return path.stat().st_size
    if start.startswith(_GZIP):
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            (told,) = struct.unpack("<I", file.read())  # by the last member, modulo 4 GiB (RFC 1952, 2.3.1)
        if told == claimed:
            return claimed
    held = 0
    with open_unpacked(path) as stream:
        while held <= claimed and (block := stream.read(1 << 20)):
            held += len(block)
    return held


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_BZIP2))
