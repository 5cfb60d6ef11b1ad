"""DICOM series."""

import json
import locale

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from utils.files.find_scans import find_scans
from utils.files.scans import open_scan

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


def as_dicom(path, folder, series: str, step_mm=(0, 0, 0), **tags):
    """A NIfTI scan as a folder of axial DICOM slices, each moved by a step (LPS) more than the one before."""
    volume = SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "LPS")
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.reshape(volume.GetDirection(), (3, 3)).T[:2].ravel()
    for k in range(volume.GetDepth()):
        image = volume[:, :, k]
        written = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{series}.{k + 1}",
            "0020|000e": series,
            "0020|000d": "1.2",
            "0020|0052": "1.2.9",
            "0020|0032": "\\".join(map(str, volume.TransformIndexToPhysicalPoint((0, 0, k)) + k * np.array(step_mm))),
            "0020|0037": "\\".join(map(str, rows)),
            "0028|1052": "-1024",
            "0028|1053": "1",
            "0028|1054": "HU",
        }
        for tag, value in (written | tags).items():
            image.SetMetaData(tag.replace("_", "|"), value)
        writer.SetFileName(str(folder / f"{series}_{k:03}.dcm"))
        kept = locale.setlocale(locale.LC_ALL)
        writer.Execute(image)  # leaves the process in the C locale: no UTF-8, of which torch's compiler dies
        locale.setlocale(locale.LC_ALL, kept)


def test_dicom_folders_are_segmented_as_nifti_is(infer, scans, tmp_path):
    """One with a second series, which is named; and one that lacks a slice, which is refused."""
    first, second = sorted(scans.iterdir())
    as_dicom(first, tmp_path / "two_series", "1.2.3")
    as_dicom(first, tmp_path / "gap", "1.2.5")
    for slice_path in sorted((tmp_path / "gap").iterdir())[4:5]:
        slice_path.unlink()
    as_dicom(second, tmp_path / "others", "1.2.4")
    for slice_path in sorted((tmp_path / "others").iterdir())[:6]:
        slice_path.rename(tmp_path / "two_series" / slice_path.name)
    result = infer([tmp_path / "two_series", tmp_path / "gap", first], "--no_localiser", "--postprocess", "none")
    assert result.returncode == 1
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert f"{tmp_path / 'gap'}: slice missing between" in error
    summary = json.loads((tmp_path / "out" / "two_series_summary.json").read_text(encoding="utf-8"))
    assert "1 other series left out: 1.2.4 (6 slices)" in summary["warnings"][0] in result.stdout
    of_nifti = json.loads(
        (tmp_path / "out" / f"{first.name.removesuffix('.nii.gz')}_summary.json").read_text(encoding="utf-8")
    )
    assert summary["volume_ml"] == pytest.approx(of_nifti["volume_ml"], rel=0.01)
    dicom, ct = nib.load(tmp_path / "out" / "two_series_vertebrae.nii.gz"), nib.load(first)
    assert sorted(dicom.shape) == sorted(ct.shape) and nib.aff2axcodes(dicom.affine) == ("L", "P", "S")


def test_a_tilted_gantry_gives_a_mask_with_right_angles_and_one_on_the_slices(infer, scans, tmp_path):
    as_dicom(sorted(scans.iterdir())[0], tmp_path / "tilted", "1.2.3", step_mm=(0, 1.0, 0))
    result = infer([tmp_path / "tilted"], "--no_localiser", "--postprocess", "none", "--probabilities")
    assert result.returncode == 0, result.stderr
    (scan,) = find_scans([str(tmp_path / "tilted")])
    scan = open_scan(scan)
    upright, on_slices = (nib.load(tmp_path / "out" / f"tilted_vertebrae{end}.nii.gz") for end in ("", "_slices"))
    assert on_slices.shape == scan.shape and upright.shape == scan.tilt.shape != scan.shape
    np.testing.assert_array_equal(scan.tilt.undo(np.asarray(upright.dataobj)), np.asarray(on_slices.dataobj))

    nifti = sorted(scans.iterdir())[0]
    options = ("--no_localiser", "--postprocess", "none", "--probabilities", "--dicom_seg")
    result = infer([tmp_path / "tilted", nifti], *options)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1 and len(errors) == 1 and f"{nifti}: is no DICOM series" in errors[0]
    frames = pydicom.dcmread(tmp_path / "out" / "tilted_vertebrae_seg.dcm").pixel_array  # what was kept lacked it
    assert frames.shape[1:] == on_slices.shape[1::-1] and frames.sum() == np.asarray(on_slices.dataobj).sum()
    assert SimpleITK.ReadImage(tmp_path / "out" / "tilted_vertebrae.nii.gz").GetSize() == upright.shape
    summary = json.loads((tmp_path / "out" / "tilted_summary.json").read_text(encoding="utf-8"))
    assert summary["shape"] == list(scan.shape) and "gantry tilted" in summary["warnings"][0]
    probabilities = np.asarray(nib.load(tmp_path / "out" / "tilted_probabilities.nii.gz").dataobj)
    np.testing.assert_array_equal(probabilities > 0.5, np.asarray(upright.dataobj) > 0)


def test_inputs_that_are_no_scans_cost_no_other(infer, scans, tmp_path):
    """Three good ones among seven bad ones of as many kinds: each bad one is named by a line."""
    first, second = sorted(scans.iterdir())
    as_dicom(first, tmp_path / "in" / "good" / "study" / "series", "1.2.3")
    as_dicom(first, tmp_path / "in" / "pet", "1.2.4", **{"0008|0060": "PT", "0020_000d": "1.9"})
    as_dicom(first, tmp_path / "in" / "no_unit", "1.2.5", **{"0028|1054": "OD", "0020_000d": "1.8"})
    (tmp_path / "in" / "broken").mkdir()
    (tmp_path / "in" / "broken" / "a.dcm").write_bytes(b"no slice")
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    (tmp_path / "cut.nii.gz").write_bytes(second.read_bytes()[:3000])
    (tmp_path / "empty").mkdir()
    bad = [tmp_path / name for name in ("bad.zip", "cut.nii.gz", "empty", "absent")]
    result = infer([*bad, tmp_path / "in", scans], "--no_localiser", "--postprocess", "none", "--json")
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    for name in ("bad.zip", "cut.nii.gz", "empty", "absent", "in/pet", "in/no_unit", "in/broken"):
        assert sum(f"{tmp_path / name}" in line for line in lines) == 1, name
    assert len(lines) == 7
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows if "error" not in row] == [
        "series",
        *(path.name[:-7] for path in (first, second)),
    ]
    assert len(list((tmp_path / "out").glob("*_vertebrae.nii.gz"))) == 3
