"""DICOM Segmentation: read back by highdicom, on the source's slices and voxel by voxel."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from utils.files.dicom.segmentation import check_source, write_segmentation
from verse_utils.errors import UserError

NAMES = {1: "vertebra"}
SHA256 = "0123456789abcdef" * 4
# Of the modules of a Segmentation (PS3.3, A.51) and of each segment (C.8.20.4), those that must have a value.
REQUIRED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber"),
    *("FrameOfReferenceUID", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"),
    *("ContentLabel", "ContentDate", "ContentTime", "InstanceNumber", "ImageType", "NumberOfFrames"),
    *("SegmentationType", "SegmentSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("DimensionOrganizationSequence", "DimensionIndexSequence", "ReferencedSeriesSequence", "LossyImageCompression"),
)
REQUIRED_OF_SEGMENT = (
    *("SegmentNumber", "SegmentLabel", "SegmentAlgorithmType", "SegmentAlgorithmName"),
    *("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"),
)


def mask_of(scan):
    """Something on all but the first and last slices, unlike itself turned or mirrored."""
    mask = np.zeros(scan.shape, np.uint8)
    mask[3:20, 5:9, 1:-1] = 1
    mask[15:18, 9:30, 2:4] = 1
    return mask


def frames_of(segmentation):
    """Of each frame, sorted by height: its position, its pixels, and the instance that it refers to."""
    groups = segmentation.PerFrameFunctionalGroupsSequence
    positions = [np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) for group in groups]
    pixels = segmentation.pixel_array.reshape(len(positions), segmentation.Rows, segmentation.Columns)
    sources = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in groups]
    return sorted(zip(positions, pixels, sources, strict=True), key=lambda one: one[0][2])


def test_axial_tilted_and_compressed_series(dicom, tmp_path):
    """Also where the gantry is tilted, each frame has the place of its slice."""
    for name, options in {
        "axial": {},
        "tilted": {"step": (0, 0.9, 3.0)},
        "feet first": {"step": (0, 0, -3.0), "SliceThickness": None},
        "compressed": {"compress": JPEG2000Lossless},
    }.items():
        folder = dicom.write_series(tmp_path / name, **options)
        scan = dicom.opened(folder)
        check_source(scan.series, scan.path)
        mask, path = mask_of(scan), tmp_path / f"{name}_seg.dcm"
        write_segmentation(mask, scan.series, NAMES, "segmenter", SHA256, path)
        segmentation = hd.seg.segread(path)
        found = frames_of(segmentation)
        slices = scan.series.stack.slices[1:-1]  # empty frames are left out
        assert len(found) == len(slices)
        listed = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        listed = {instance.ReferencedSOPInstanceUID for instance in listed}
        for k, ((position, pixels, source), slice_) in enumerate(zip(found, slices, strict=True), 1):
            np.testing.assert_allclose(position, slice_.position_mm, atol=1e-4)
            np.testing.assert_array_equal(pixels, mask[:, :, k].T)
            assert source.ReferencedSOPInstanceUID == dicom.read(slice_.file.path).SOPInstanceUID
            assert source.ReferencedSOPInstanceUID in listed


def test_what_must_be_there(dicom, tmp_path):
    scan = dicom.opened(dicom.write_series(tmp_path / "ct"))
    mask = mask_of(scan)
    mask[25:30, 20:30, 2] = 28
    write_segmentation(mask, scan.series, {1: "C1", 22: "L3", 28: "T13"}, "segmenter", SHA256, tmp_path / "seg.dcm")
    content = pydicom.dcmread(tmp_path / "seg.dcm")
    assert all(content.get(keyword) not in (None, "") for keyword in REQUIRED)
    source = dicom.read(next((tmp_path / "ct").iterdir()))
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert content[keyword].value == source[keyword].value
    assert content.SeriesInstanceUID != source.SeriesInstanceUID
    first, second = content.SegmentSequence  # L3 isn't in the mask
    assert all(keyword in segment for segment in (first, second) for keyword in REQUIRED_OF_SEGMENT)
    assert (first.SegmentLabel, first.SegmentedPropertyTypeCodeSequence[0].CodeValue) == ("C1", "14806007")
    assert (second.SegmentLabel, second.SegmentedPropertyTypeCodeSequence[0].CodeValue) == ("T13", "51282000")
    assert first.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == SHA256[:16]
    frames = [
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for group in content.PerFrameFunctionalGroupsSequence
    ]
    assert frames.count(2) == 1


def test_many_frames_in_one_file(dicom, tmp_path):
    order = [3, 0, 1, 2, 6, 5, 4]
    scan = dicom.opened(dicom.write_enhanced(tmp_path / "ct.dcm", order=order, compress=RLELossless))
    mask = mask_of(scan)
    write_segmentation(mask, scan.series, NAMES, "segmenter", SHA256, tmp_path / "seg.dcm")
    found = frames_of(hd.seg.segread(tmp_path / "seg.dcm"))
    assert len(found) == 5
    for k, (position, pixels, source) in enumerate(found, 1):
        assert source.ReferencedFrameNumber == order.index(k) + 1
        np.testing.assert_allclose(position, (-20, 35.5, -100 + 3 * k))
        np.testing.assert_array_equal(pixels, mask[:, :, k].T)


def test_a_mask_without_a_voxel(dicom, tmp_path):
    scan = dicom.opened(dicom.write_series(tmp_path / "ct"))
    write_segmentation(np.zeros(scan.shape, np.uint8), scan.series, NAMES, "segmenter", SHA256, tmp_path / "seg.dcm")
    assert not hd.seg.segread(tmp_path / "seg.dcm").pixel_array.any()


def test_what_can_not_be_referred_to(dicom, tmp_path):
    with pytest.raises(UserError, match=r"a\.nii: is no DICOM series"):
        check_source(None, tmp_path / "a.nii")
    heights = (0, 3, 6, 9, 15, 21, 27)
    folder = dicom.write_series(tmp_path / "uneven", positions=[(-20, 35.5, height) for height in heights])
    scan = dicom.opened(folder, resample_series=True)
    with pytest.raises(UserError, match="resampled by --resample_series"):
        check_source(scan.series, scan.path)
    scan = dicom.opened(dicom.write_series(tmp_path / "placeless", FrameOfReferenceUID=None))
    with pytest.raises(UserError, match=r"can't be referred to .*Frame Of Reference UID"):
        write_segmentation(mask_of(scan), scan.series, NAMES, "segmenter", SHA256, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()
