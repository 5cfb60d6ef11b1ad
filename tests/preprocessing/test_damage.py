"""Cases and files that are damaged: named, left out, or made anew."""

import shutil
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from preprocessing import IsotropicSettings, preprocess, preprocess_cases
from utils.files.h5_cases import H5Cases
from verse_utils.cases import Chosen, find_cases
from verse_utils.check.selection import select_cases

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


def _ct(root: Path) -> Path:
    return sorted(root.rglob("*_ct.nii.gz"))[0]


def _mask(root: Path) -> Path:
    return sorted(root.rglob("*_msk.nii.gz"))[0]


def _rewrite(path: Path, change) -> None:
    image = nib.load(path)
    array = change(np.asarray(image.dataobj))
    nib.save(nib.Nifti1Image(array, image.affine), path)


def _break_missing_ct(root):
    _ct(root).unlink()
    return _mask(root).name, "without its CT"


def _break_grid(root):
    image = nib.load(_mask(root))
    affine = image.affine.copy()
    affine[2, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), _mask(root))
    return _mask(root).name, "5.0 mm off"


def _break_shape(root):
    _rewrite(_mask(root), lambda array: array[:-1])
    return _mask(root).name, "shape"


def _break_truncated(root):
    _ct(root).write_bytes(_ct(root).read_bytes()[:-5000])
    return _ct(root).name, "can't be read"


def _break_nan(root):
    _rewrite(_ct(root), lambda array: np.where(array > 300, np.nan, array).astype(np.float32))
    return _ct(root).name, "NaN"


def _break_constant(root):
    _rewrite(_ct(root), np.zeros_like)
    return _ct(root).name, "constant"


@pytest.mark.parametrize(
    "damage",
    [_break_missing_ct, _break_grid, _break_shape, _break_truncated, _break_nan, _break_constant],
    ids=lambda function: function.__name__,
)
def test_a_case_that_cannot_be_used_is_left_out_and_named(root, tmp_path, preprocess_coarsely, damage):
    words = damage(root)
    result = preprocess_coarsely()
    assert result.returncode == 1 and "Traceback" not in result.stderr
    subject = words[0].split("_")[0]
    left_out = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
    assert left_out and all(line.startswith(f"left out: {subject}") for line in left_out)
    assert all(word in left_out[-1] for word in words) and "; " in left_out[-1]
    store = H5Cases(tmp_path / result.stdout.strip())
    assert sum(len(store.case_ids(split)) for split in ("training", "validation", "test")) == 3
    assert [f"left out: {line}" for line in store.notes["left_out"]] == left_out[-1:]


@pytest.mark.parametrize("damage", [_break_missing_ct, _break_truncated], ids=lambda function: function.__name__)
def test_with_strict_damage_is_one_line_and_leaves_no_h5(
    root, tmp_path, preprocess_coarsely, assert_one_line_error, damage
):
    words = damage(root)
    result = preprocess_coarsely("--strict")
    assert_one_line_error(result, *words)
    assert not list(tmp_path.rglob("*_16x16x32.h5")) and not list(tmp_path.rglob(".*"))
    # Leaving the case out helps, and what was done before is kept.
    subject = words[0].split("_")[0]
    result = preprocess_coarsely("--strict", "--exclude", subject)
    assert result.returncode == 0, result.stderr
    with h5py.File(next(tmp_path.rglob("*_16x16x32.h5"))) as file:
        assert sum(len(file[split]) for split in file) == 3


def test_a_case_that_was_mended_is_added(root, tmp_path, preprocess_coarsely):
    whole = _ct(root).read_bytes()
    _break_truncated(root)
    assert preprocess_coarsely().returncode == 1
    _ct(root).write_bytes(whole)
    result = preprocess_coarsely()
    assert result.returncode == 0, result.stderr
    store = H5Cases(tmp_path / result.stdout.strip())
    assert len(store.case_ids("training")) == 2 and store.notes["left_out"] == []


def test_a_mask_that_was_changed_at_equal_size_is_read_again(root, tmp_path):
    mask = sorted(root.rglob("*_msk.nii.gz"))[0]
    image = nib.load(mask)
    plain = mask.with_name(mask.name.removesuffix(".gz"))  # not compressed: its size stays
    nib.save(image, plain)
    mask.unlink()
    settings = IsotropicSettings(3.0)
    cases = find_cases(root, 19)
    case = next(case for case in cases if case.mask_path == plain.resolve())
    path = preprocess(root, 19, settings, tmp_path, 1, pictures=False)
    before = np.unique(H5Cases(path).read(case.split, case.case_id)[1])
    size = plain.stat().st_size
    _rewrite(plain, lambda label: np.where(label > 0, label - 1, 0).astype(label.dtype))
    assert plain.stat().st_size == size
    preprocess(root, 19, settings, tmp_path, 1, pictures=False)
    after = np.unique(H5Cases(path).read(case.split, case.case_id)[1])
    assert after.tolist() == [0, *(before[1:] - 1)]


def test_a_file_that_goes_while_others_are_worked_on_costs_its_case_only(root, tmp_path, monkeypatch):
    """Hours lie between the look at the headers and the second task; no header is opened for the estimates again."""
    selection = select_cases([root], 19, Chosen(goes_on=True))
    gone = selection.cases[0]
    gone.image_path.unlink()
    path = preprocess_cases(selection, 19, IsotropicSettings(3.0), tmp_path, workers=1)
    names = {(case.split, case.case_id) for case in selection.cases[1:]}
    assert {*H5Cases(path).names} == names
    (line,) = H5Cases(path).notes["left_out"]
    assert gone.image_path.name in line and "no longer there" in line


@pytest.mark.parametrize("place", ["head", "half", "notes of a case", "notes of the file"])
def test_a_damaged_h5_is_made_whole_again_or_named(phantom_root, segmentation_h5, tmp_path, place):
    """Never a traceback, and no case that is left out for it."""
    path = Path(shutil.copy(segmentation_h5, tmp_path))
    names = H5Cases(path).names
    content = bytearray(path.read_bytes())
    if place == "head":
        content[100:3000] = np.random.default_rng(0).bytes(2900)
        path.write_bytes(content)
    elif place == "half":
        path.write_bytes(content[: len(content) // 2])
    else:
        with h5py.File(path, "a") as file:
            (file["/".join(names[0])] if place == "notes of a case" else file).attrs["notes"] = "5"
    assert preprocess(phantom_root, 19, IsotropicSettings(6.0), tmp_path, 1, pictures=False) == path
    assert H5Cases(path).names == names
