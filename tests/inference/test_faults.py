"""Scans and calls that can't be used: each is one line, and costs no other scan."""

import csv
import json
import os
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

import inference
from utils.files.find_scans import ScanSource
from utils.files.scans import open_scan

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


def nifti(array, affine=None):
    return lambda path: nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def truncated(path):
    nifti(np.arange(8000, dtype=np.int16).reshape(20, 20, 20))(path)
    path.write_bytes(path.read_bytes()[:4000])


def no_spacing(path):
    nifti(np.zeros((9, 9, 9), np.int16))(path)
    content = bytearray(path.read_bytes())
    content[76:108] = np.zeros(8, np.float32).tobytes()  # pixdim
    content[252:256] = bytes(4)  # qform and sform code
    path.write_bytes(content)


COLOUR = np.zeros((9, 9, 9), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


BAD_SCANS = {
    "no image": (lambda path: path.write_text("hello", encoding="utf-8"), "can't be read"),
    "2D": (nifti(np.zeros((9, 9), np.int16)), "2 axes"),
    "4D": (nifti(np.zeros((9, 9, 9, 3), np.int16)), "4 axes"),
    "colour": (nifti(COLOUR), "greyscale"),
    "empty": (lambda path: path.write_bytes(b""), "can't be read"),
    "constant": (nifti(np.full((9, 9, 9), 40, np.int16)), "constant"),
    "NaN": (nifti(np.full((9, 9, 9), np.nan, np.float32)), "NaN"),
    "truncated": (truncated, "can't be read"),
    "three slices": (nifti(np.arange(243, dtype=np.int16).reshape(9, 9, 3)), "3 slices"),
    "no spacing": (no_spacing, "spacing of zero"),
    "long name" * 24: (nifti(np.arange(9**3, dtype=np.int16).reshape(9, 9, 9)), "File name too long; rename the scan"),
}


@pytest.mark.parametrize("models", [("segmentation",), ("segmentation", "heatmap")], ids=["whole", "localised"])
def test_bad_scans_are_named_and_the_others_go_on(infer, scans, tmp_path, models):
    paths = {name: tmp_path / f"{name.replace(' ', '_')}.nii" for name in BAD_SCANS}
    for name, (write, _) in BAD_SCANS.items():
        write(paths[name])
    good = sorted(scans.iterdir())
    result = infer([good[0], *paths.values(), good[1]], models=models)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(BAD_SCANS)
    for error, (name, (_, words)) in zip(errors, BAD_SCANS.items(), strict=True):
        assert error.startswith(f"error: {paths[name]}: ") and words in error, error
    expected = {f"{path.name.removesuffix('.nii.gz')}_vertebrae.nii.gz" for path in good}
    assert {path.name for path in (tmp_path / "out").iterdir() if path.name.endswith(".nii.gz")} == expected
    others = [
        path for path in (tmp_path / "out").iterdir() if not path.name.startswith(tuple(g.name[:10] for g in good))
    ]
    assert [path.name for path in others] == ["results.csv"]
    with others[0].open(encoding="utf-8") as file:
        assert [bool(row["error"]) for row in csv.DictReader(file)] == [False, *[True] * len(BAD_SCANS), False]


@pytest.mark.parametrize(
    ("arguments", "models", "words"),
    [
        ((), ("heatmap",), "is a localiser (--heatmap_model), not a segmenter"),
        ((), ("segmentation", "segmentation"), "not a localiser"),
        ((), ("nothing",), "no such checkpoint"),
        (("--overlap", 1), ("segmentation",), "--overlap"),
        (("--margin_mm", "nan"), ("segmentation",), "--margin_mm"),
        (("--output", "/dev/null/out"), ("segmentation",), "--output /dev/null/out: can't be written"),
        (("--evaluate", "nowhere"), ("segmentation",), "no such folder of masks"),
        (("--output", ""), ("segmentation",), "--output: '' names no file or folder"),
        (("--device", "tpu"), ("segmentation",), "--device tpu"),
    ],
)
def test_a_wrong_call_is_one_line(infer, scans, tmp_path, assert_one_line_error, arguments, models, words):
    assert_one_line_error(infer([scans], *arguments, models=models), words)
    assert not (tmp_path / "out").exists()


def test_a_missing_scan_is_a_wrong_call(infer, assert_one_line_error):
    assert_one_line_error(infer(["nowhere.nii"]), "nowhere.nii")


def huge_header() -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_shape((1000, 1000, 1000))
    header.set_data_dtype(np.int16)
    header.set_sform(np.eye(4), code=1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header


def test_a_header_that_claims_what_is_not_there_is_refused_and_the_others_go_on(infer, scans, tmp_path):
    (tmp_path / "huge.nii").write_bytes(huge_header().binaryblock + bytes(4) + bytes(1000))
    (tmp_path / "odd.nii.gz").write_bytes(b"no gzip")
    result = infer(["huge.nii", "odd.nii.gz", next(scans.iterdir())], models=("segmentation",))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "huge.nii: voxels can't be read (its header claims 2000000352 bytes" in result.stderr
    assert "odd.nii.gz: can't be read as an image" in result.stderr
    assert len(list(tmp_path.rglob("*_vertebrae.nii.gz"))) == 1


def test_a_huge_scan_is_told_beforehand(tmp_path, capsys):
    path = tmp_path / "huge.nii"
    path.write_bytes(huge_header().binaryblock + bytes(4))
    os.truncate(path, 352 + 2 * 1000**3)  # takes no disk until it is written
    source = ScanSource(path, "huge")
    for channels, words in {
        1: "about 5 GB of memory and up to 10 GB in",
        26: "80 GB of memory and up to 110 GB",
    }.items():
        inference._warn_of_memory(open_scan(source), source, SimpleNamespace(heatmap_model=None), channels)
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu + 1024, "not HU"),
        (lambda hu: (hu - hu.min()) / np.ptp(hu.astype(float)), "not HU"),
        (lambda hu: hu, "neither sform nor qform"),
    ],
)
def test_a_scan_that_is_no_ct_as_it_should_be_is_warned_of(infer, scans, tmp_path, change, words):
    image = nib.load(next(scans.iterdir()))
    odd = nib.Nifti1Image(change(np.asarray(image.dataobj)), None if "sform" in words else image.affine)
    if "sform" in words:
        odd.header.set_sform(None, code=0)
    nib.save(odd, tmp_path / "odd.nii.gz")
    result = infer(["odd.nii.gz"], "--json", models=("segmentation",))
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)
    assert [words in line for line in row["warnings"]].count(True) == 1
