"""Files that may be DICOM, on disk or in a ZIP archive, and their headers."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

# A file that isn't packed by more than this stays in memory while its voxels are read from an archive.
_SPOOLED_BYTES = 16 * 2**20

# All that is read of a header; a header of 600 slices takes a third of the time so.
_KEYWORDS = (
    *("SOPClassUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    "FrameOfReferenceUID",
    *("SpecificCharacterSet", "Modality", "ImageType", "ConvolutionKernel", "MultienergyCTAcquisition"),
    *("VolumetricProperties", "VolumeBasedCalculationTechnique", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
)
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, order=True)
class DicomFile:
    """A file that may be DICOM.

    Attributes:
        path: of the file, or of the archive that it lies in.
        member: its name in that archive; "" outside of one.
    """

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return str(self.place / self.name)

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.member.rpartition("/")[2] or self.path.name

    @property
    def place(self) -> Path:
        """The folder that it lies in; of a member, as if the archive were a folder."""
        return (self.path / self.member.lstrip("/")).parent if self.member else self.path.parent

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Its bytes, from the first on. Raises OSError, or what ``zipfile`` and ``zlib`` raise on a damaged archive."""
        with _archive(self.path, os.getpid()).open(self.member) if self.member else self.path.open("rb") as stream:
            yield stream

    @contextmanager
    def open_whole(self) -> Iterator[IO[bytes]]:
        """The same, and going back in it is cheap also in an archive. Raises as ``open`` does."""
        with self.open() as stream:
            if not self.member:
                yield stream
                return
            with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as unpacked:
                shutil.copyfileobj(stream, unpacked)
                unpacked.seek(0)
                yield unpacked


@lru_cache(maxsize=4)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    """An opened archive, once in each process: forked ones would share its place in the file."""
    return zipfile.ZipFile(path)


def may_be_dicom(file: DicomFile) -> bool:
    """Whether the first bytes are those of DICOM: "DICM" after 128 bytes (PS3.10, 7.1), or a first element alone."""
    with file.open() as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or start[:4] in (b"\x08\0\x00\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x02\0\x00\0")


def read_header(file: DicomFile) -> Dataset:
    """Read what this project needs of a header, without the pixels.

    Raises:
        ValueError: the file ends before the pixels that its header claims.
        Exception: whatever pydicom raises on a damaged header.
    """
    be_quiet()
    with file.open() as stream:
        header = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(_KEYWORDS))
        if header.get("Rows") and transfer_syntax(header) != DeflatedExplicitVRLittleEndian:
            _check_pixels(header, stream)
    return header


def _check_pixels(header: Dataset, stream: IO[bytes]) -> None:
    """Raise ValueError unless the pixels that a header claims are there, before memory is taken for them."""
    is_implicit, is_little_endian = header.original_encoding
    start = stream.tell()
    element = stream.read(12)
    order: Any = "little" if is_little_endian else "big"
    tag = (int.from_bytes(element[:2], order), int.from_bytes(element[2:4], order))
    length = int.from_bytes(element[4:8] if is_implicit else element[8:12], order)
    held = stream.seek(0, os.SEEK_END) - start - (8 if is_implicit else 12)
    if tag != (0x7FE0, 0x0010) or held <= 0:
        raise ValueError("no pixels")
    voxels = int(header.Rows) * int(needed(header, "Columns")) * int(header.get("NumberOfFrames") or 1)
    if length != _UNDEFINED_LENGTH and voxels * int(needed(header, "BitsAllocated")) // 8 > min(length, held):
        raise ValueError("fewer pixels than claimed")


def optional(header: Dataset, keyword: str) -> Any:
    """What a header says under a keyword; None where it says nothing. Raises ValueError, which names the keyword."""
    try:
        value = header.get(keyword)
    except Exception:  # text for numbers, and whatever else pydicom can't read
        raise ValueError(f"{keyword} can't be read") from None
    return None if value == "" else value


def needed(header: Dataset, keyword: str) -> Any:
    """The same where it has to say something. Raises ValueError, which names the keyword."""
    value = optional(header, keyword)
    if value is None:
        raise ValueError(f"no {keyword}")
    return value


def needed_numbers(header: Dataset, keyword: str, count: int) -> np.ndarray:
    """(count,) numbers under a keyword. Raises ValueError, which names the keyword, where it has others."""
    value = needed(header, keyword)
    try:
        numbers = np.atleast_1d(np.array(value, float))
    except (ValueError, TypeError):
        raise ValueError(f"{keyword} can't be read") from None
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{keyword} {value}")
    return numbers


def transfer_syntax(header: Dataset) -> UID:
    """How a file is coded; where its head doesn't say so, as it was read."""
    if stated := header.file_meta.get("TransferSyntaxUID"):
        return UID(stated)
    return ImplicitVRLittleEndian if header.original_encoding[0] else ExplicitVRLittleEndian


def be_quiet() -> None:
    """Keep pydicom and highdicom from warning of headers, as our lines say what matters."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom|highdicom|utils\.files\.dicom")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
