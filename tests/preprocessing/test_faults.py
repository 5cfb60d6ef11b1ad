"""Wrong calls, and disks and processes that fail: one line, and nothing half-written."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import preprocessing
from preprocessing import IsotropicSettings, preprocess
from utils.files.h5_packing import only_writer
from verse_utils.cases import find_cases
from verse_utils.check.findings import CaseReport
from verse_utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


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

    monkeypatch.setattr("verse_utils.files.writing.bring_to_disk", fail)
    with pytest.raises(
        UserError, match=r"^[^;]*\.cases/.*\.h5: can't be written \(No space left on device\); make room,"
    ):
        preprocess(root, 19, IsotropicSettings(6.0), tmp_path / "out", workers=1, pictures=False)
    assert len(writes) == 1 and not (tmp_path / "out").exists()


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


def test_what_stops_one_task_does_not_stop_the_other(root, tmp_path, run_script, assert_one_line_error):
    blocked = tmp_path / "preprocessed" / "verse_verse19_heatmap_16x16x32.h5"
    blocked.mkdir(parents=True)
    (blocked / "a folder, not a file").touch()
    arguments = ("--data_path", "verse", "--workers", 1, "--input_shape", 16, 16, 32)
    result = run_script("preprocessing.py", *arguments, cwd=tmp_path)
    assert_one_line_error(result, "heatmap_16x16x32.h5")
    assert result.stdout.strip() == "preprocessed/verse_verse19_segmentation_1mm.h5"
