"""Cases with real faults: copies of phantoms, each broken in one way."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from verse_utils.cases import Case, find_cases
from verse_utils.check.cases import check_case, find_duplicates
from verse_utils.check.findings import CaseReport

pytestmark = pytest.mark.filterwarnings("ignore:.*not all of VerSe19")


@pytest.fixture(scope="module")
def whole(phantom_root) -> Case:
    return next(case for case in find_cases(phantom_root, 19) if case.case_id.startswith("sub-phantom101"))


@pytest.fixture
def case(whole, tmp_path) -> Case:
    """A copy that a test may break."""
    paths = {}
    for name in ("image_path", "mask_path", "centroid_path"):
        paths[name] = tmp_path / getattr(whole, name).name
        paths[name].write_bytes(getattr(whole, name).read_bytes())
    return replace(whole, **paths)


def rewrite(path: Path, change, dtype=None) -> None:
    image = nib.load(path)
    values = change(np.asarray(image.dataobj))
    nib.save(nib.Nifti1Image(values.astype(dtype or values.dtype), image.affine), path)


def only(report: CaseReport, kind: str, is_fault: bool) -> str:
    (finding,) = report.findings
    assert (finding.kind, finding.is_fault) == (kind, is_fault), finding
    assert "\n" not in finding.reason
    return finding.reason


def test_a_good_case_has_no_findings(whole):
    report = check_case(whole)
    assert report.findings == [] and report.voxel_digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: (hu - hu.min()) / np.ptp(hu.astype(float)), "not HU"),
        (lambda hu: hu + 1024, "not HU"),
        (lambda hu: np.clip((hu + 160) / 400 * 255, 0, 255).astype(np.uint8), "not HU"),
        (lambda hu: np.where(hu > 300, np.nan, hu).astype(np.float32), "NaN"),
        (lambda hu: np.full(hu.shape, 7, np.int16), "constant, every voxel is 7"),
        (lambda hu: np.linspace(0, 0.4, hu.size).reshape(hu.shape), "constant, every voxel is 0"),
    ],
    ids=["0 to 1", "shifted", "8 bits", "NaN", "constant", "constant once rounded"],
)
def test_values_that_are_no_hu_are_a_fault(case, change, words):
    rewrite(case.image_path, change)
    reason = only(check_case(case), "intensities", is_fault=True)
    assert case.image_path.name in reason and words in reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (np.zeros_like, "empty"),
        (np.ones_like, "100% of all voxels are vertebrae"),
        (lambda label: label * 2.5, "not whole numbers"),
        (lambda label: label * 0 + 99, "labels 99 to 99"),
        (lambda label: label * 0 + 26, "empty"),  # sacrum
    ],
)
def test_masks_that_are_none_are_a_fault(case, change, words):
    rewrite(case.mask_path, change)
    reason = only(check_case(case), "mask", is_fault=True)
    assert case.mask_path.name in reason and words in reason


@pytest.mark.parametrize("name", ["image_path", "mask_path"])
def test_a_flipped_bit_is_a_fault(case, name):
    path = getattr(case, name)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # gzip's checksum of what was read
    path.write_bytes(content)
    assert path.name in only(check_case(case), "file", is_fault=True)


@pytest.mark.parametrize(("axis", "voxels"), [(0, 4), (1, -5), (2, 5)])
def test_a_shifted_mask_is_told_how_to_move_back(case, axis, voxels):
    image = nib.load(case.mask_path)
    rewrite(case.mask_path, lambda label: np.roll(label, voxels, axis))
    case = replace(case, centroid_path=None)
    reason = only(check_case(case), "mask", is_fault=False)
    assert "shifted against its CT" in reason
    back_mm = -voxels * image.affine[:3, axis]
    ras = int(np.argmax(np.abs(back_mm)))
    direction = (("left", "right"), ("backward", "forward"), ("down", "up"))[ras][int(back_mm[ras] > 0)]
    (told,) = [part for part in reason.split("moved ")[1].split(", ") if direction in part]
    assert float(told.split(" mm")[0]) == pytest.approx(abs(back_mm[ras]), abs=4)


def test_far_specks_are_named(case):
    def add_speck(label):
        label = label.copy()
        number = int(label.max())
        far = np.argwhere(label == number).mean(axis=0) > np.array(label.shape) / 2
        corner = np.where(far, 1, np.array(label.shape) - 2)
        label[tuple(corner)] = number
        return label

    rewrite(case.mask_path, add_speck)
    reason = only(check_case(case), "mask", is_fault=False)
    assert "specks far from the rest" in reason and "0.0" in reason


def test_levels_out_of_order_and_missing_are_named(case):
    labels = sorted(np.unique(nib.load(case.mask_path).get_fdata()).astype(int))[1:]
    upper, lower = labels[1], labels[2]
    table = np.arange(29)
    table[[upper, lower]] = table[[lower, upper]]
    table[labels[-2]] = 0
    rewrite(case.mask_path, lambda label: table[label.astype(int)].astype(np.uint8))
    kinds = {finding.kind: finding for finding in check_case(replace(case, centroid_path=None)).findings}
    reasons = [finding.reason for finding in check_case(replace(case, centroid_path=None)).findings]
    assert set(kinds) == {"levels"} and not kinds["levels"].is_fault
    assert any("wrong order from head to foot" in reason for reason in reasons)
    assert any("missing between" in reason for reason in reasons)


def change_centroids(case: Case, change) -> None:
    content = json.loads(case.centroid_path.read_text(encoding="utf-8"))
    change(content)
    case.centroid_path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[1].update(X=-30.0), "centroids outside of the scan"),
        (lambda content: content.append({"label": 1, "X": 9, "Y": 9, "Z": 9}), "vertebrae that the mask lacks: C1"),
        (lambda content: content.pop(), "missing, though the mask has the vertebra"),
        (lambda content: content[1].update({axis: content[-1][axis] for axis in "XYZ"}), "far from the mask"),
        (lambda content: content[0].clear(), "not a VerSe centroid list"),
    ],
)
def test_centroids_that_do_not_fit_are_worth_a_look(case, change, words):
    change_centroids(case, change)
    reason = only(check_case(case), "centroids", is_fault=False)
    assert words in reason and case.centroid_path.name in reason


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[[1]]", '[{"direction": 3}]', "[" * 100_000])
def test_a_broken_centroid_file_is_worth_a_look(case, text):
    case.centroid_path.write_text(text, encoding="utf-8")
    assert "not a VerSe centroid list" in only(check_case(case), "centroids", is_fault=False)


@pytest.mark.parametrize(
    ("split", "case_id", "is_fault"),
    [("test", "sub-b", True), ("validation", "sub-b", True), ("training", "sub-b", False), ("test", None, False)],
)
def test_one_scan_that_is_there_twice_is_found_even_if_it_was_compressed_again(case, split, case_id, is_fault):
    """In two splits, the one that would train or choose can't be used; but VerSe20 holds scans of VerSe19 again."""
    case_id = case_id or f"{case.case_id}_dir-iso"
    twin = replace(case, case_id=case_id, split=split, image_path=case.image_path.with_name("sub-b_ct.nii"))
    nib.save(nib.load(case.image_path), twin.image_path)
    reports = [check_case(case), check_case(twin)]
    find_duplicates(reports)
    assert f"the same scan as {case_id} ({split})" in only(reports[0], "duplicates", is_fault)
    assert case.case_id in only(reports[1], "duplicates", is_fault=False)
