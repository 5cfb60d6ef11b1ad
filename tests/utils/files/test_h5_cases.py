import multiprocessing
import os
import pickle
import resource
import shutil
import signal

import h5py
import numpy as np
import pytest

from utils.files.h5_cases import (
    FOREGROUND_INDEX_SIZE,
    H5Cases,
    StoredCase,
    case_file,
    header_of,
    is_written,
    write_case,
)
from utils.files.h5_packing import pack_cases
from utils.geometry.working_grid import WorkingGrid
from utils.tasks import HEATMAP, SEGMENTATION
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
    pack_cases(path, SEGMENTATION, SETTINGS, [("training", "sub-a")])
    return path


def test_what_is_written_is_read(h5_path):
    store = H5Cases(h5_path, SEGMENTATION)
    assert store.case_ids("training") == ["sub-a"] and store.case_ids("test") == []
    where = (slice(3, 9), slice(40, 50), slice(0, 60))
    image_hu, label = store.read("training", "sub-a", where)
    np.testing.assert_array_equal(image_hu, IMAGE[where])
    np.testing.assert_array_equal(label, LABEL[where])
    case = store.case("training", "sub-a")
    np.testing.assert_allclose(case.grid.affine, GRID.affine)
    for (_, slab), (_, expected) in zip(case.grid.undo_slabs(IMAGE), GRID.undo_slabs(IMAGE), strict=True):
        np.testing.assert_array_equal(slab, expected)
    foreground = store.foreground_vox("training", "sub-a")
    assert len(foreground) == FOREGROUND_INDEX_SIZE and (LABEL[tuple(foreground.T)] == 20).all()
    assert np.ptp(foreground, axis=0).min() >= 35  # from all over the volume


def test_plain_h5py_finds_all_in_the_one_file_wherever_it_is_copied_to(h5_path, tmp_path):
    copied = shutil.copy(h5_path, tmp_path / "another name.h5")
    shutil.rmtree(h5_path.parent)
    found = []
    with h5py.File(copied) as file:
        file.visit(found.append)
        np.testing.assert_array_equal(file["training/sub-a/image"][0], IMAGE[0])
    assert found == ["training", "training/sub-a", *(f"training/sub-a/{n}" for n in ("bone_vox", "image", "label"))]
    np.testing.assert_array_equal(H5Cases(copied).read("training", "sub-a")[0], IMAGE)


def test_data_are_compressed_in_patch_sized_chunks(h5_path):
    with h5py.File(h5_path) as file:
        group = file["training/sub-a"]
        assert group["image"].chunks == (32, 32, 32)
        assert "32026" in str(group["image"]._filters)  # Blosc2's registered number
        assert group["label"].id.get_storage_size() < LABEL.nbytes / 2


def test_a_case_is_current_only_with_the_same_settings_and_source(h5_path):
    name = (h5_path, "training", "sub-a")
    assert is_written(*name, SETTINGS, {"ct": 1})
    assert not is_written(*name, SETTINGS, {"ct": 2})
    assert not is_written(*name, {**SETTINGS, "spacing_mm": 2.0}, {"ct": 1})
    other = write(h5_path, "sub-b")
    assert is_written(h5_path, "training", "sub-b", SETTINGS, {"ct": 1})  # in a file of its own
    other.write_bytes(other.read_bytes()[:1000])
    assert not is_written(h5_path, "training", "sub-b", SETTINGS, {"ct": 1})


def _write_and_die(path):
    import verse_utils.files.writing

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    verse_utils.files.writing.os.replace = die
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
    assert pickle.loads(pickle.dumps(store))._file is None


def _write_with_room_for(path, size, error):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        write(path)
    except UserError as found:
        error.put(str(found))


@pytest.mark.parametrize("size", [0, 3000, 100_000])
def test_a_disk_that_becomes_full_is_one_line_and_no_crash_of_hdf5(tmp_path, size):
    context = multiprocessing.get_context("fork")
    error = context.SimpleQueue()
    process = context.Process(target=_write_with_room_for, args=(tmp_path / "a.h5", size, error))
    process.start()
    process.join()
    assert process.exitcode == 0 and "sub-a.h5: can't be written (File too large); make room" in error.get()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


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
        H5Cases(h5_path, HEATMAP)


def test_links_of_earlier_versions_are_one_line_with_the_remedy(h5_path):
    h5_path.unlink()
    with h5py.File(h5_path, "w") as file:
        file.attrs.update({**header_of(SEGMENTATION, SETTINGS), "schema_version": 1})
        file["training/sub-a"] = h5py.ExternalLink("some_name_1.5mm.cases/training/sub-a.h5", "/case")
    with pytest.raises(UserError, match=r"holds links to .*some_name_1\.5mm\.cases.*; run the same preprocessing\.py"):
        H5Cases(h5_path)


def test_a_case_that_is_gone_is_named(h5_path):
    store = H5Cases(h5_path)
    with h5py.File(h5_path, "a") as file:
        del file["training/sub-a"]
    with pytest.raises(UserError, match=r"some_name_1\.5mm\.h5: training/sub-a can't be read .*run preprocessing\.py"):
        store.read("training", "sub-a")


def _read_all(h5_path):
    store = H5Cases(h5_path)
    case = store.case("training", "sub-a")
    arrays = [*store.read("training", "sub-a"), store.foreground_vox("training", "sub-a")]
    attributes = [case.patient, case.grid.affine, case.grid.scale, case.grid.offset, case.grid.source_affine]
    return [np.asarray(value).tobytes() for value in (*arrays, *attributes)]


def test_no_flipped_bit_is_read_as_data(h5_path):
    content, expected = h5_path.read_bytes(), _read_all(h5_path)
    rng = np.random.default_rng(1)
    found = 0
    for position in rng.integers(len(content), size=60):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        h5_path.unlink()  # HDF5 gives what it read before where the same file is still open
        h5_path.write_bytes(damaged)
        try:
            assert _read_all(h5_path) == expected, position  # a bit in space that nothing uses
        except UserError as error:
            assert h5_path.name in str(error) and "\n" not in str(error)
            found += 1
    assert found > 50


def test_without_foreground_there_is_no_index(tmp_path):
    path = case_file(tmp_path / "a.h5", "training", "sub-a")
    write_case(path, StoredCase("sub-a", "sub-a", "training", GRID), IMAGE, LABEL * 0, SETTINGS, {})
    pack_cases(tmp_path / "a.h5", SEGMENTATION, SETTINGS, [("training", "sub-a")])
    assert H5Cases(tmp_path / "a.h5").foreground_vox("training", "sub-a").shape == (0, 3)


@pytest.mark.parametrize(
    ("edit", "read"),
    [
        (lambda case: case.move("image", "was") or case.create_group("image"), lambda store, name: store.read(*name)),
        (lambda case: case.attrs.pop("source_shape"), lambda store, name: store.case(*name)),
        (lambda case: case.attrs.create("scale", [np.nan] * 3), lambda store, name: store.case(*name)),
        (lambda case: case.attrs.modify("source_affine", np.zeros((4, 4))), lambda store, name: store.case(*name)),
        (lambda case: case.attrs.create("offset", [0.0, 0.0]), lambda store, name: store.case(*name)),
        (lambda case: case.attrs.create("patient", [1, 2]), lambda store, name: store.case(*name)),
        (lambda case: case.attrs.modify("source", "{"), lambda store, name: store.scan(*name)),
        (lambda case: case.attrs.modify("notes", "[]"), lambda store, name: store.scan(*name)),
    ],
    ids=["a group for voxels", "no shape", "no scale", "no affine", "two axes", "no patient", "no JSON", "other JSON"],
)
def test_a_case_that_was_edited_by_hand_is_named(h5_path, edit, read):
    with h5py.File(h5_path, "r+") as file:
        edit(file["training/sub-a"])
    with pytest.raises(UserError, match=r"training/sub-a can't be read, the file is damaged \(.+\); remove it and run"):
        read(H5Cases(h5_path, SEGMENTATION), ("training", "sub-a"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settings", None),
        ("settings", "{"),
        ("settings", "[]"),
        ("settings", '{"spacing_mm": NaN}'),
        ("settings", '{"spacing_mm": "1"}'),
        ("settings", '{"shape": [64, 0, 64]}'),
        ("settings", "{}"),
        ("settings", 3),
        ("notes", "[]"),
        ("notes", '{"left_out": 3}'),
        ("notes", np.arange(3)),
        ("task", None),
        ("schema", np.arange(3)),
        ("schema_version", np.arange(3)),
    ],
)
def test_a_header_that_was_edited_by_hand_is_named(h5_path, name, value):
    with h5py.File(h5_path, "r+") as file:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value
    with pytest.raises(UserError, match=r"some_name_1\.5mm\.h5: (its header is damaged|schema is) .*preprocessing\.py"):
        H5Cases(h5_path, SEGMENTATION)
