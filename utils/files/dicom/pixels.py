"""What the pixels of a DICOM slice mean: from stored words to HU, or why that can't be told.

PS3.3: C.7.6.3 Image Pixel, C.7.5.1.1.2 Pixel Padding Value, C.11.1 Modality LUT, C.8.2.1 CT Image,
C.8.15.3.10 CT Pixel Value Transformation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any, NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from utils.files.dicom.files import be_quiet, needed, needed_numbers, optional, transfer_syntax

# Padding is no part of the image; it becomes what surrounds a body. CT numbers of 12 bits begin here.
PADDING_HU = -1024

# One decoder for each transfer syntax, whichever others are installed. High-throughput JPEG 2000 has OpenJPEG alone.
_DECODERS = {
    RLELossless: "pydicom",
    **dict.fromkeys((JPEGBaseline8Bit, JPEGLossless, JPEGLosslessSV1), "gdcm"),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000), "gdcm"),
}


class ModalityLut(NamedTuple):
    """A table of what stored values mean.

    Attributes:
        first: the value of the first entry; lower ones mean the same, and higher ones than the last what that means.
        table: (N,) uint16; slices with the same share it.
        unit: HU, or another of PS3.3, C.11.1.1.2; None where it is missing.
    """

    first: int
    table: np.ndarray
    unit: str | None


@dataclass(frozen=True)
class PixelMeaning:
    """How stored words become HU.

    Attributes:
        bits_allocated, bits_stored, high_bit, is_signed: of a word; as in the header.
        is_decoded: whether the decoder gives numbers, as those of JPEG 2000 and JPEG-LS do, and not words.
        slope, intercept: HU = slope * value + intercept.
        lut: that takes the place of both; or None.
        padding: the least and the greatest value that mean no pixel; or None.
        is_unspecified: whether the unit is told to be unspecified, as ITK's writer does for HU, too.
    """

    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_decoded: bool
    slope: float
    intercept: float
    lut: ModalityLut | None
    padding: tuple[int, int] | None
    is_unspecified: bool

    def to_hu(self, words: np.ndarray) -> np.ndarray:
        """Values in HU, not rounded, of decoded words of any shape."""
        values = words.astype(np.int64) if self.is_decoded else self._values(words)
        hu: np.ndarray = self.slope * values + self.intercept
        if self.lut is not None:
            hu = self.lut.table[np.clip(values - self.lut.first, 0, len(self.lut.table) - 1)].astype(np.float64)
        if self.padding is not None:
            # Padding may use bits beyond those stored, as GE's -2000 in words of 12 bits does.
            whole = _signed(words.astype(np.int64), self.bits_allocated) if self.is_signed else words.astype(np.int64)
            for numbers in (values, whole):
                hu[(numbers >= self.padding[0]) & (numbers <= self.padding[1])] = PADDING_HU
        return hu

    def _values(self, words: np.ndarray) -> np.ndarray:
        """The numbers in the bits that are stored; the others may hold an overlay (PS3.5, 8.1.1)."""
        values = (words.astype(np.int64) >> (self.high_bit + 1 - self.bits_stored)) & (2**self.bits_stored - 1)
        numbers: np.ndarray = _signed(values, self.bits_stored) if self.is_signed else values
        return numbers


def _signed(numbers: Any, bits: int) -> Any:
    """Numbers whose lowest bits are two's complement."""
    half = 1 << (bits - 1)
    return ((numbers + half) & (2 * half - 1)) - half


def pixel_meaning(header: Dataset, transformation: Dataset) -> PixelMeaning:
    """Tell what a slice's pixels mean.

    Args:
        header: of the file.
        transformation: the dataset with the rescale: the header itself, or a frame's own (enhanced CT).

    Raises:
        ValueError: why it can't be told, or that it isn't HU; a few words for the user.
    """
    needed(header, "SamplesPerPixel")  # by the decoders
    keywords = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    allocated, stored, high_bit, representation = (int(needed(header, keyword)) for keyword in keywords)
    syntax = transfer_syntax(header)
    is_decoded = syntax in JPEG2000TransferSyntaxes or syntax in JPEGLSTransferSyntaxes
    if allocated not in (8, 16, 32) or not 1 <= stored <= high_bit + 1 <= allocated or representation not in (0, 1):
        raise ValueError(f"{stored} bits of {allocated}, the highest {high_bit}, representation {representation}")
    if syntax.is_compressed and high_bit != stored - 1:
        raise ValueError(f"compressed, and its highest bit is {high_bit} of {stored}")
    lut = _modality_lut(header, bool(representation))
    slope, intercept = _rescale(transformation, lut)
    unit = _unit(header, transformation, lut)
    padding = _padding(header, allocated, bool(representation))
    is_signed, is_unspecified = bool(representation), unit == "US"
    return PixelMeaning(
        allocated, stored, high_bit, is_signed, is_decoded, slope, intercept, lut, padding, is_unspecified
    )


def _modality_lut(header: Dataset, is_signed: bool) -> ModalityLut | None:
    if not (sequence := header.get("ModalityLUTSequence")):
        return None
    lut = sequence[0]
    count, first, bits = map(int, lut.LUTDescriptor)
    count, data = count or 2**16, lut.LUTData
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] else ">"
        data = np.frombuffer(data, "u1" if bits <= 8 and len(data) < 2 * count else f"{order}u2")
    table = np.atleast_1d(np.asarray(data, np.int64))[:count] & (2**bits - 1)
    if len(sequence) != 1 or len(table) != count or not 8 <= bits <= 16:
        raise ValueError("its Modality LUT is not one whole table")
    first = _signed(first, 16) if is_signed else first & 0xFFFF
    return ModalityLut(first, _shared_table(table.astype(np.uint16).tobytes()), lut.get("ModalityLUTType"))


@lru_cache(maxsize=4)
def _shared_table(words: bytes) -> np.ndarray:
    """The same table for all slices of a series, which would take more memory than their pixels."""
    return np.frombuffer(words, np.uint16)


def _rescale(transformation: Dataset, lut: ModalityLut | None) -> tuple[float, float]:
    """Slope and intercept. Raises ValueError where they are missing, no numbers, or beside a LUT."""
    keywords = ("RescaleSlope", "RescaleIntercept")
    given = [optional(transformation, keyword) is not None for keyword in keywords]
    if lut is not None:
        if any(given):
            raise ValueError("both a Modality LUT and a rescale")
        return 1.0, 0.0
    if not all(given):
        raise ValueError("no Rescale Slope or no Rescale Intercept, so that its values need not be HU")
    slope, intercept = (float(needed_numbers(transformation, keyword, 1)[0]) for keyword in keywords)
    if not math.isfinite(slope * intercept) or slope == 0:
        raise ValueError(f"Rescale Slope {slope:g}, Intercept {intercept:g}")
    return slope, intercept


def _unit(header: Dataset, transformation: Dataset, lut: ModalityLut | None) -> str:
    """HU, or US (unspecified) of a rescale. Raises ValueError where values are told to be something else."""
    if lut is not None:
        name, stated = "Modality LUT Type", lut.unit
    else:
        name, stated = "Rescale Type", transformation.get("RescaleType")
        # CT Image: required where it isn't HU, or where several energies were measured.
        if not stated and header.get("MultienergyCTAcquisition") != "YES":
            return "HU"
    unit = str(stated or "missing").strip().upper()
    if unit != "HU" and (lut is not None or unit != "US"):
        raise ValueError(f"{name} {unit}, not HU")
    return unit


def _padding(header: Dataset, bits: int, is_signed: bool) -> tuple[int, int] | None:
    """The least and the greatest number that mean no pixel; written signed or unsigned, whatever the pixels are."""
    value, limit = (_number(header.get(key)) for key in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        if limit is not None:
            raise ValueError("a Pixel Padding Range Limit without a Pixel Padding Value")
        return None
    ends = [end & ((1 << bits) - 1) for end in (value, value if limit is None else limit)]
    if is_signed:
        ends = [_signed(end, bits) for end in ends]
    return min(ends), max(ends)


def _number(value: Any) -> int | None:
    if value in (None, "", b""):
        return None
    return int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)


def stored_frames(stream: IO[bytes], syntax: UID, frames: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield (rows, columns) words of some frames of an opened file, with bits that aren't stored left as they are.

    Raises:
        Exception: whatever pydicom and its decoders raise on damaged pixels.
    """
    be_quiet()
    options: dict[str, Any] = {"raw": True, "correct_unused_bits": False, "decoding_plugin": _DECODERS.get(syntax, "")}
    source: Any = stream
    if syntax == DeflatedExplicitVRLittleEndian:  # where no place of the file can be read without all before it
        source = pydicom.dcmread(stream, force=True)
    else:
        options["transfer_syntax_uid"] = syntax
    yield from iter_pixels(source, indices=list(frames), **options)
