"""preprocessing.py as its users run it: whole data sets, broken ones, and a second run."""

import errno
import os
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import nibabel as nib
import numpy as np
import pytest

import preprocessing
from preprocessing import IsotropicSettings, preprocess, preprocess_case, preprocess_cases
from utils.constants import HU_AIR
from utils.files.find_scans import ScanSource
from utils.files.h5_cases import H5Cases, case_file
from utils.files.h5_packing import only_writer
from utils.files.scans import open_scan
from utils.tasks import HEATMAP
from verse_utils.cases import Case, Chosen, find_cases
from verse_utils.check.findings import CaseReport
from verse_utils.check.selection import select_cases
from verse_utils.errors import UserError
from verse_utils.images import read_case

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own

COARSE = ("preprocessing.py", "--data_path", "verse", "--task", "heatmap", "--input_shape", 16, 16, 32, "--workers", 1)


@pytest.fixture
def root(phantom_root, tmp_path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(phantom_root, tmp_path / "verse")


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


def test_cases_that_come_later_are_added_and_none_is_made_twice(root, tmp_path, monkeypatch):
    made = []
    write = preprocessing._write
    monkeypatch.setattr(preprocessing, "_write", lambda case, *rest: (made.append(case.case_id), write(case, *rest)))

    def run(*exclude: str) -> tuple[list[str], dict]:
        made.clear()
        path = preprocess(root, 19, IsotropicSettings(3.0), tmp_path, 1, exclude, pictures=False)
        return sorted(made), _content(path)

    ids = sorted(case.case_id for case in find_cases(root, 19))
    fewer = run(ids[0], ids[1])
    assert fewer[0] == ids[2:]
    assert run(ids[0])[0] == [ids[1]]
    added, whole = run()
    assert added == [ids[0]]
    assert run(ids[0], ids[1]) == ([], fewer[1])
    assert run() == ([], whole)


def test_killed_alone_its_workers_end_and_the_next_run_goes_on(
    root, heatmap_h5, tmp_path, run_script, wait_until, group_runs
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
    assert _content(path) == _content(heatmap_h5)
    assert {other.name for other in path.parent.iterdir()} == {path.name, path.with_suffix(".pictures").name}


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


def test_another_run_that_writes_the_same_is_one_line(root, tmp_path):
    settings = IsotropicSettings()
    with only_writer(tmp_path / settings.file_name([root], 19)), pytest.raises(UserError, match="is writing it"):
        preprocess(root, 19, settings, tmp_path, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["verse"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_in_the_way_is_one_line_before_any_work(root, tmp_path, make):
    settings = IsotropicSettings()
    make(tmp_path / settings.file_name([root], 19))
    with pytest.raises(UserError, match="a folder or a device is in the way"):
        preprocess(root, 19, settings, tmp_path, workers=1)


def test_a_disk_without_room_is_one_line_before_any_work(root, tmp_path, monkeypatch):
    settings = IsotropicSettings(6.0)
    path = preprocess(root, 19, settings, tmp_path / "out", workers=1, pictures=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert preprocess(root, 19, settings, tmp_path / "out", workers=1) == path  # where nothing is to be written
    with pytest.raises(UserError, match=r"h5: writing \d cases, .* takes about .* kB, and 1.0 kB are free; make room"):
        preprocess(root, 19, settings, tmp_path / "other", workers=1)
    assert not (tmp_path / "other").exists()


def test_a_disk_that_becomes_full_is_no_fault_of_a_case_and_ends_the_run(root, tmp_path, monkeypatch):
    writes = []

    def fail(path):
        writes.append(path)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("utils.misc.bring_to_disk", fail)
    with pytest.raises(
        UserError, match=r"^[^;]*\.cases/.*\.h5: can't be written \(No space left on device\); make room,"
    ):
        preprocess(root, 19, IsotropicSettings(6.0), tmp_path / "out", workers=1, pictures=False)
    assert len(writes) == 1 and not (tmp_path / "out").exists()


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


def _content(h5_path: Path) -> dict:
    """Everything that an H5 holds, but the notes: these name the files that it was made from."""
    content = {}
    with h5py.File(h5_path) as file:
        for name in ("/", *_names(file)):
            attributes = {key: np.asarray(value).tolist() for key, value in file[name].attrs.items() if key != "notes"}
            data = file[name][()].tobytes() if isinstance(file[name], h5py.Dataset) else None
            content[name] = (attributes, data)
    return content


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def test_the_workers_of_a_scheduler_write_the_same(root, heatmap_h5, tmp_path, run_script, dask_scheduler):
    arguments = ("--data_path", "verse", "--task", "heatmap", "--input_shape", 16, 16, 32, "--output", "out")
    scheduler = ("--scheduler", dask_scheduler)
    result = run_script("preprocessing.py", *arguments, *scheduler, cwd=tmp_path, process=True)
    assert result.returncode == 0, result.stderr
    assert "distributed" not in result.stderr, result.stderr
    path = tmp_path / "out" / "verse_verse19_heatmap_16x16x32.h5"
    assert Path(result.stdout.strip()) == path.resolve()
    assert len(list(path.with_suffix(".pictures").glob("*.png"))) == 4
    assert _content(path) == _content(heatmap_h5)


def test_workers_that_see_other_files_are_one_line(phantom_root, tmp_path, monkeypatch):
    case = replace(find_cases(phantom_root, 19)[0], image_path=Path("/elsewhere/a_ct.nii.gz"))
    settings = IsotropicSettings()
    report = preprocessing.preprocess_case(case, settings, tmp_path / "a.h5", pictures=False)
    assert "must see the same files" in report.faults[0].reason
    monkeypatch.setattr(
        preprocessing, "run_all", lambda work, cases, *_: [CaseReport(case.case_id, case.split) for case in cases]
    )
    with pytest.raises(UserError, match="--output must be a folder that all share"):
        preprocess(phantom_root, 19, settings, tmp_path / "out", scheduler="tcp://127.0.0.1:8786")
    assert not list(tmp_path.rglob("*.h5"))


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
def test_a_case_that_cannot_be_used_is_left_out_and_named(root, tmp_path, run_script, damage):
    words = damage(root)
    result = run_script(*COARSE, cwd=tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    subject = words[0].split("_")[0]
    left_out = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
    assert left_out and all(line.startswith(f"left out: {subject}") for line in left_out)
    assert all(word in left_out[-1] for word in words) and "; " in left_out[-1]
    store = H5Cases(tmp_path / result.stdout.strip())
    assert sum(len(store.case_ids(split)) for split in ("training", "validation", "test")) == 3
    assert [f"left out: {line}" for line in store.notes["left_out"]] == left_out[-1:]


@pytest.mark.parametrize("damage", [_break_missing_ct, _break_truncated], ids=lambda function: function.__name__)
def test_with_strict_damage_is_one_line_and_leaves_no_h5(root, tmp_path, run_script, assert_one_line_error, damage):
    words = damage(root)
    result = run_script(*COARSE, "--strict", cwd=tmp_path)
    assert_one_line_error(result, *words)
    assert not list(tmp_path.rglob("*_16x16x32.h5")) and not list(tmp_path.rglob(".*"))
    # Leaving the case out helps, and what was done before is kept.
    subject = words[0].split("_")[0]
    result = run_script(*COARSE, "--strict", "--exclude", subject, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with h5py.File(next(tmp_path.rglob("*_16x16x32.h5"))) as file:
        assert sum(len(file[split]) for split in file) == 3


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


def test_a_copy_of_a_test_scan_does_not_train(root, tmp_path):
    for path in [*root.rglob("*test/**/*_ct.nii.gz"), *root.rglob("*test/**/*_seg-vert_msk.nii.gz")]:
        to = Path(str(path).replace("verse19test", "verse19training").replace("sub-phantom300", "sub-phantom301"))
        to.parent.mkdir(parents=True)
        shutil.copy(path, to)
    store = H5Cases(preprocess(root, 19, IsotropicSettings(6.0), tmp_path / "out", workers=1, pictures=False))
    assert ("training", "sub-phantom301") not in store.names and ("test", "sub-phantom300") in store.names
    assert store.notes["left_out"] == [
        "sub-phantom301 (training): the same scan as sub-phantom300 (test); give both one split, or leave one out"
    ]


def test_a_case_that_was_mended_is_added(root, tmp_path, run_script):
    whole = _ct(root).read_bytes()
    _break_truncated(root)
    assert run_script(*COARSE, cwd=tmp_path).returncode == 1
    _ct(root).write_bytes(whole)
    result = run_script(*COARSE, cwd=tmp_path)
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


def test_files_that_were_only_copied_are_not_made_again(root, tmp_path, monkeypatch):
    settings = IsotropicSettings(3.0)
    preprocess(root, 19, settings, tmp_path, 1, pictures=False)
    for path in root.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(preprocessing, "_write", lambda *_: pytest.fail("made again"))
    preprocess(root, 19, settings, tmp_path, 1, pictures=False)


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


def test_what_stops_one_task_does_not_stop_the_other(root, tmp_path, run_script, assert_one_line_error):
    blocked = tmp_path / "preprocessed" / "verse_verse19_heatmap_16x16x32.h5"
    blocked.mkdir(parents=True)
    (blocked / "a folder, not a file").touch()
    arguments = ("--data_path", "verse", "--workers", 1, "--input_shape", 16, 16, 32)
    result = run_script("preprocessing.py", *arguments, cwd=tmp_path)
    assert_one_line_error(result, "heatmap_16x16x32.h5")
    assert result.stdout.strip() == "preprocessed/verse_verse19_segmentation_1mm.h5"


def test_cases_are_chosen_by_globs(root, tmp_path, run_script, assert_one_line_error):
    arguments = (*COARSE, "--include", "sub-phantom1*", "sub-phantom200*", "--exclude", "*phantom101*")
    result = run_script(*arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    store = H5Cases(tmp_path / result.stdout.strip())
    found = [store.case_ids(split) for split in ("training", "validation", "test")]
    assert [[name[:14] for name in names] for names in found] == [["sub-phantom100"], ["sub-phantom200"], []]
    for flag in ("--exclude", "--include"):
        result = run_script(*COARSE, flag, "sub-phantom9", "sub-phantom1*", cwd=tmp_path)
        assert_one_line_error(result, f"{flag} sub-phantom9 matches no case")


def test_without_validation_nothing_is_begun_unless_some_is_drawn(root, tmp_path, run_script, assert_one_line_error):
    shutil.rmtree(root / "dataset-verse19validation")
    result = run_script(*COARSE, cwd=tmp_path)
    assert_one_line_error(result, "has no validation cases", "--validation_share 0.15")
    assert not (tmp_path / "preprocessed").exists()
    chosen = []
    for seed in (0, 0, 7):
        result = run_script(*COARSE, "--validation_share", 0.15, "--seed", seed, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        store = H5Cases(tmp_path / result.stdout.strip())
        assert len(store.case_ids("training")) == len(store.case_ids("validation")) == 1
        chosen += store.case_ids("validation")
    assert chosen[0] == chosen[1] and len(set(chosen)) == 2


def test_validation_cases_are_not_drawn_twice(root, tmp_path, run_script, assert_one_line_error):
    result = run_script(*COARSE, "--validation_share", 0.15, cwd=tmp_path)
    assert_one_line_error(result, "has validation cases already; leave --validation_share out")
    result = run_script(*COARSE, "--validation_share", 1.5, cwd=tmp_path)
    assert_one_line_error(result, "--validation_share 1.5: must lie between 0 and 1")


def test_wrong_calls_are_one_line_and_write_nothing(tmp_path, run_script, assert_one_line_error):
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (["--data_path", "absent"], ["can't be downloaded", "127.0.0.1:9", "no connection"]),
        (["--data_path", "empty"], ["can't be downloaded"]),
        (["--data_path", "absent", "--no_download"], ["absent", "no such file or folder"]),
        (["--data_path", "empty", "--no_download"], ["empty", "no case"]),
        (["--data_path", "absent", "--from_zip", "nothing.zip"], ["nothing.zip", "no such file"]),
        (["--data_path", "absent", "--download", "--no_download"], ["--no_download", "not allowed with"]),
        ([], ["--data_path"]),
        (["--data_path", "empty", "--task", "other"], ["--task"]),
        (["--data_path", "empty", "--input_shape", "0", "1", "1"], ["--input_shape"]),
        (["--data_path", "empty", "--memory_gb", "0"], ["--memory_gb"]),
    ):
        assert_one_line_error(run_script("preprocessing.py", *arguments, cwd=tmp_path), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


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
