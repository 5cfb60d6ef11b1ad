"""Images in a ZIP archive, unpacked for as long as they are read."""

from __future__ import annotations

import posixpath
import shutil
import tempfile
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from utils.files.dicom.files import DicomFile
from utils.files.images.raw_headers import image_of_pair, is_raw_image, named_voxels
from verse_utils.errors import FileError


class UnpackedImage:
    """A temporary folder with an image of an archive; it vanishes with this object.

    Args:
        member: the image, or its header.

    Attributes:
        path: of the image in the folder.

    Raises:
        UserError: the archive is damaged, or the folder has no room.
    """

    def __init__(self, member: DicomFile) -> None:
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="spine-segmentation-", ignore_cleanup_errors=True)
        except OSError as error:
            reason = f"a temporary folder can't be made ({error.strerror}); name another folder in TMPDIR"
            raise FileError(f"{member}: {reason}") from None
        self.path = self._unpack(member)
        if voxels := _voxels_name(self.path):
            other = replace(member, member=posixpath.join(posixpath.dirname(member.member), voxels))
            with suppress(KeyError):  # it isn't there, which is said where the image is opened
                self._unpack(other)

    def _unpack(self, member: DicomFile) -> Path:
        path = Path(self._folder.name, member.name)
        try:
            with member.open() as packed, path.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        except (OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise FileError(f"{member}: can't be unpacked into {self._folder.name} ({reason})") from None
        return path


def _voxels_name(path: Path) -> str | None:
    """The name of the file in the same folder that holds an image's voxels; None where the image is one file."""
    if ".hdr" in path.name.lower():
        return image_of_pair(path).name
    name = named_voxels(path) if is_raw_image(path) else None
    return name if name == Path(name or "").name else None
