"""Which files are the CT: kinds of series, several series, folders, archives."""

import re
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from utils.files.find_scans import find_scans
from utils.files.scans import open_scan
from verse_utils.errors import UserError

REAL = Path(__file__).parents[5] / "shared" / "data" / "other"
MR, PET, NM = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("4", "128", "20"))
SAGITTAL = (0, 1, 0, 0, 0, -1)


def found(*paths, series=None):
    return find_scans([str(path) for path in paths], series)


@pytest.fixture
def ct(dicom, tmp_path):
    """A folder of seven slices."""
    return dicom.write_series(tmp_path / "study")


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"Modality": "PT", "SOPClassUID": PET}, "modality PT"),
        ({"Modality": "MR", "SOPClassUID": MR}, "modality MR"),
        ({"Modality": "PT"}, "modality PT"),  # whatever the SOP class
        ({"Modality": None, "SOPClassUID": PET}, "Positron Emission Tomography Image Storage"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "secondary capture"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}, "dose page"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "dose page"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen save"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]}, "projection"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"VolumetricProperties": "DISTORTED"}, "distorted"),
        ({"VolumeBasedCalculationTechnique": "MAX_IP"}, "projection"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
    ],
)
def test_what_is_no_ct_is_left_out_however_many_slices_it_has(dicom, ct, tmp_path, tags, words):
    many = np.dstack([dicom.HU, dicom.HU[..., :2]])
    description = {"SeriesInstanceUID": "1.2.77", "SeriesDescription": "other"}
    dicom.write_series(ct, many, name="A{:03d}.dcm", **description, **tags)
    scan = dicom.opened(ct)
    np.testing.assert_array_equal(dicom.voxels(scan), dicom.HU)
    left_out = f"1 other series left out: other (9 slices, {words}); read: Spine (7 slices)"
    assert scan.warnings[0] == f"{ct}: {left_out}"
    dicom.write_series(tmp_path / "alone", many, **description, **tags)
    (alone,) = found(tmp_path / "alone")
    assert f"no CT series here, only other (9 slices, {words})" in alone.error
    with pytest.raises(UserError, match="no CT series here"):
        open_scan(alone)


@pytest.mark.parametrize(
    "image_type", [["DERIVED", "SECONDARY", "MPR"], ["DERIVED", "PRIMARY", "AXIAL"], ["ORIGINAL"], None]
)
def test_reformatted_and_derived_ct_is_ct(dicom, tmp_path, image_type):
    dicom.write_series(tmp_path, ImageType=image_type)
    assert dicom.opened(tmp_path).warnings == []


def test_a_scout_in_the_series_is_left_out(dicom, ct):
    for name, tags in [("A.dcm", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}), ("B.dcm", {})]:
        scout = dicom.slice_dataset(np.zeros((50, 60)), (0, -20, 30), SAGITTAL, **tags)
        scout.save_as(ct / name, enforce_file_format=True)
    scan = dicom.opened(ct)
    np.testing.assert_array_equal(dicom.voxels(scan), dicom.HU)
    assert scan.warnings == [
        f"{ct}: 1 files of the series left out: A.dcm (localizer)",
        f"{ct}: 1 scouts among the slices left out, B.dcm the first",
    ]


def test_another_tools_mask_beside_the_slices_is_no_scan(dicom, ct):
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.eye(4)), ct / "liver.nii.gz")
    for path in (ct, ct.parent):
        scan = dicom.opened(path)
        np.testing.assert_array_equal(dicom.voxels(scan), dicom.HU)
        assert scan.warnings == [f"{ct}: images beside the DICOM series left out: liver.nii.gz; name one to take it"]
    assert [source.path for source in found(ct / "liver.nii.gz")] == [ct / "liver.nii.gz"]


def test_of_two_kernels_one_is_chosen_and_said(dicom, tmp_path):
    sharp = {"SeriesInstanceUID": "1.2.4", "SeriesDescription": "Bone", "SeriesNumber": 5, "ConvolutionKernel": "B70s"}
    soft = {"SeriesInstanceUID": "1.2.5", "SeriesDescription": "Soft", "SeriesNumber": 3, "ConvolutionKernel": "B30f"}
    dicom.write_series(tmp_path, dicom.HU + 100, name="a{}", **sharp)
    dicom.write_series(tmp_path, name="b{}", **soft)
    scan = dicom.opened(tmp_path)  # the lower number of the series, whatever the files' names
    np.testing.assert_array_equal(dicom.voxels(scan), dicom.HU)
    described = "Bone (7 slices, kernel B70s); read: Soft (7 slices, kernel B30f); --series takes another"
    assert scan.warnings == [f"{tmp_path}: 1 other series left out: {described}, by UID or description"]
    for name in ("1.2.4", "Bone", "bone"):
        np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path, series=name)), dicom.HU + 100)
    (none,) = found(tmp_path, series="Lung")
    assert "no CT series 'Lung' here, only Bone (7 slices, kernel B70s), Soft (7 slices, kernel B30f)" in none.error


def test_two_patients_in_a_folder_are_two_scans(dicom, tmp_path):
    dicom.write_series(tmp_path, name="a{}", PatientID="anna")
    dicom.write_series(tmp_path, dicom.HU + 1, name="b{}", PatientID="ben", SeriesInstanceUID="1.2.8")
    sources = found(tmp_path)
    assert [source.name for source in sources] == [tmp_path.name, f"{tmp_path.name}_2"]
    assert [dicom.voxels(open_scan(source))[0, 0, 0] for source in sources] == [
        dicom.HU[0, 0, 0],
        dicom.HU[0, 0, 0] + 1,
    ]


@pytest.mark.parametrize("attribute", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.parametrize("folders", ["", "ab"])
def test_one_uid_of_two_patients_studies_or_frames_of_reference_is_no_volume(dicom, tmp_path, attribute, folders):
    """Seen: as one stack, though the positions have nothing to do with each other."""
    below = [(-20.0, 35.5, -100 + 3.0 * k) for k in range(7)]
    above = [(-20.0, 35.5, -79 + 3.0 * k) for k in range(7)]
    dicom.write_series(tmp_path / folders[:1], positions=below, name="a{}", **{attribute: "1.7"})
    dicom.write_series(tmp_path / folders[1:], positions=above, name="b{}", **{attribute: "1.8"})
    scans = [open_scan(source) for source in found(tmp_path)]
    assert {scan.shape for scan in scans} == {dicom.HU.shape}
    told = [line for scan in scans for line in scan.warnings]
    assert len(scans) == 2 or any("1 other series left out: Spine (7 slices" in line for line in told)


def test_a_slice_without_an_id_belongs_to_the_others(dicom, tmp_path):
    dicom.write_series(tmp_path)
    odd = dicom.read(tmp_path / "IM003.dcm")
    del odd.PatientID, odd.StudyInstanceUID, odd.FrameOfReferenceUID
    odd.save_as(tmp_path / "IM003.dcm")
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path)), dicom.HU)


def test_a_missing_slice_that_was_left_out_is_named(dicom, tmp_path):
    dicom.write_series(tmp_path)
    odd = dicom.read(tmp_path / "IM003.dcm")
    del odd.PixelSpacing
    odd.save_as(tmp_path / "IM003.dcm")
    with pytest.raises(UserError, match=r"slice missing .*; 1 files of the series left out: IM003.dcm \(no Pixel"):
        dicom.opened(tmp_path)


def test_nested_folders_a_dicomdir_and_archives(dicom, tmp_path):
    series = dicom.write_series(tmp_path / "cd" / "patient" / "study" / "series", name="I{}")
    (tmp_path / "cd" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(series.iterdir()):
            archive.write(path, f"study/series/{path.name}")
        archive.writestr("study/readme.txt", "no slice")
        archive.writestr("__MACOSX/study/._I0", "no slice")
    for path in (tmp_path / "cd", tmp_path / "cd" / "DICOMDIR", series / "I3", tmp_path / "packed.zip"):
        scan = dicom.opened(path)
        np.testing.assert_array_equal(dicom.voxels(scan), dicom.HU)
        assert scan.warnings == []
    enhanced = dicom.write_enhanced(tmp_path / "enhanced.dcm")
    with zipfile.ZipFile(tmp_path / "enhanced.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(enhanced, "enhanced.dcm")
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path / "enhanced.zip")), dicom.HU)
    assert [source.name for source in found(enhanced, tmp_path / "packed.zip")] == ["enhanced.dcm", "series"]


def test_a_series_in_several_folders_is_one_and_copies_of_it_are_two(dicom, tmp_path):
    series = dicom.write_series(tmp_path / "cd" / "A")
    (tmp_path / "cd" / "B").mkdir()
    for path in sorted(series.iterdir())[4:]:
        path.rename(tmp_path / "cd" / "B" / path.name)
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path / "cd")), dicom.HU)
    dicom.write_series(tmp_path / "both" / "first")
    dicom.write_series(tmp_path / "both" / "second")
    assert [source.name for source in found(tmp_path / "both")] == ["first", "second"]


def test_files_without_a_preamble_are_read(dicom, tmp_path):
    """Some archives store the data set alone."""
    dicom.write_series(tmp_path / "whole", name="I{}")
    for path in (tmp_path / "whole").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[path.read_bytes().index(b"\x08\x00\x08\x00CS") :])
    shutil.rmtree(tmp_path / "whole")
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path)), dicom.HU)


def test_bad_folders_are_named_and_stop_no_other(dicom, tmp_path):
    dicom.write_series(tmp_path / "in" / "good")
    dicom.write_series(tmp_path / "in" / "pet", Modality="PT", SOPClassUID=PET, StudyInstanceUID=generate_uid())
    (tmp_path / "in" / "broken").mkdir()
    (tmp_path / "in" / "broken" / "a.dcm").write_bytes(b"no slice")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04")
    sources = found(tmp_path / "absent", tmp_path / "in", tmp_path / "bad.zip")
    assert [source.name for source in sources if not source.error] == ["good"]
    errors = [source.error.split(": ", 1)[1] for source in sources if source.error]
    assert [re.split(",|;| [(]", error)[0] for error in errors] == [
        "no such file or folder",
        "no DICOM slice can be read",
        "no CT series here",
        "can't be read as a ZIP archive",
    ]


@pytest.mark.real_scans
@pytest.mark.skipif(not REAL.exists(), reason="the real scans are not here")
def test_a_study_as_an_archive_exports_it(dicom):
    """A series of a head, a localizer, five pictures of a dose summary, an index in each folder."""
    study = REAL / "tilted_head" / "S21610"
    scan = dicom.opened(study)
    assert scan.path == study / "S3010" and scan.shape == (512, 512, 58)
    for line, place in zip(scan.warnings[:2], ("S1000", "S4010"), strict=True):
        assert line.startswith(f"{study}/{place}: left out: ")
    assert "localizer" in scan.warnings[0] and "Exam Summary (5 slices, secondary capture" in scan.warnings[1]
