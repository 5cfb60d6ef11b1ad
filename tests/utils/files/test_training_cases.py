"""Segmented scans as training cases: what is written, what is kept, and that preprocessing reads it back."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from utils.files.find_scans import find_scans
from utils.files.scans import open_scan
from utils.files.training_cases import TrainingCase, with_names_of_cases
from verse_utils.catalogue import list_cases
from verse_utils.errors import UserError
from verse_utils.images import read_case


class Written:
    """A scan, its mask as inference writes it, and its case in a folder."""

    def __init__(self, path: Path, folder: Path, value: int = 1) -> None:
        (self.source,) = find_scans([str(path)])
        self.scan = open_scan(self.source)
        rng = np.random.default_rng(len(self.source.name))
        self.mask = (rng.random(self.scan.shape) < 0.3).astype(np.uint8) * np.uint8(value)
        self.result = folder.parent / f"{self.source.name}_vertebrae.nii.gz"
        self.scan.save(self.mask, self.result)
        self.case = TrainingCase(folder, self.source.name)

    def write(self, labels: str | None = "binary", overwrite: bool = False) -> list[str]:
        return self.case.write(self.source, False, self.result, labels, overwrite)


def nifti(path: Path, hu: np.ndarray, ending_is_true: bool = True) -> Path:
    """A NIfTI in another order of axes, with spacings that differ."""
    affine = np.array([[0, 0, -2.0, 30], [-0.7, 0, 0, 12], [0, 0.9, 0, -80], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(hu, affine), path)
    if not ending_is_true:
        path.write_bytes(gzip.decompress(path.read_bytes()))
    return path


def nrrd(path: Path, hu: np.ndarray) -> Path:
    image = SimpleITK.GetImageFromArray(hu.T)
    image.SetSpacing((0.5, 0.6, 3.0))
    SimpleITK.WriteImage(image, str(path), True)
    return path


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_preprocessing_reads_every_format_back_as_it_was(dicom, tmp_path):
    """Voxel by voxel, on the scan's own grid; a tilted gantry's on the one with right angles."""
    folder = tmp_path / "own"
    paths = [
        nifti(tmp_path / "anna_1.nii.gz", dicom.HU),
        nifti(tmp_path / "not_packed.nii.gz", dicom.HU, ending_is_true=False),
        nrrd(tmp_path / "ben.nrrd", dicom.HU),
        dicom.write_series(tmp_path / "series"),
        dicom.write_series(tmp_path / "tilted", step=(0, 1.0, 3.0)),
    ]
    written = [Written(path, folder, value=24) for path in paths]
    for one in written:
        assert one.write("vertebrae") == []
    cases = {case.case_id: case for case in list_cases([folder / "cases.csv"], 19)}
    assert set(cases) == {"sub-anna1", "sub-notpacked", "sub-ben", "sub-series", "sub-tilted"}
    for one in written:
        case, scan = cases[one.case.case_id], one.scan
        assert case.image_path.read_bytes()[:2] == b"\x1f\x8b" and case.split == "training"  # whatever reads .nii.gz
        images = read_case(case)
        expected, affine = scan.with_right_angles(one.mask)
        np.testing.assert_array_equal(images.label, expected)
        np.testing.assert_allclose(images.affine, affine, atol=1e-4)
        hu = dicom.voxels(scan) if scan.tilt is None else scan.tilt.forward(dicom.voxels(scan), 0, -1024)
        np.testing.assert_array_equal(images.image_hu, hu)
        assert nib.load(case.image_path).get_data_dtype() == np.int16
        SimpleITK.ReadImage(case.image_path)  # as 3D Slicer and ITK-SNAP do
    binary = Written(nifti(tmp_path / "carl.nii.gz", dicom.HU), folder)
    binary.write()
    (case,) = [case for case in list_cases([folder / "cases.csv"], 19) if case.case_id == "sub-carl"]
    np.testing.assert_array_equal(read_case(case).label, binary.mask)
    assert [row["labels"] for row in rows_of(folder)] == ["verse"] * 5 + ["binary"]
    assert [case.case_id for case in list_cases([folder], 19)] == sorted([*cases, "sub-carl"])  # VerSe's layout, too


def test_a_corrected_mask_and_lines_of_the_table_stay(dicom, tmp_path):
    folder = tmp_path / "own"
    one = Written(nifti(tmp_path / "anna.nii.gz", dicom.HU), folder)
    one.write()
    before = one.case.image.stat().st_mtime_ns
    assert one.write() == []  # nothing to tell where nothing differs
    one.scan.save(np.roll(one.mask, 1, axis=0), one.case.mask)
    corrected = one.case.mask.read_bytes()
    table = (folder / "cases.csv").read_text(encoding="utf-8")
    table = table.replace("training,binary", "validation,binary").replace(",", ";")  # as a spreadsheet saves it
    (folder / "cases.csv").write_text(table, encoding="utf-8")
    (told,) = one.write()
    assert str(one.case.mask) in told and "--overwrite" in told
    assert one.case.mask.read_bytes() == corrected and one.case.image.stat().st_mtime_ns == before
    Written(nifti(tmp_path / "ben.nii.gz", dicom.HU), folder).write()
    assert [row["split"] for row in rows_of(folder)] == ["validation", "training"]
    assert one.write(overwrite=True) == []
    assert one.case.mask.read_bytes() == one.result.read_bytes() and len(rows_of(folder)) == 2
    assert not [path for path in folder.rglob(".*")]  # no lock, nothing half written
    one.case.mask.unlink()
    one.write()
    assert one.case.mask.read_bytes() == one.result.read_bytes()


def test_scans_of_one_name_are_told_apart(dicom, tmp_path):
    folder = tmp_path / "own"
    for name in ("anna-1", "anna_1", "größe", "日本", long := "x" * 230):
        nifti(tmp_path / f"{name}.nii.gz", dicom.HU)
    sources = find_scans([str(tmp_path / "*.nii.gz")])
    errors = {source.name: source.error for source in with_names_of_cases(sources, folder)}
    assert errors["anna-1"] == errors["größe"] == ""
    assert f"anna_1.nii.gz: would be sub-anna1, as {tmp_path / 'anna-1.nii.gz'} is" in errors["anna_1"]
    assert "no letter from a to z" in errors["日本"] and "File name too long; rename the scan" in errors[long]
    first, second = (Written(tmp_path / f"{name}.nii.gz", folder) for name in ("anna-1", "anna_1"))
    first.write()
    content = first.case.image.read_bytes()
    with pytest.raises(UserError, match=r"anna_1.nii.gz: .*sub-anna1_ct.nii.gz is of another scan, .*anna-1.nii.gz"):
        second.write(overwrite=True)  # also where another command has written it since
    (source,) = with_names_of_cases([second.source], folder)
    assert "is of another scan" in source.error
    first.case.origin.write_text(json.dumps([]), encoding="utf-8")
    with pytest.raises(UserError, match="doesn't tell"):
        first.write()
    assert first.case.image.read_bytes() == content


def test_labels_that_no_numbering_has_are_refused(dicom, tmp_path):
    one = Written(nifti(tmp_path / "anna.nii.gz", dicom.HU), tmp_path / "own")
    for labels, words in (("regions", "labels regions"), (None, "older version")):
        with pytest.raises(UserError, match=words):
            one.write(labels)
    assert not one.case.folder.exists()
