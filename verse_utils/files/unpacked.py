"""Files by what they hold, not by their names: bytes unpacked where they are packed, and how many there are."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
from pathlib import Path
from typing import IO

from verse_utils.errors import FileError

_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file's bytes, unpacked where it is gzip or bzip2, and again where it was packed by gzip twice.

    Raises:
        OSError, EOFError, zlib.error: it can't be opened, or unpacked from the start.
    """
    start = _start(path)
    if start.startswith(_GZIP):
        stream = gzip.open(path)  # noqa: SIM115 - the caller's to close
        return gzip.open(stream) if stream.peek(2).startswith(_GZIP) else stream  # type: ignore[return-value]
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
    with open_unpacked(path) as stream:
        return count_bytes(stream, claimed)


def count_bytes(stream: IO[bytes], claimed: int) -> int:
    """Bytes of a stream, counted no further than to more than were claimed."""
    held = 0
    while held <= claimed and (block := stream.read(1 << 20)):
        held += len(block)
    return held


def check_claim(shown: Path, claimed: int, held: int, voxels: str, holder: str = "the file") -> None:
    """Raise FileError unless an image holds as many bytes as its header claims, before memory is taken for them.

    Args:
        shown: path of the image, for the message.
        claimed, held: bytes.
        voxels: their shape and dtype, for the message.
        holder: what holds them, where it isn't the file that is shown.
    """
    if held != claimed:
        holds = f"holds more than {claimed}" if held > claimed else f"holds {held}"
        raise FileError(
            f"{shown}: voxels can't be read (its header claims {claimed} bytes for {voxels}, {holder} {holds}); "
            "fetch the file again"
        )


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_BZIP2))
