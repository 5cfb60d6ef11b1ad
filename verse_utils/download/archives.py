"""Unpack zips that may be damaged or malicious: whole and aside, or not at all."""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath, PurePosixPath

from verse_utils.download.progress import Progress
from verse_utils.errors import BadArchiveError
from verse_utils.files.disk import in_units, require_free

# VerSe's largest zip has under a thousand members and some 13 GB, and its scans are compressed before they are zipped.
MOST_MEMBERS = 20_000
MOST_BYTES = 200 * 10**9
MOST_GROWTH = 20  # unpacked size over packed size; plain .nii would have about 3
_SMALL_BYTES = 2**24  # a zip may unpack to as much, whatever its own size

_NAME_BYTES = 200  # file systems allow 255, and a suffix is added while a file is written
_BLOCK_BYTES = 2**20
# What zipfile raises for damaged zips, besides its own error.
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    OverflowError,
    MemoryError,
    IndexError,
    KeyError,
)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into a new folder, and compare every CRC.

    Args:
        archive: the zip.
        folder: replaced if there is one; not there afterwards if the zip is bad.

    Raises:
        BadArchiveError: damaged, encrypted, without a scan, with links or paths that lead elsewhere, or too large.
        UserError: the disk has too little room.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with _opened(archive) as zipped:
            members = _checked_members(zipped, archive)
            total = sum(member.file_size for member, _ in members)
            require_free(folder, total, f"unpacking {archive.name}")
            with Progress(f"unpacking {archive.name}", total) as progress:
                for member, path in members:
                    _unpack_member(zipped, member, folder / path, progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def member_paths(archive: Path) -> list[PurePosixPath]:
    """Paths of the files in a zip. Raises BadArchiveError as ``unpack`` does, before anything is unpacked."""
    with _opened(archive) as zipped:
        return [path for _, path in _checked_members(zipped, archive)]


def safe_path(name: str) -> PurePosixPath:
    """The path of a file below the folder that a zip or a listing is unpacked to.

    Raises:
        BadArchiveError: absolute, with ``..`` or a drive, empty, or longer than file systems allow.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    harmless = path.parts and not path.is_absolute() and not {"..", ""} & set(path.parts) and "\0" not in name
    if not harmless or ":" in path.parts[0] or max(len(part.encode()) for part in path.parts) > _NAME_BYTES:
        raise BadArchiveError(f"holds {name[:80]!r}, a path that leads elsewhere or can't be written")
    return path


def require_scan(names: Iterable[PurePath]) -> None:
    """Raise BadArchiveError if no file is a NIfTI image."""
    if not any(path.name.endswith((".nii.gz", ".nii")) for path in names):
        raise BadArchiveError("holds no scan (.nii.gz)")


def require_size(members: int, size: int, packed: int) -> None:
    """Raise BadArchiveError if a zip of ``packed`` bytes holds too many members, or unpacks to too many bytes."""
    if members > MOST_MEMBERS:
        raise BadArchiveError(f"holds more than {MOST_MEMBERS} files")
    if size > min(MOST_BYTES, MOST_GROWTH * packed + _SMALL_BYTES):
        raise BadArchiveError(f"has {in_units(packed)} and would unpack to {in_units(size)} or more")


def _opened(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except FileNotFoundError:
        raise
    except _READ_ERRORS as error:
        raise BadArchiveError(f"no whole zip file ({error})") from None


def _checked_members(zipped: zipfile.ZipFile, archive: Path) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The files of a zip with their paths, after all checks that need no unpacking."""
    infos = zipped.infolist()
    require_size(len(infos), sum(info.file_size for info in infos), archive.stat().st_size)
    members = []
    for info in infos:
        path = safe_path(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadArchiveError(f"holds a link or device, {info.filename!r}")
        if info.flag_bits & 1:
            raise BadArchiveError(f"is encrypted ({info.filename!r})")
        if not info.is_dir():
            members.append((info, path))
    paths = {path for _, path in members}
    if len(paths) < len(members) or paths & {parent for path in paths for parent in path.parents}:
        raise BadArchiveError("holds two files of one path, or a file where a folder is")
    require_scan(paths)
    return members


def _unpack_member(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for block in _blocks(zipped, member):
            file.write(block)
            progress.add(len(block))


def _blocks(zipped: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """A member's bytes. Errors in reading are the zip's, errors in writing the disk's: they are told apart here."""
    try:
        with zipped.open(member) as source:
            size = 0
            while block := source.read(_BLOCK_BYTES):
                size += len(block)
                yield block
    except _READ_ERRORS as error:
        raise BadArchiveError(f"{member.filename}: {error or type(error).__name__}") from None
    if size != member.file_size:
        raise BadArchiveError(f"{member.filename}: {size} of {member.file_size} bytes")
