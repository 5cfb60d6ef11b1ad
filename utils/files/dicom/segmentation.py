"""A mask as DICOM Segmentation, on the slices of the series that it was found in (PS3.3, A.51 and C.8.20)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from utils.files.dicom.files import DicomFile, be_quiet
from utils.files.dicom.headers import reason
from utils.files.dicom.series import DicomSeries
from utils.visualize import PREDICTION_COLOUR
from verse_utils.errors import UserError
from verse_utils.files.writing import written_aside

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

PROJECT = "spine-segmentation"
# May be empty, but have to be there (type 2); exports without the patient's name lack some.
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName"),
)


def check_source(series: DicomSeries | None, path: Path) -> None:
    """Raise UserError unless a mask of a scan can lie on slices of DICOM; known before the scan is segmented.

    Args:
        series: that the scan comes from; None if it is no DICOM.
        path: of the scan.
    """
    if series is None:
        raise UserError(f"{path}: is no DICOM series, so that --dicom_seg has no slices to refer to; leave it out")
    stack = series.stack
    if any(share for _, _, share in stack.planes) or len(stack.planes) != len(stack.slices):
        raise UserError(
            f"{path}: was resampled by --resample_series, so that its mask lies between slices; leave --dicom_seg out"
        )
    if len({one.file for one in stack.slices if one.frames > 1}) > 1:
        raise UserError(f"{path}: has several files of many frames, one alone can hold a mask; leave --dicom_seg out")


def write_segmentation(
    mask_IJK: np.ndarray, series: DicomSeries, names: Mapping[int, str], network: str, sha256: str, path: Path
) -> None:
    """Write a mask as DICOM Segmentation with a segment for each of its values, whole or not at all.

    Frames without any voxel are left out, unless all are empty. A segment's type is SNOMED CT's code of the vertebra
    (PS3.16, CID 7603), or of vertebrae in general where CID 7603 has none (regions, L6, T13).

    Args:
        mask_IJK: uint8 on the slices of the series, a tilted gantry's as they are; 0 is background.
        series: for which ``check_source`` has nothing to say.
        names: value of the mask -> what it is called.
        network: that made the mask, by its run's name.
        sha256: of its checkpoint.
        path: its folder is made where it is absent.

    Raises:
        UserError: the source's headers lack what a Segmentation must refer to, or the file can't be written.
    """
    import highdicom as hd

    be_quiet()
    found = [value for value in names if value in np.unique(mask_IJK)] or list(names)[:1]
    segments = [_segment(number, names[value], network, sha256) for number, value in enumerate(found, 1)]
    numbers = np.zeros(256, np.uint8)
    numbers[found] = range(1, len(found) + 1)
    headers, frames_KJI = _on_source(numbers[mask_IJK], series)
    try:
        segmentation = hd.seg.Segmentation(
            source_images=headers,
            pixel_array=frames_KJI,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=hd.UID(),
            series_number=int(headers[0].get("SeriesNumber") or 0) + 1000,  # far from those of the scanner
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=PROJECT,
            manufacturer_model_name=f"{PROJECT} {network}"[:64],
            software_versions=sha256[:16],
            device_serial_number=sha256[:16],
            series_description="Vertebrae",
            content_label="VERTEBRAE",
            omit_empty_frames=bool(frames_KJI.any()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        place = series.stack.slices[0].file.place
        raise UserError(f"{place}: its headers can't be referred to ({reason(error)}); leave --dicom_seg out") from None
    with written_aside(path) as aside:
        segmentation.save_as(aside, enforce_file_format=True)


def _on_source(segments_IJK: np.ndarray, series: DicomSeries) -> tuple[list[Dataset], np.ndarray]:
    """Headers of the source's files, and segments (frames, rows, columns) for their frames."""
    slices = series.stack.slices
    if slices[0].frames == 1:
        headers = [_read_header(one.file) for one in slices]
        across = np.cross(*slices[0].steps_mm)
        gap_mm = abs((slices[1].position_mm - slices[0].position_mm) @ across) / np.linalg.norm(across)
        for header in headers:
            header.SliceThickness = header.get("SliceThickness") or float(gap_mm)  # it may be empty there, but not here
        return headers, np.ascontiguousarray(segments_IJK.T)
    header = _read_header(slices[0].file)
    frames_KJI = np.zeros((slices[0].frames, *segments_IJK.shape[1::-1]), np.uint8)
    for k, one in enumerate(slices):
        frames_KJI[one.frame] = segments_IJK[:, :, k].T
    return [header], frames_KJI


def _read_header(file: DicomFile) -> Dataset:
    with file.open() as stream:
        header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def _segment(number: int, name: str, network: str, sha256: str) -> SegmentDescription:
    import highdicom as hd
    from PIL import ImageColor
    from pydicom.sr.codedict import codes

    concepts: Any = codes
    known = f"{name}Vertebra"
    kind = getattr(concepts.SCT, known) if known in dir(concepts.SCT) else concepts.SCT.Vertebra
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=concepts.SCT.AnatomicalStructure,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"{PROJECT} {network}"[:64], version=sha256[:16], family=concepts.cid7162.ArtificialIntelligence
        ),
        tracking_uid=hd.UID(),
        tracking_id=name,
        display_color=hd.color.CIELabColor.from_rgb(*ImageColor.getrgb(PREDICTION_COLOUR)[:3]),
    )
