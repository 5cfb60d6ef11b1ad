"""``python -m verse_utils.check`` as its users run it."""

import errno
import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from preprocessing import IsotropicSettings, preprocess
from utils.files.h5_cases import H5Cases
from verse_utils.phantom.dataset import write_phantom_dataset


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], turn=lambda affine: affine) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), turn(image.affine.copy())), path)


def set_header(path: Path, place: int, value: int) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[place : place + 2] = value.to_bytes(2, "little")
    path.write_bytes(gzip.compress(bytes(content)))


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def sheared(affine: np.ndarray) -> np.ndarray:
    lengths = nib.affines.voxel_sizes(affine)
    affine[:3, 2] += 0.8 * affine[:3, 1] * lengths[2] / lengths[1]
    return affine


def scaled(affine: np.ndarray) -> np.ndarray:
    return affine @ np.diag([100.0, 100, 100, 1])


def both(change, turn=lambda affine: affine):
    def damage(image: Path, mask: Path) -> None:
        rewrite(image, change, turn)
        rewrite(mask, change, turn)

    return damage


# How a case is broken, and the words that tell so.
DAMAGES = {
    "CRC check failed": lambda image, mask: flip_bit(image),
    "ended before": lambda image, mask: image.write_bytes(image.read_bytes()[:-8]),
    "least value is 0": lambda image, mask: rewrite(image, lambda hu: (hu - hu.min()) / np.ptp(hu.astype(float))),
    "not HU": lambda image, mask: rewrite(image, lambda hu: hu + 1024),
    "empty": lambda image, mask: rewrite(mask, np.zeros_like),
    "100% of all voxels": lambda image, mask: rewrite(mask, np.ones_like),
    "data code 77": lambda image, mask: set_header(image, 70, 77),
    "no mask of this id": lambda image, mask: mask.unlink(),
    "mm along I, too coarse": both(lambda array: array, scaled),
    "claims": lambda image, mask: set_header(image, 42, 27952),
    "sheared": both(lambda array: array, sheared),
    "only 1 slices": both(lambda array: array[:, :, :1]),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """Fifteen cases: one of each split is good, twelve training cases are broken, each in another way."""
    root = tmp_path_factory.mktemp("broken") / "verse"
    write_phantom_dataset(root, {"training": 13, "validation": 1, "test": 1}, seed=3, size="tiny")
    images = sorted(root.rglob("*_ct.nii.gz"))
    for damage, image in zip(DAMAGES.values(), [path for path in images if "phantom1" in path.name][1:], strict=True):
        (mask,) = root.rglob(image.name.replace("_ct.nii.gz", "_seg-vert_msk.nii.gz"))
        damage(image, mask)
    return root


def test_twelve_broken_cases_are_named_and_the_three_good_ones_preprocessed(broken, tmp_path, run_script):
    arguments = ("--data_path", broken, "--task", "segmentation", "--workers", 1, "--output", "out")
    result = run_script("preprocessing.py", *arguments, cwd=tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    at_first, at_last = result.stderr.split("segmentation H5", 1)
    for number, words in enumerate(DAMAGES, start=101):
        (line,) = [line for line in at_last.splitlines() if line.startswith(f"left out: sub-phantom{number}")]
        assert words in line and f"sub-phantom{number}" in line.split(": ", 2)[2]
    assert at_first.count("left out: ") == 7  # those whose headers tell, before any work
    assert "12 left out; mend them and run the same command again" in at_last
    store = H5Cases(tmp_path / result.stdout.strip())
    found = {split: [name[:14] for name in store.case_ids(split)] for split in ("training", "validation", "test")}
    assert found == {"training": ["sub-phantom100"], "validation": ["sub-phantom200"], "test": ["sub-phantom300"]}
    assert len(store.notes["left_out"]) == 12


def test_the_table_names_all_of_them_by_kind(broken, tmp_path, run_script):
    result = run_script("verse_utils/check/__main__.py", broken, "--workers", 1, "--json", "found.json", cwd=tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "15 cases: " in result.stdout and "12 unusable" in result.stdout
    content = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    kinds = {case["case_id"][:14]: case["findings"][0]["kind"] for case in content["cases"] if not case["usable"]}
    expected = ["file", "file", "intensities", "intensities", "mask", "mask", "file", "pairing", "grid", "file", "grid"]
    assert kinds == {f"sub-phantom{101 + n}": kind for n, kind in enumerate([*expected, "grid"])}
    for number, words in enumerate(DAMAGES, start=101):
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"unusable: sub-phantom{number}")]
        assert words in line


def test_good_cases_leave_with_0(phantom_root, tmp_path, run_script):
    result = run_script("verse_utils/check/__main__.py", phantom_root, "--workers", 1, cwd=tmp_path)
    assert result.returncode == 0 and "4 cases: " in result.stdout and "0 unusable" in result.stdout


def test_a_full_disk_keeps_the_findings_of_before(
    phantom_root, tmp_path, run_script, monkeypatch, assert_one_line_error
):
    def fail(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "found.json").write_text("before", encoding="utf-8")
    monkeypatch.setattr("verse_utils.files.writing.bring_to_disk", fail)
    check = ("verse_utils/check/__main__.py", phantom_root, "--workers", 1, "--json", "found.json")
    assert_one_line_error(run_script(*check, cwd=tmp_path), "found.json", "can't be written (No space left on device)")
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    assert (tmp_path / "found.json").read_text(encoding="utf-8") == "before"


def test_the_number_of_workers_changes_nothing(phantom_root, tmp_path, run_script):
    root = shutil.copytree(phantom_root, tmp_path / "verse")
    flip_bit(sorted(root.rglob("*_ct.nii.gz"))[0])
    runs = [
        run_script("verse_utils/check/__main__.py", root, "--workers", workers, cwd=tmp_path, process=workers > 1)
        for workers in (1, 2)
    ]
    assert runs[0].stdout == runs[1].stdout and runs[0].returncode == runs[1].returncode == 1


def test_wrong_calls_are_one_line(phantom_root, tmp_path, run_script, assert_one_line_error):
    check = "verse_utils/check/__main__.py"
    assert_one_line_error(run_script(check, "absent", cwd=tmp_path), "absent", "no such file or folder")
    assert_one_line_error(run_script(check, phantom_root, "--exclude", "x*", cwd=tmp_path), "--exclude x*", "no case")
    assert_one_line_error(run_script(check, phantom_root, "--workers", 0, cwd=tmp_path), "--workers 0")
    result = run_script(check, phantom_root, "--workers", 1, "--json", "absent/a.json", cwd=tmp_path)
    assert_one_line_error(result, "absent/a.json", "can't be written")
    assert not result.stdout  # said before the work


def test_all_cases_at_fault_is_one_line(broken, tmp_path, run_script, assert_one_line_error):
    arguments = ("--data_path", broken, "--workers", 1, "--include", "sub-phantom102*", "sub-phantom108*")
    assert_one_line_error(run_script("preprocessing.py", *arguments, cwd=tmp_path), "no case can be used")
    assert not list(tmp_path.iterdir())


def test_of_one_scan_in_two_splits_preprocessing_leaves_out_the_one_in_training(phantom_root, tmp_path):
    root = shutil.copytree(phantom_root, tmp_path / "verse")
    one, other = (next(root.rglob(f"sub-phantom{n}*_ct.nii.gz")) for n in (100, 300))
    shutil.copy(one, other)
    masks = [next(root.rglob(f"sub-phantom{n}*_msk.nii.gz")) for n in (100, 300)]
    shutil.copy(masks[0], masks[1])
    path = preprocess(root, 19, IsotropicSettings(3.0), tmp_path, 1, pictures=False)
    store = H5Cases(path)
    for note, case_id in (("left_out", "sub-phantom100"), ("remarks", "sub-phantom300")):
        (line,) = (line for line in store.notes[note] if "the same scan as" in line)
        assert line.startswith(case_id)
    assert "sub-phantom100" not in store.case_ids("training") and len(store.case_ids("test")) == 1
