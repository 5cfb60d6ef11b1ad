import multiprocessing
import os
import pickle
import shutil
import signal

import h5py
import numpy as np
import pytest

from utils.h5_cases import BONE_INDEX_SIZE, H5Cases, StoredCase, case_file, is_written, write_case, write_links
from utils.working_grid import WorkingGrid
from verse_utils.errors import UserError

SETTINGS = {"task": "segmentation", "spacing_mm": 1.0}
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(-1000, 1500, (40, 50, 60)).astype(np.int16)
LABEL = (RNG.random((40, 50, 60)) < 0.4).astype(np.uint8) * 20
GRID = WorkingGrid.isotropic((40, 50, 60), np.diag([-1.0, 1, 1, 1]), 1.0)


def write(h5_path, case_id="sub-a", split="training"):
    path = case_file(h5_path, split, case_id)
    write_case(path, StoredCase(case_id, "sub-a", split, GRID), IMAGE, LABEL, SETTINGS, {"ct": 1})
    return path


@pytest.fixture
def h5_path(tmp_path):
    path = tmp_path / "data" / "some_name_1.5mm.h5"
    write(path)
    write_links(path, "segmentation", SETTINGS, [("training", "sub-a")])
    return path


def test_what_is_written_is_read(h5_path):
    store = H5Cases(h5_path, "segmentation")
    assert store.case_ids("training") == ["sub-a"] and store.case_ids("test") == []
    where = (slice(3, 9), slice(40, 50), slice(0, 60))
    image_hu, label = store.read("training", "sub-a", where)
    np.testing.assert_array_equal(image_hu, IMAGE[where])
    np.testing.assert_array_equal(label, LABEL[where])
    case = store.case("training", "sub-a")
    np.testing.assert_allclose(case.grid.affine, GRID.affine)
    np.testing.assert_array_equal(case.grid.undo(IMAGE, fill=0), GRID.undo(IMAGE, fill=0))
    bone = store.bone_vox("training", "sub-a")
    assert len(bone) == BONE_INDEX_SIZE and (LABEL[tuple(bone.T)] == 20).all()
    assert np.ptp(bone, axis=0).min() >= 35  # from all over the volume


def test_links_serve_other_readers_and_the_pair_can_be_moved(h5_path, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.move(h5_path.parent, moved)
    with h5py.File(moved / h5_path.name) as file:
        np.testing.assert_array_equal(file["training/sub-a/image"][0], IMAGE[0])
    np.testing.assert_array_equal(H5Cases(moved / h5_path.name).read("training", "sub-a")[0], IMAGE)


def test_data_are_compressed_in_patch_sized_chunks(h5_path):
    with h5py.File(case_file(h5_path, "training", "sub-a")) as file:
        assert file["case/image"].chunks == (32, 32, 32)
        assert "32026" in str(file["case/image"]._filters)  # Blosc2's registered number
        assert file["case/label"].id.get_storage_size() < LABEL.nbytes / 2


def test_a_case_is_current_only_with_the_same_settings_and_source(h5_path):
    path = case_file(h5_path, "training", "sub-a")
    assert is_written(path, SETTINGS, {"ct": 1})
    assert not is_written(path, SETTINGS, {"ct": 2})
    assert not is_written(path, {**SETTINGS, "spacing_mm": 2.0}, {"ct": 1})
    path.write_bytes(path.read_bytes()[:1000])
    assert not is_written(path, SETTINGS, {"ct": 1})


def _write_and_die(path):
    import utils.misc

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    utils.misc.os.replace = die
    write(path)


def test_a_killed_writer_leaves_no_case(tmp_path):
    path = tmp_path / "data.h5"
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not case_file(path, "training", "sub-a").exists()
    assert write(path).exists()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_handles_open_once_in_each_process(h5_path, method):
    store = H5Cases(h5_path)
    store.read("training", "sub-a")
    with multiprocessing.get_context(method).Pool(1) as pool:
        image_hu, _ = pool.apply(store.read, ("training", "sub-a"))
    np.testing.assert_array_equal(image_hu, IMAGE)
    assert pickle.loads(pickle.dumps(store))._open_groups == {}


def test_other_files_are_refused(h5_path, tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("no HDF5", encoding="utf-8")
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["training"] = [1]
    older = tmp_path / "older.h5"
    shutil.copy(h5_path, older)
    with h5py.File(older, "a") as file:
        file.attrs["schema_version"] = 0
    for path, words in (
        (tmp_path / "absent.h5", "no such file"),
        (text, "not an HDF5 file"),
        (foreign, "schema is None"),
        (older, "version 0"),
    ):
        with pytest.raises(UserError, match=f"{path.name}.*{words}"):
            H5Cases(path)
    with pytest.raises(UserError, match="made for the task segmentation, not heatmap"):
        H5Cases(h5_path, "heatmap")


def test_a_missing_case_file_is_named(h5_path):
    case_file(h5_path, "training", "sub-a").unlink()
    with pytest.raises(UserError, match=r"sub-a\.h5.*run preprocessing\.py again"):
        H5Cases(h5_path).read("training", "sub-a")
