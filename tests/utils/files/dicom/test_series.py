"""DICOM series as scans: order of slices, what makes no volume, agreement with NIfTI."""

import locale
import pickle
import shutil
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataelem import RawDataElement

from utils.files.dicom.files import read_header
from utils.files.find_scans import find_scans
from utils.files.scans import open_scan
from verse_utils.errors import UserError

CT = np.random.default_rng(5).integers(-1000, 1500, (9, 11, 37)).astype(np.int16)
DICOM_HU = CT[:, :, :7]
ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([-0.6, 0.8, 0.0])  # LPS
NORMAL = np.cross(ROW, COLUMN)


def opened(path):
    (source,) = find_scans([str(path)])
    return open_scan(source)


def joined(scan, region=None, thickness=16):
    return np.concatenate([slab for _, slab in scan.slabs(region, thickness)], axis=2)


def write_slices(
    folder, hu=DICOM_HU, uid="1.2.3", description="Spine", heights_mm=None, names=None, row_mm=0.7, **tags
):
    """A series of hu.shape[2] slices 3 mm apart, with pixels of 0.7 mm along a row, 0.8 mm along a column."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    heights_mm = [3.0 * k for k in range(hu.shape[2])] if heights_mm is None else heights_mm
    for k, height_mm in enumerate(heights_mm):
        image = sitk.GetImageFromArray(hu[:, :, k].T[None])
        position_mm = np.array([-20.0, 35.5, -100.0]) + height_mm * NORMAL
        values = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{k + 1}",
            "0008|103e": description,
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0020|0013": "1",
            "0020|0032": "\\".join(f"{v:.6f}" for v in position_mm),
            "0020|0037": "\\".join(f"{v:.6f}" for v in (*ROW, *COLUMN)),
            "0028|1052": "-1024",
            "0028|1053": "1",
            "0028|1054": "HU",
            **{tag.replace("_", "|"): value for tag, value in tags.items()},
        }
        image.SetSpacing((row_mm, 0.8, 1.0))  # written as 0028|0030, Pixel Spacing
        for tag, value in values.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / (names[k] if names else f"{uid}_{k:02}.dcm")))
        kept = locale.setlocale(locale.LC_ALL)
        writer.Execute(image)  # GDCM's writer (not its reader) leaves the process in the C locale: no UTF-8
        locale.setlocale(locale.LC_ALL, kept)
    return folder


def expected_affine():
    lps = np.column_stack([0.7 * ROW, 0.8 * COLUMN, 3.0 * NORMAL])
    return np.diag([-1, -1, 1, 1]) @ nib.affines.from_matvec(lps, [-20.0, 35.5, -100.0])


@pytest.mark.parametrize("file_names", [None, ["f.dcm", "b", "d.ima", "a", "g.dcm", "c", "e"]], ids=["sorted", "mixed"])
def test_slices_are_sorted_by_position_whatever_their_names(tmp_path, file_names):
    scan = opened(write_slices(tmp_path / "series", names=file_names))
    assert scan.shape == DICOM_HU.shape and scan.warnings == []
    np.testing.assert_allclose(scan.affine, expected_affine(), atol=1e-5)
    np.testing.assert_array_equal(joined(scan), DICOM_HU)
    np.testing.assert_array_equal(joined(scan, thickness=3), DICOM_HU)
    np.testing.assert_array_equal(joined(scan, np.s_[2:5, 1:, 3:6]), DICOM_HU[2:5, 1:, 3:6])


def test_dicom_and_nifti_of_one_scan_are_one(tmp_path):
    dicom = opened(write_slices(tmp_path / "series"))
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    sitk.WriteImage(image, tmp_path / "series.nii.gz")  # an independent way from DICOM to NIfTI
    nifti = opened(tmp_path / "series.nii.gz")
    np.testing.assert_allclose(dicom.affine, nifti.affine, atol=1e-4)
    np.testing.assert_array_equal(joined(dicom), joined(nifti))


def test_a_mask_of_a_dicom_scan_lies_on_its_grid(tmp_path):
    scan = opened(write_slices(tmp_path / "series"))
    scan.save((DICOM_HU > 0).astype(np.uint8), tmp_path / "mask.nii.gz")
    saved = nib.load(tmp_path / "mask.nii.gz")
    assert (saved.header["qform_code"], saved.header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(saved.get_qform(), expected_affine(), atol=1e-4)
    np.testing.assert_allclose(saved.get_sform(), expected_affine(), atol=1e-4)
    np.testing.assert_array_equal(np.asanyarray(saved.dataobj), DICOM_HU > 0)


def test_the_longest_series_is_taken_and_the_others_named(tmp_path):
    write_slices(tmp_path, CT[:, :, 20:22], uid="1.2.1", description="Scout", **{"0020_0037": "1\\0\\0\\0\\0\\-1"})
    write_slices(tmp_path, CT[:, :, 10:15], uid="1.2.2", description="")
    write_slices(tmp_path, uid="1.2.9")
    scan = opened(tmp_path)
    np.testing.assert_array_equal(joined(scan), DICOM_HU)
    read = "read: Spine (7 slices); --series takes another, by UID or description"
    assert scan.warnings == [f"{tmp_path}: 2 other series left out: 1.2.2 (5 slices), Scout (2 slices); {read}"]


def test_a_description_in_another_encoding_can_be_printed(tmp_path):
    write_slices(tmp_path)
    write_slices(tmp_path, CT[:, :, :1], uid="1.2.4", description="Wirbelsaule", names=["other"])
    other = tmp_path / "other"
    other.write_bytes(other.read_bytes().replace(b"Wirbelsaule", b"Wirbels\xe4ule"))
    assert "Wirbelsäule (1 slices)" in opened(tmp_path).warnings[0].encode().decode()


def test_other_files_beside_the_slices_are_passed_over(tmp_path):
    write_slices(tmp_path)
    (tmp_path / "readme.txt").write_text("no slice", encoding="utf-8")
    (tmp_path / ".hidden").write_text("no slice", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    assert opened(tmp_path).warnings == []
    (tmp_path / "broken.dcm").write_bytes((tmp_path / "1.2.3_00.dcm").read_bytes()[:-30])
    scan = opened(tmp_path)
    np.testing.assert_array_equal(joined(scan), DICOM_HU)
    why = "broken.dcm the first (fewer pixels than claimed)"
    assert scan.warnings == [f"{tmp_path}: 1 DICOM files can't be read as slices, {why}"]


@pytest.mark.parametrize(
    ("heights_mm", "words"),
    [
        ([0, 3, 6, 12, 15], r"slice missing between z = -94\.0 and -88\.0 mm \(spacing 3\.0, gap 6\.0\)"),
        ([0, 3, 6, 9, 11], r"slices too close between z = -91\.0 and -89\.0 mm \(spacing 3\.0, gap 2\.0\)"),
        ([0, 3, 6, 3, 9], r"1\.2\.3_01\.dcm and 1\.2\.3_03\.dcm lie on one position"),
        ([5, 5, 5, 5, 5], "lie on one position"),
        ([0, 0, 3, 3, 6, 6], "lie on one position"),
        ([0, 3, 6], "only 3 slices along K"),
        ([0], "only 1 slices along K"),
    ],
)
def test_slices_that_make_no_even_stack_are_refused(tmp_path, heights_mm, words):
    write_slices(tmp_path, heights_mm=heights_mm)
    with pytest.raises(UserError, match=rf"^{tmp_path}: .*{words}"):
        opened(tmp_path)


def test_a_spacing_that_varies_a_little_is_taken(tmp_path):
    scan = opened(write_slices(tmp_path, heights_mm=[0, 3.1, 6, 9.05, 12]))
    np.testing.assert_allclose(scan.affine, expected_affine(), atol=0.05)  # the line that fits all of them best


@pytest.mark.parametrize(
    ("hu", "options"),
    [
        (CT[:, :-1, :1], {}),
        (CT[:, :, :1], {"0020_0037": "1\\0\\0\\0\\1\\0"}),
        (CT[:, :, :1], {"row_mm": 0.8}),
    ],
    ids=["size", "orientation", "spacing"],
)
def test_slices_that_differ_are_refused(tmp_path, hu, options):
    write_slices(tmp_path)
    write_slices(tmp_path, hu, heights_mm=[21], names=["z.dcm"], **options)
    with pytest.raises(UserError, match=r"z\.dcm: size, spacing or orientation differ from 1\.2\.3_00\.dcm"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        *(
            (keyword, None, f"no {keyword}")
            for keyword in ("SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit")
        ),
        *((keyword, None, f"no {keyword}") for keyword in ("PixelRepresentation", "Rows", "Columns", "PixelSpacing")),
        *((keyword, None, f"no {keyword}") for keyword in ("ImagePositionPatient", "PhotometricInterpretation")),
        ("Columns", "", "no Columns"),
        ("PixelSpacing", [1.5], "PixelSpacing 1.5"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 1], "ImageOrientationPatient [1"),
        ("PixelSpacing", b"a\\b ", "PixelSpacing can't be read"),
        ("RescaleSlope", b"abc ", "RescaleSlope can't be read"),
    ],
)
def test_what_is_missing_or_wrong_in_headers_is_named(dicom, tmp_path, keyword, value, words):
    for path in dicom.write_series(tmp_path / "ct", dicom.HU[:, :, :4]).iterdir():
        header = pydicom.dcmread(path)
        tag = header[keyword].tag
        del header[keyword]
        if isinstance(value, bytes):
            header[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
        elif value is not None:
            setattr(header, keyword, value or None)
        header.save_as(path)
    with pytest.raises(UserError) as error:
        opened(tmp_path / "ct")
    assert words in str(error.value)


def test_a_folder_without_a_readable_slice_is_refused(tmp_path):
    (tmp_path / "a.dcm").write_text("no slice", encoding="utf-8")
    (source,) = find_scans([str(tmp_path)])
    with pytest.raises(UserError, match=rf"{tmp_path}: no DICOM slice can be read \(a\.dcm: no DICOM\)"):
        open_scan(source)


def test_a_slice_that_breaks_after_opening_is_named(tmp_path):
    scan = opened(write_slices(tmp_path))
    broken = tmp_path / "1.2.3_04.dcm"
    broken.write_bytes(broken.read_bytes()[:-30])
    assert joined(scan, np.s_[:, :, :4]).shape[2] == 4
    with pytest.raises(UserError, match=r"1\.2\.3_04\.dcm: voxels can't be read"):
        joined(scan)


def test_reading_dicom_leaves_the_locale_alone(tmp_path):
    write_slices(tmp_path)
    before = locale.setlocale(locale.LC_ALL)
    joined(opened(tmp_path))
    assert locale.setlocale(locale.LC_ALL) == before


def test_sources_and_scans_can_go_to_another_process(tmp_path):
    nib.save(nib.Nifti1Image(CT, np.eye(4)), tmp_path / "ct.nii.gz")
    write_slices(tmp_path / "series")
    for source in find_scans([str(tmp_path / "ct.nii.gz"), str(tmp_path / "series")]):
        again = pickle.loads(pickle.dumps(source))
        assert again == source
        scan = open_scan(again)
        np.testing.assert_array_equal(joined(pickle.loads(pickle.dumps(scan))), joined(scan))


@pytest.mark.parametrize("how", ["folder", "pattern", "archive", "several frames"])
def test_each_header_is_read_once_from_finding_to_voxels(dicom, tmp_path, how):
    where = dicom.write_series(tmp_path / "ct")
    if how == "archive":
        where = Path(shutil.make_archive(str(tmp_path / "ct"), "zip", where))
    if how == "several frames":
        where = dicom.write_enhanced(tmp_path / "enhanced" / "ct.dcm").parent
    reads = Counter()

    def counted(file):
        reads[file.name] += 1
        return read_header(file)

    with patch("utils.files.dicom.headers.read_header", counted):
        (source,) = find_scans([str(where / "IM*" if how == "pattern" else where)])
        pickled = pickle.dumps(source.resolved())  # as workers get it
        scan = open_scan(pickle.loads(pickled))
        assert dicom.voxels(scan).shape == dicom.HU.shape
    named = {"IM000.dcm": 2} if how == "pattern" else {}  # the first one, to tell that it isn't a series by itself
    assert reads == Counter(file.name for file in source.files) | Counter(named)
    assert len(pickled) < 8_000
