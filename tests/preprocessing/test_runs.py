"""Whole data sets: first, further and killed runs, by other processes, and what a case becomes."""

import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

import preprocessing
from preprocessing import IsotropicSettings, preprocess, preprocess_case
from utils.constants import HU_AIR
from utils.files.find_scans import ScanSource
from utils.files.h5_cases import H5Cases, case_file
from utils.files.scans import open_scan
from utils.tasks import HEATMAP
from verse_utils.cases import Case, find_cases
from verse_utils.errors import UserError
from verse_utils.images import read_case

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


def test_both_tasks_and_a_second_run_that_does_nothing(root, tmp_path, run_script):
    result = run_script("preprocessing.py", "--data_path", "verse", "--workers", 1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    heatmap, segmentation = map(tmp_path.joinpath, result.stdout.split())
    assert heatmap.name == "verse_verse19_heatmap_64x64x128.h5"
    assert segmentation.name == "verse_verse19_segmentation_1mm.h5"
    assert H5Cases(heatmap, HEATMAP).read("test", H5Cases(heatmap).case_ids("test")[0])[0].shape == (64, 64, 128)
    assert len(list(heatmap.with_suffix(".pictures").glob("*.png"))) == 4
    assert {path.name for path in heatmap.parent.iterdir()} == {
        path.with_suffix(suffix).name for path in (heatmap, segmentation) for suffix in (".h5", ".pictures")
    }
    times = heatmap.stat().st_mtime_ns, segmentation.stat().st_mtime_ns
    result = run_script("preprocessing.py", "--data_path", "verse", "--workers", 1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (heatmap.stat().st_mtime_ns, segmentation.stat().st_mtime_ns) == times


def test_cases_that_come_later_are_added_and_none_is_made_twice(root, tmp_path, monkeypatch, h5_content):
    made = []
    write = preprocessing._write
    monkeypatch.setattr(preprocessing, "_write", lambda case, *rest: (made.append(case.case_id), write(case, *rest)))

    def run(*exclude: str) -> tuple[list[str], dict]:
        made.clear()
        path = preprocess(root, 19, IsotropicSettings(3.0), tmp_path, 1, exclude, pictures=False)
        return sorted(made), h5_content(path)

    ids = sorted(case.case_id for case in find_cases(root, 19))
    fewer = run(ids[0], ids[1])
    assert fewer[0] == ids[2:]
    assert run(ids[0])[0] == [ids[1]]
    added, whole = run()
    assert added == [ids[0]]
    assert run(ids[0], ids[1]) == ([], fewer[1])
    assert run() == ([], whole)


def test_killed_alone_its_workers_end_and_the_next_run_goes_on(
    root, heatmap_h5, tmp_path, run_script, wait_until, group_runs, h5_content
):
    arguments = ("--data_path", "verse", "--task", "heatmap", "--input_shape", 16, 16, 32, "--workers", 2)
    command = [sys.executable, Path(preprocessing.__file__), *map(str, arguments)]
    run = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_until(lambda: any(tmp_path.glob("preprocessed/*")))
    run.kill()
    run.wait()
    wait_until(lambda: not group_runs(run.pid))
    result = run_script("preprocessing.py", *arguments[:-1], 1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    path = tmp_path / result.stdout.strip()
    assert h5_content(path) == h5_content(heatmap_h5)
    assert {other.name for other in path.parent.iterdir()} == {path.name, path.with_suffix(".pictures").name}


def test_the_workers_of_a_scheduler_write_the_same(root, heatmap_h5, tmp_path, run_script, dask_scheduler, h5_content):
    arguments = ("--data_path", "verse", "--task", "heatmap", "--input_shape", 16, 16, 32, "--output", "out")
    scheduler = ("--scheduler", dask_scheduler)
    result = run_script("preprocessing.py", *arguments, *scheduler, cwd=tmp_path, process=True)
    assert result.returncode == 0, result.stderr
    assert "distributed" not in result.stderr, result.stderr
    path = tmp_path / "out" / "verse_verse19_heatmap_16x16x32.h5"
    assert Path(result.stdout.strip()) == path.resolve()
    assert len(list(path.with_suffix(".pictures").glob("*.png"))) == 4
    assert h5_content(path) == h5_content(heatmap_h5)


def test_files_that_were_only_copied_are_not_made_again(root, tmp_path, monkeypatch):
    settings = IsotropicSettings(3.0)
    preprocess(root, 19, settings, tmp_path, 1, pictures=False)
    for path in root.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(preprocessing, "_write", lambda *_: pytest.fail("made again"))
    preprocess(root, 19, settings, tmp_path, 1, pictures=False)


def test_two_folders_of_one_name_do_not_overwrite_each_other(root, tmp_path):
    other = shutil.copytree(root, tmp_path / "elsewhere" / root.name)
    settings = IsotropicSettings(3.0)
    path = preprocess(root, 19, settings, tmp_path / "out", 1, pictures=False)
    content = path.read_bytes()
    with pytest.raises(UserError, match=r"verse_verse19_segmentation_3mm\.h5: was made from .*choose another --output"):
        preprocess(other, 19, settings, tmp_path / "out", 1, pictures=False)
    assert path.read_bytes() == content
    shutil.rmtree(root)  # a folder that was moved is no other
    assert preprocess(other, 19, settings, tmp_path / "out", 1, pictures=False) == path


def test_an_h5_has_the_name_of_its_data_as_it_was_given(tmp_path, monkeypatch):
    """That of a link, which the next command of a user names, not of the folder that it leads to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "verse19").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    places = {Path("."): "elsewhere", tmp_path / "verse19": "verse19", Path("../verse19"): "verse19"}
    names = [IsotropicSettings().file_name([place], 19) for place in places]
    assert names == [f"{name}_verse19_segmentation_1mm.h5" for name in places.values()]


def test_a_stored_case_is_the_scan_at_1_mm(phantom_root, tmp_path):
    path = preprocess(phantom_root, 19, IsotropicSettings(), tmp_path, workers=1, pictures=False)
    (case,) = [case for case in find_cases(phantom_root, 19) if case.split == "test"]
    source = read_case(case)
    store = H5Cases(path)
    image_hu, label = store.read("test", case.case_id)
    grid = store.case("test", case.case_id).grid
    assert image_hu.dtype == np.int16 and label.dtype == np.uint8
    np.testing.assert_allclose(grid.spacing_mm, 1)
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")
    # What inference makes of the same file, slab by slab.
    scan = open_scan(ScanSource(case.image_path, case.case_id))
    np.testing.assert_array_equal(image_hu, grid.forward_slabs(scan.slabs(thickness=5), fill=HU_AIR))
    back_hu = np.concatenate([slab for _, slab in grid.undo_slabs(image_hu)], axis=2)
    assert np.abs(back_hu - source.image_hu).mean() < 15  # linear twice
    for number in np.unique(label):
        back = np.concatenate([slab for _, slab in grid.undo_slabs(label == number)], axis=2) > 0.5
        assert (back != (source.label == number)).sum() <= 0.001 * (source.label == number).sum()
    assert set(np.unique(label)) == set(np.unique(source.label))


def random_case(folder: Path, shape, spacing_mm, intercept: int, mask_dtype) -> Case:
    image_hu = np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)
    image = nib.Nifti1Image(image_hu, np.diag([*spacing_mm, 1.0]))
    image.header.set_slope_inter(1, intercept)  # with an intercept, nibabel computes in float64
    case = Case("sub-a", "sub-a", "training", folder / "a_ct.nii", folder / "a_msk.nii")
    nib.save(image, case.image_path)
    label = np.zeros(shape, mask_dtype)
    label[30:70, 30:70, 100:160] = 20
    nib.save(nib.Nifti1Image(label, image.affine), case.mask_path)
    return case


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "intercept", "mask_dtype"),
    [
        ((96, 96, 480), (1.0, 1.0, 0.5), 10, np.float64),
        ((192, 192, 400), (0.32, 0.32, 0.4), 10, np.float64),
        ((192, 192, 400), (0.32, 0.32, 0.4), 0, np.uint8),
    ],
)
def test_a_scan_is_never_in_memory_whole(tmp_path, shape, spacing_mm, intercept, mask_dtype):
    """As float64, the first scan alone is 8 times its int16 volume at 1 mm; of the second, four slices are 2 times."""
    settings = IsotropicSettings()
    path = tmp_path / "out" / "a.h5"
    small = random_case(tmp_path, (80, 80, 200), (1.0, 1.0, 1.0), intercept, mask_dtype)
    preprocess_case(small, settings, path, pictures=False)  # what is imported on the way is held from now on
    shutil.rmtree(path.parent / "a.cases")
    case = random_case(tmp_path, shape, spacing_mm, intercept, mask_dtype)
    tracemalloc.start()
    preprocess_case(case, settings, path, pictures=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with h5py.File(case_file(path, "training", "sub-a")) as file:
        assert peak < 4 * file["case/image"].size * 2


@pytest.mark.real_scans
def test_real_scans(real_scans, tmp_path, run_script):
    """Every case of the VerSe sample at 1 mm: HU and labels as in the files, the way back exact to a voxel's rim."""
    root = real_scans / "verse_sample"
    result = run_script("preprocessing.py", "--data_path", root, "--workers", 1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    store = H5Cases(tmp_path / result.stdout.split()[1])
    for case in find_cases(root, 19):
        source = read_case(case)
        image_hu, label = store.read(case.split, case.case_id)
        grid = store.case(case.split, case.case_id).grid
        assert set(np.unique(label)) == set(np.unique(source.label))
        assert abs(int(np.median(image_hu)) - int(np.median(source.image_hu))) < 20
        back = np.concatenate([slab for _, slab in grid.undo_slabs(label > 0)], axis=2) > 0.5
        assert 2 * (back & (source.label > 0)).sum() / (back.sum() + (source.label > 0).sum()) > 0.97
