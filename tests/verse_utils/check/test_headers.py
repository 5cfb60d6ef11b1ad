from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from verse_utils.cases import Case
from verse_utils.check.headers import check_headers

SHAPE = (20, 21, 22)


def write(tmp_path: Path, affine=None, shape=SHAPE, mask_affine=None, mask_shape=None) -> Case:
    affine = np.diag([2.0, 2, 3, 1]) if affine is None else affine
    paths = tmp_path / "sub-a_ct.nii.gz", tmp_path / "sub-a_seg-vert_msk.nii.gz"
    for path, own, size in zip(paths, (affine, mask_affine), (shape, mask_shape or shape), strict=True):
        image = nib.Nifti1Image(np.zeros(size, np.int16), affine if own is None else own)
        image.header["qform_code"] = 0
        nib.save(image, path)
    return Case("sub-a", "sub-a", "training", *paths)


def sheared(degrees: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 2] = (0, np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)))
    return affine


def test_a_good_case_has_no_findings(tmp_path):
    assert check_headers(write(tmp_path))[0].findings == []
    assert check_headers(write(tmp_path, sheared(87)))[0].findings == []


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"affine": np.diag([2.0, 2, 100, 1])}, "grid", "spacing of 100 mm along K"),
        ({"affine": np.diag([2.0, 2000, 2, 1])}, "grid", "spacing of 2000 mm along J"),
        ({"affine": np.diag([0.002, 0.002, 0.003, 1])}, "grid", "covers 0.04 mm along I"),
        ({"affine": np.diag([24.0, 2, 3, 1]), "shape": (110, 9, 9)}, "grid", "covers 2640 mm along I"),
        ({"affine": sheared(51)}, "grid", "its axes J and K meet at 51°"),
        ({"affine": sheared(5)}, "grid", "nearly parallel"),
        ({"shape": (20, 20, 1)}, "grid", "has only 1 slices along K"),
        ({"shape": (3, 20, 20)}, "grid", "has only 3 slices along I"),
        ({"mask_affine": np.diag([2.0, 2, 3.2, 1])}, "grid", "mm off that of its CT"),
        ({"mask_shape": (20, 21, 23)}, "grid", "is not that of its CT"),
    ],
)
def test_grids_on_which_no_spine_can_lie(tmp_path, change, kind, words):
    report, _ = check_headers(write(tmp_path, **change))
    (finding,) = report.findings
    assert finding.is_fault and finding.kind == kind and words in finding.reason and "\n" not in finding.reason
    assert "sub-a_" in finding.reason


def test_a_scan_without_codes_is_worth_a_look(tmp_path):
    case = write(tmp_path)
    for path in case.files:
        image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)
        image.header.set_sform(None, code=0)
        nib.save(image, path)
    (finding,) = check_headers(case)[0].findings
    assert not finding.is_fault and "sub-a_ct.nii.gz: has neither sform nor qform" in finding.reason


def test_damaged_files_are_named(tmp_path):
    case = write(tmp_path)
    case.image_path.write_bytes(case.image_path.read_bytes()[:-9])
    (finding,) = check_headers(case)[0].findings
    assert (finding.kind, finding.is_fault) == ("file", True) and case.image_path.name in finding.reason
    case.mask_path.unlink()
    assert "fetch the file again" in finding.reason
