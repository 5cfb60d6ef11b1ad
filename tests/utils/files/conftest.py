"""Real DICOM files, made by pydicom."""

from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from utils.files.find_scans import find_scans
from utils.files.scans import open_scan

AXIAL = (1, 0, 0, 0, 1, 0)
# (I, J, K): neighbours along each axis differ.
HU = (np.arange(40)[:, None, None] * 10 + np.arange(36)[:, None] * 30 + np.arange(7) - 1000).astype(np.int16)


def slice_dataset(
    hu_IJ, position=(0, 0, 0), orientation=AXIAL, spacing=(0.8, 0.7), syntax=ExplicitVRLittleEndian, **tags
):
    """A CT slice; pixels are unsigned with an intercept of -1024; ``tags`` are added, those that are None removed.

    Args:
        spacing: mm from row to row, then from column to column.
    """
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "p", "1.2", "1.2.3", "1.2.9"
    ds.Modality, ds.SeriesDescription, ds.SeriesNumber = "CT", "Spine", 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = (
        [f"{x:.9g}" for x in position],
        [f"{x:.9g}" for x in orientation],
    )
    ds.PixelSpacing, ds.SliceThickness = list(spacing), 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    words = np.asarray(hu_IJ).T + 1024
    for keyword, value in tags.items():
        if keyword == "words":
            words = value
        elif value is None:
            delattr(ds, keyword)
        elif isinstance(value, tuple):
            ds.add_new(keyword, *value)
        else:
            setattr(ds, keyword, value)
    ds.Rows, ds.Columns = words.shape
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.PixelData = words.astype(words.dtype if "words" in tags else np.uint16).tobytes()
    return ds


def write_series(folder, hu=HU, positions=None, name="IM{:03d}.dcm", step=(0, 0, 3.0), compress=None, **of_slices):
    """A series, a file a slice, ``step`` mm (LPS) apart unless ``positions`` are given."""
    folder.mkdir(parents=True, exist_ok=True)
    origin = np.array([-20.0, 35.5, -100.0])
    positions = [origin + k * np.array(step) for k in range(hu.shape[2])] if positions is None else positions
    for k, position in enumerate(positions):
        ds = slice_dataset(hu[:, :, k % hu.shape[2]], position, **{"InstanceNumber": k + 1, **of_slices})
        if compress is not None:
            ds.compress(compress)
        ds.save_as(folder / name.format(k), enforce_file_format=True)
    return folder


def item(**attributes):
    """A sequence of one item."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return Sequence([ds])


def write_enhanced(path, hu=HU, order=None, compress=None, slopes=None, **tags):
    """One enhanced multi-frame file; frame n shows slice ``order[n]``; a slope for each slice, or 1 for all."""
    order = list(range(hu.shape[2])) if order is None else order
    ds = slice_dataset(hu[:, :, 0], SOPClassUID=EnhancedCTImageStorage)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(ds, keyword)
    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=[0.8, 0.7], SliceThickness=3)
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=list(AXIAL))
    if slopes is None:
        shared.PixelValueTransformationSequence = item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    frames, words = [], []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = item(ImagePositionPatient=[-20, 35.5, -100 + 3 * k])
        slope = 1
        if slopes is not None:
            slope = slopes[k]
            frame.PixelValueTransformationSequence = item(RescaleSlope=slope, RescaleIntercept=-1024, RescaleType="HU")
        frames.append(frame)
        words.append((hu[:, :, k].T + 1024) // slope)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = Sequence([shared]), Sequence(frames)
    ds.NumberOfFrames = len(frames)
    ds.PixelData = np.stack(words).astype(np.uint16).tobytes()
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    if compress is not None:
        ds.compress(compress)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def opened(path, **options):
    """The one scan at a path."""
    (source,) = find_scans([str(path)], options.pop("series", None))
    return open_scan(source, **options)


def voxels(scan):
    """(I, J, K) int16 HU."""
    return np.concatenate([slab for _, slab in scan.slabs()], axis=2)


@pytest.fixture(scope="session")
def dicom():
    """What makes DICOM files, and reads them by this project."""
    return SimpleNamespace(
        HU=HU,
        slice_dataset=slice_dataset,
        write_series=write_series,
        write_enhanced=write_enhanced,
        item=item,
        opened=opened,
        voxels=voxels,
        read=pydicom.dcmread,
    )
