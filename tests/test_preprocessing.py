"""preprocessing.py as its users run it: whole data sets, broken ones, and a second run."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from utils.h5_cases import H5Cases
from verse_utils.cases import find_cases
from verse_utils.errors import UserError
from verse_utils.images import read_case

SEGMENTATION = ("preprocessing.py", "--data_path", "verse", "--task", "segmentation", "--workers", 1)


@pytest.fixture
def root(phantom_root, tmp_path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(phantom_root, tmp_path / "verse")


def test_both_tasks_and_a_second_run_that_does_nothing(root, tmp_path, run_script):
    result = run_script("preprocessing.py", "--data_path", "verse", cwd=tmp_path, process=True)
    assert result.returncode == 0, result.stderr
    heatmap, segmentation = map(tmp_path.joinpath, result.stdout.split())
    assert heatmap.name == "verse_verse19_heatmap_64x64x128.h5"
    assert segmentation.name == "verse_verse19_segmentation_1mm.h5"
    assert H5Cases(heatmap, "heatmap").read("test", H5Cases(heatmap).case_ids("test")[0])[0].shape == (64, 64, 128)
    assert len(list(heatmap.with_suffix(".pictures").glob("*.png"))) == 4
    files = sorted(segmentation.with_suffix(".cases").rglob("*.h5"))
    times = [file.stat().st_mtime_ns for file in files]
    files[0].unlink()  # as if the first run had been cut off
    result = run_script(
        "preprocessing.py", "--data_path", "verse", "--task", "segmentation", "--workers", 1, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert [file.stat().st_mtime_ns for file in files[1:]] == times[1:]
    assert files[0].stat().st_mtime_ns > times[0]


def test_a_stored_case_is_the_scan_at_1_mm(phantom_root, tmp_path):
    from preprocessing import Settings, preprocess

    path = preprocess(phantom_root, 19, Settings("segmentation"), tmp_path, workers=1, pictures=False)
    (case,) = [case for case in find_cases(phantom_root, 19) if case.split == "test"]
    source = read_case(case)
    store = H5Cases(path)
    image_hu, label = store.read("test", case.case_id)
    grid = store.case("test", case.case_id).grid
    assert image_hu.dtype == np.int16 and label.dtype == np.uint8
    np.testing.assert_allclose(grid.spacing_mm, 1)
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(grid.undo(label, fill=0, nearest=True), source.label)
    assert np.abs(grid.undo(image_hu, fill=-1000).astype(int) - source.image_hu).mean() < 15  # linear twice
    assert set(np.unique(label)) == set(np.unique(source.label))


def _content(h5_path: Path) -> dict:
    """Everything that an H5 and its cases hold."""
    content = {}
    for path in (h5_path, *sorted(h5_path.with_suffix(".cases").rglob("*.h5"))):
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item, place=path.stem: content.update(
                    {
                        (place, name): (
                            {key: np.asarray(value).tolist() for key, value in item.attrs.items()},
                            item[()].tobytes() if isinstance(item, h5py.Dataset) else sorted(item),
                        )
                    }
                )
            )
    return content


def test_the_workers_of_a_scheduler_write_the_same(root, heatmap_h5, tmp_path, run_script, dask_scheduler):
    arguments = ("--data_path", "verse", "--task", "heatmap", "--input_shape", 16, 16, 32, "--output", "out")
    scheduler = ("--scheduler", dask_scheduler)
    result = run_script("preprocessing.py", *arguments, *scheduler, cwd=tmp_path, process=True)
    assert result.returncode == 0, result.stderr
    assert "distributed" not in result.stderr, result.stderr
    path = tmp_path / "out" / "verse_verse19_heatmap_16x16x32.h5"
    assert Path(result.stdout.strip()) == path.resolve()
    assert len(list(path.with_suffix(".pictures").glob("*.png"))) == 4
    content = _content(path)
    assert len(content) > 4
    # Names of files begin with the names of folders, which differ.
    assert [*content.values()] == [*_content(heatmap_h5).values()]


def test_workers_that_see_other_files_are_one_line(phantom_root, tmp_path, monkeypatch):
    import preprocessing
    from preprocessing import Settings, _preprocess_case, preprocess

    case = replace(find_cases(phantom_root, 19)[0], image_path=Path("/elsewhere/a_ct.nii.gz"))
    settings = Settings("segmentation")
    assert "must see the same files" in _preprocess_case(case, settings, tmp_path / "a.h5", pictures=False)
    monkeypatch.setattr(preprocessing, "run_all", lambda work, cases, *_: [None] * len(cases))
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
def test_damage_is_one_line_and_leaves_no_h5(root, tmp_path, run_script, assert_one_line_error, damage):
    words = damage(root)
    result = run_script(
        "preprocessing.py", "--data_path", "verse", "--task", "segmentation", "--workers", 1, cwd=tmp_path
    )
    assert_one_line_error(result, *words)
    assert not list(tmp_path.rglob("*_1mm.h5")) and not list(tmp_path.rglob("*.partial"))
    # Leaving the case out helps, and what was done before is kept.
    subject = words[0].split("_")[0]
    result = run_script(
        "preprocessing.py",
        "--data_path",
        "verse",
        "--task",
        "segmentation",
        "--workers",
        1,
        "--exclude",
        subject,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    with h5py.File(next(tmp_path.rglob("*_1mm.h5"))) as file:
        assert sum(len(file[split]) for split in file) == 3


def test_wrong_calls_are_one_line_and_write_nothing(tmp_path, run_script, assert_one_line_error):
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (["--data_path", "absent"], ["absent", "no such folder"]),
        (["--data_path", "empty"], ["empty", "no case"]),
        ([], ["--data_path"]),
        (["--data_path", "empty", "--task", "other"], ["--task"]),
        (["--data_path", "empty", "--input_shape", "0", "1", "1"], ["--input_shape"]),
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
        back = grid.undo(label, fill=0, nearest=True) > 0
        assert 2 * (back & (source.label > 0)).sum() / (back.sum() + (source.label > 0).sum()) > 0.97
