import gc
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from utils.files.scratch import Scratch, return_freed_memory
from verse_utils.errors import UserError


@pytest.mark.parametrize("shape", [(70, 66, 40), (3, 2, 1)])
def test_a_volume_gives_back_what_was_written(shape):
    values = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    volume = Scratch().volume("hu", shape, np.int16, fill=-1000)
    assert volume.shape == shape and volume.dtype == np.int16 and (volume[...] == -1000).all()
    for x in range(0, shape[0], 16):
        volume[x : x + 16] = values[x : x + 16]
    gc.collect()  # the volume alone keeps its file
    np.testing.assert_array_equal(volume[...], values)
    np.testing.assert_array_equal(volume[1:3, :, :1], values[1:3, :, :1])


def test_no_file_is_to_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch = Scratch()
    scratch.volume("a", (64, 64, 64), np.float32)[...] = np.ones((64, 64, 64))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_it_is_full(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 64**3))
    scratch = Scratch()
    scratch.volume("first", (64, 64, 64), np.int16)
    with pytest.raises(
        UserError, match=r"temporary file takes about 1.0 MB, and 786 kB are free; name a larger folder in TMPDIR"
    ):
        scratch.volume("second", (64, 64, 64), np.int16)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_a_disk_that_becomes_full_meanwhile_is_one_line(monkeypatch):
    """By another process, as where several scans are segmented at once."""
    scratch = Scratch()
    volume = scratch.volume("a", (64, 64, 64), np.int16)
    os.dup2(os.open("/dev/full", os.O_RDWR), scratch._target.fileno())
    with pytest.raises(UserError, match=r"a temporary file can't be written \(No space left on device\); name another"):
        for _ in range(100):  # what is not whole stays in memory for a while
            volume[...] = np.ones((64, 64, 64))
            _ = volume[:4]
            scratch._file.flush()


def test_a_folder_that_takes_no_file_is_one_line(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null/nowhere")
    with pytest.raises(UserError, match=r"a temporary file /dev/null/.* can't be written \(Not a directory\); name"):
        Scratch()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc")
def test_freed_memory_goes_back():
    def resident_mb():
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    del (large := [np.ones(31 * 2**17)])[0]  # from now on glibc keeps arrays of up to 31 MB for itself
    arrays = [np.ones(2**17) for _ in range(200)]
    kept = arrays[::20]
    del arrays, large
    before = resident_mb()
    return_freed_memory()
    assert resident_mb() < before - 100 and all(array[0] == 1 for array in kept)
