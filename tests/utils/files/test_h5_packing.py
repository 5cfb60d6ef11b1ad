"""One H5 of all cases: written whole, from files and from the H5 before, whatever kills it."""

import os
import resource
import shutil
import signal
import sys
from multiprocessing import get_context
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from utils.files.h5_cases import H5Cases, StoredCase, case_file, is_written, write_case
from utils.files.h5_packing import only_writer, pack_cases
from utils.geometry.working_grid import WorkingGrid
from utils.tasks import SEGMENTATION
from verse_utils.errors import UserError

SETTINGS = {"spacing_mm": 1.0}
SHAPE = (40, 33, 70)  # 2 × 2 × 3 chunks
GRID = WorkingGrid.isotropic(SHAPE, np.eye(4), 1.0)
A, B, C = (("training", "sub-a"), ("test", "sub-b"), ("training", "sub-c"))


def write(h5_path, name, value):
    """A case file whose source is a value, and whose voxels come from it."""
    image = np.random.default_rng(value).integers(-1000, 1500, SHAPE).astype(np.int16)
    case = StoredCase(name[1], name[1], name[0], GRID)
    write_case(case_file(h5_path, *name), case, image, (image > 900).astype(np.uint8), SETTINGS, {"ct": value})


def holds(h5_path, name, value):
    return is_written(h5_path, *name, SETTINGS, {"ct": value})


def pack(h5_path, *names):
    with only_writer(h5_path):
        pack_cases(h5_path, SEGMENTATION, SETTINGS, names)


def files(h5_path):
    return sorted(path.stem for path in h5_path.with_suffix(".cases").rglob("*.*"))


@pytest.fixture
def h5_path(tmp_path):
    """An H5 that holds A and B. A was made anew since, and C is new: both are files."""
    path = tmp_path / "out" / "verse[19] 1.5mm.h5"
    write(path, A, 1)
    write(path, B, 2)
    pack(path, A, B)
    assert not path.with_suffix(".cases").exists()
    write(path, A, 11)
    write(path, C, 3)
    return path


def test_chunks_are_copied_as_they_are(h5_path):
    with h5py.File(case_file(h5_path, *C)) as file:
        chunks = {name: _chunks(file["case"][name]) for name in ("image", "label")}
    pack(h5_path, A, C)
    with h5py.File(h5_path) as file:
        for name, expected in chunks.items():
            dataset = file["training/sub-c"][name]
            assert _chunks(dataset) == expected and len(expected) == 12
            assert "32026" in str(dataset._filters)


def _chunks(dataset):
    starts = [dataset.id.get_chunk_info(n).chunk_offset for n in range(dataset.id.get_num_chunks())]
    return {start: dataset.id.read_direct_chunk(start) for start in starts}


def test_a_new_file_replaces_a_case_and_what_is_not_wanted_becomes_a_file_again(h5_path):
    pack(h5_path, A, C)
    store = H5Cases(h5_path, SEGMENTATION)
    assert store.case_ids("training") == ["sub-a", "sub-c"] and store.case_ids("test") == []
    expected = np.random.default_rng(11).integers(-1000, 1500, SHAPE)
    np.testing.assert_array_equal(store.read(*A)[0], expected)
    assert files(h5_path) == ["sub-b"]
    pack(h5_path, A, B, C)
    assert files(h5_path) == [] and holds(h5_path, B, 2)
    assert [path.name for path in h5_path.parent.iterdir()] == [h5_path.name]


def test_nothing_is_written_where_nothing_is_new(h5_path):
    pack(h5_path, A, B, C)
    before = h5_path.stat().st_ino
    write(h5_path, C, 3)  # as if it had been killed between the renaming and the removal of the files
    pack(h5_path, A, B, C)
    assert h5_path.stat().st_ino == before and files(h5_path) == []
    with h5py.File(h5_path, "a") as file:
        file.attrs["schema_version"] = 1
    write(h5_path, A, 11), write(h5_path, B, 2), write(h5_path, C, 3)
    pack(h5_path, A, B, C)
    assert H5Cases(h5_path).case_ids("training") == ["sub-a", "sub-c"]


_STEPS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir")


def _pack_and_die(h5_path, count):
    """Pack in a process that kills itself just before its file operation of this number."""
    left = [count]

    def die(event, _arguments):
        if event in _STEPS:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    pack(h5_path, A, C)
    os._exit(0)


def test_killed_at_any_step_no_case_is_lost_and_the_next_run_ends_it(h5_path, tmp_path):
    for count in range(100):
        path = shutil.copytree(h5_path.parent, tmp_path / str(count)) / h5_path.name
        process = get_context("fork").Process(target=_pack_and_die, args=(path, count))
        process.start()
        process.join()
        assert holds(path, A, 11) and holds(path, B, 2) and holds(path, C, 3), count
        assert set(H5Cases(path).case_ids("training")) in ({"sub-a"}, {"sub-a", "sub-c"}), count
        pack(path, A, C)
        assert holds(path, A, 11) and holds(path, B, 2) and holds(path, C, 3), count
        assert H5Cases(path).case_ids("training") == ["sub-a", "sub-c"] and files(path) == ["sub-b"], count
        assert not list(path.parent.rglob(".*")), count
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        shutil.rmtree(path.parent)
    assert count > 15


def test_a_disk_without_room_is_one_line_before_anything_is_written(h5_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"1\.5mm\.h5: one file of all cases takes about .* and 1\.0 kB are free; make"):
        pack(h5_path, A, C)
    assert files(h5_path) == ["sub-a", "sub-c"] and H5Cases(h5_path).case_ids("test") == ["sub-b"]


def _pack_on_a_full_disk(h5_path, room, error):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        pack(h5_path, A, C)
    except UserError as found:
        error.put(str(found))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.98])
def test_a_disk_that_becomes_full_is_one_line_and_no_case_is_lost(h5_path, share):
    context = get_context("fork")
    error = context.SimpleQueue()
    room = int(share * sum(case_file(h5_path, *name).stat().st_size for name in (A, C)))
    process = context.Process(target=_pack_on_a_full_disk, args=(h5_path, room, error))
    process.start()
    process.join()
    assert process.exitcode == 0
    message = error.get()
    assert "can't be written" in message and "make room" in message and "\n" not in message
    assert holds(h5_path, A, 11) and holds(h5_path, B, 2) and holds(h5_path, C, 3)
    assert H5Cases(h5_path).case_ids("test") == ["sub-b"] and not list(h5_path.parent.rglob(".*"))
    pack(h5_path, A, B, C)
    assert H5Cases(h5_path).case_ids("training") == ["sub-a", "sub-c"]
