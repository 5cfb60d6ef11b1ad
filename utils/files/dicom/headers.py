"""What a file's header says: which series it is of, whether it is CT, and where its slices lie.

PS3.3: C.8.2.1 CT Image, C.8.15.3 Enhanced CT Image, C.7.6.2 Image Plane, C.7.6.16 Multi-frame Functional Groups.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from utils.files.dicom.files import DicomFile, needed, needed_numbers, read_header, transfer_syntax
from utils.files.dicom.pixels import PixelMeaning, pixel_meaning

_CT_CLASSES = {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
_SECONDARY_CAPTURES = {
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
}
# Words of Image Type (0008,0008) that tell a picture which is no slice; those with a space are of Siemens, GE, Philips.
_KINDS = {
    "localizer": {"LOCALIZER", "SCOUT", "TOPOGRAM", "CT_SOM5 TOP", "CT_SOM7 TOP"},
    "dose page": {"DOSE", "DOSE_INFO", "DOSE INFO", "DOSE REPORT", "CT_SOM5 PROT", "CT_SOM7 PROT"},
    "screen save": {"SCREEN SAVE", "SCREENSAVE", "SCREEN_SAVE", "SCREENSHOT"},
    "projection": {"MIP", "MINIP", "MAX_IP", "MIN_IP", "MAXIP", "CT_SOM5 MIP", "CT_SOM7 MIP"},
    "rendering": {"VRT", "SSD", "3D RENDERING", "VOLUME_RENDER", "SURFACE_RENDER", "CURVED_MPR"},
}


@dataclass(frozen=True)
class Slice:
    """A slice of CT: a file, or a frame of one; millimetres are LPS.

    Attributes:
        file, frame: where its pixels lie.
        size: columns, rows.
        position_mm: (3,) of the first pixel's centre.
        steps_mm: (2, 3), from a column to the next, from a row to the next.
        meaning: of its pixels; or why they can't be HU.
        syntax: how the file is coded.
        frames: how many the file holds.
    """

    file: DicomFile
    frame: int
    size: tuple[int, int]
    position_mm: np.ndarray
    steps_mm: np.ndarray
    meaning: PixelMeaning | str
    syntax: UID
    frames: int

    @property
    def name(self) -> str:
        """Its file's name, and the number of the frame where there are several, counted from 1."""
        return f"{self.file.name}, frame {self.frame + 1}," if self.frames > 1 else self.file.name


@dataclass(frozen=True)
class Content:
    """What a DICOM file holds.

    Attributes:
        patient: an ID; "" where it isn't told.
        study, series, frame_of_reference: UIDs; "" where one isn't told.
        number: of the series.
        description: of the series, as far as it can be printed.
        kernel: of the reconstruction; "" where it isn't told.
        slices: of CT; none where it holds something else.
        other: what it holds in place of slices, in a few words.
    """

    file: DicomFile
    patient: str
    study: str
    series: str
    frame_of_reference: str
    number: int
    description: str
    kernel: str
    slices: list[Slice]
    other: str = ""


def read_content(file: DicomFile) -> Content | None:
    """Tell what a file holds; None for an index of files (DICOMDIR), whatever its name.

    Raises:
        ValueError: a header that is damaged, or of no DICOM object.
    """
    try:
        header = read_header(file)
        if header.get("SOPClassUID") is None and header.get("SeriesInstanceUID") is None:
            if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
                return None
            raise ValueError("no DICOM object")
        other, slices = _why_no_ct(header), []
        if not other:
            try:
                slices = _slices(file, header)
                other = "" if slices else "localizer"
            except Exception as error:
                other = reason(error)
        description = " ".join(str(header.get("SeriesDescription") or "").encode(errors="replace").decode().split())
        kernel = header.get("ConvolutionKernel") or ""
        return Content(
            file,
            str(header.get("PatientID") or ""),
            str(header.get("StudyInstanceUID") or ""),
            str(header.get("SeriesInstanceUID") or "no UID"),
            str(header.get("FrameOfReferenceUID") or ""),
            int(header.get("SeriesNumber") or 0),
            description,
            kernel if isinstance(kernel, str) else " ".join(map(str, kernel)),
            slices,
            other,
        )
    except MemoryError:
        raise
    except Exception as error:  # a damaged header makes pydicom raise whatever Python has
        raise ValueError(reason(error)) from None


def has_several_frames(file: DicomFile) -> bool:
    """Whether a file is a series by itself; not where it can't be read."""
    try:
        return int(read_header(file).get("NumberOfFrames") or 1) > 1
    except Exception:
        return False


def _why_no_ct(header: Dataset) -> str:
    """What a file holds that is no slice of CT, in a few words; "" for one that is."""
    modality = str(header.get("Modality") or "").strip()
    sop_class = UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""))
    kind = _kind(_words(header.get("ImageType")))
    if sop_class in _SECONDARY_CAPTURES:
        return "secondary capture"
    if modality not in ("", "CT"):
        return f"modality {modality}"
    if sop_class not in _CT_CLASSES and (sop_class or not modality):
        return sop_class.name if sop_class else "no modality"
    if kind:
        return kind
    photometric = str(needed(header, "PhotometricInterpretation"))
    if int(header.get("SamplesPerPixel") or 1) != 1 or not photometric.startswith("MONO"):
        return "colour"
    if str(header.get("VolumetricProperties") or "VOLUME") == "DISTORTED":
        return "distorted"
    return _kind({str(header.get("VolumeBasedCalculationTechnique") or "")})


def _words(image_type: object) -> set[str]:
    """The values of an Image Type."""
    values = [image_type] if isinstance(image_type, str) else list(image_type or [])  # type: ignore[call-overload]
    return {str(value).strip().upper() for value in values}


def _kind(words: set[str]) -> str:
    return next((kind for kind, known in _KINDS.items() if words & known), "")


def _slices(file: DicomFile, header: Dataset) -> list[Slice]:
    """The slices in a file, without a localizer's frames. Raises what a damaged header makes pydicom raise."""
    frames = int(header.get("NumberOfFrames") or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is not None and len(groups) != frames:
        raise ValueError(f"{frames} frames, but places of {len(groups)}")
    if groups is None and frames != 1:
        raise ValueError("several frames without their places")
    slices = []
    for frame in range(frames):
        kind = _macro(header, frame, "CTImageFrameTypeSequence").get("FrameType")
        if groups is None or not _kind(_words(kind)):
            slices.append(_slice(file, header, frame))
    return slices


def _slice(file: DicomFile, header: Dataset, frame: int) -> Slice:
    position_mm = needed_numbers(_macro(header, frame, "PlanePositionSequence"), "ImagePositionPatient", 3)
    directions = needed_numbers(_macro(header, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    spacing_mm = needed_numbers(_macro(header, frame, "PixelMeasuresSequence"), "PixelSpacing", 2)
    directions = directions.reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    # Cosines are rounded as text; two directions far from right angles are none.
    if (abs(lengths - 1) > 0.01).any() or abs(directions[0] @ directions[1]) > 0.01:
        raise ValueError(f"ImageOrientationPatient {directions.ravel().tolist()}")
    if (spacing_mm <= 0).any():
        raise ValueError(f"PixelSpacing {spacing_mm.tolist()}")
    size = (int(needed(header, "Columns")), int(needed(header, "Rows")))
    steps_mm = directions / lengths * spacing_mm[::-1, None]  # the spacing of rows comes first
    try:
        meaning: PixelMeaning | str = pixel_meaning(header, _macro(header, frame, "PixelValueTransformationSequence"))
    except Exception as error:
        meaning = reason(error)
    frames = int(header.get("NumberOfFrames") or 1)
    return Slice(file, frame, size, position_mm, steps_mm, meaning, transfer_syntax(header), frames)


def _macro(header: Dataset, frame: int, sequence: str) -> Dataset:
    """The dataset that holds a frame's attributes of a functional group: its own, all frames', or the header."""
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        return header
    for group in (groups[frame], (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]):
        if items := group.get(sequence):
            macro: Dataset = items[0]
            return macro
    return Dataset()


def reason(error: Exception) -> str:
    """What an error says of a header or a file, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(r"^'\w+' object has no attribute '(\w+)'$", r"no \1", " ".join(str(error).split()))
    return (f"no {text}" if isinstance(error, KeyError) else text)[:100] or type(error).__name__
