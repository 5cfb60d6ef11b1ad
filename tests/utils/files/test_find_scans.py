"""Which scans a user means by files, folders and patterns."""

import os
import re
from pathlib import Path

import pytest

from utils.files.find_scans import find_scans
from utils.files.scans import open_scan
from verse_utils.errors import UserError


def names(sources):
    return [source.name for source in sources]


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def touch_dicom(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(128) + b"DICM")


def found(*inputs):
    return [source.path for source in find_scans([str(text) for text in inputs])]


def test_files_and_folders_of_files(tmp_path):
    touch(tmp_path / "b.nii.gz", tmp_path / "a.nii", tmp_path / "c.txt", tmp_path / "._b.nii.gz", tmp_path / "d.dcm")
    touch(tmp_path / "sub" / "e.nii.gz")
    assert found(tmp_path) == [tmp_path / "a.nii", tmp_path / "b.nii.gz"]
    assert found(tmp_path / "b.nii.gz", tmp_path / "c.txt", tmp_path / "a.nii") == [
        tmp_path / name for name in ("b.nii.gz", "c.txt", "a.nii")
    ]
    assert names(find_scans([str(tmp_path)])) == ["a", "b"]


def test_masks_beside_scans_are_left_out_unless_named(tmp_path):
    names = ["a_ct.nii.gz", "a_seg-vert_msk.nii.gz", "a_ct_vertebrae.nii.gz", "b.nii", "b_mask.nii"]
    touch(*(tmp_path / name for name in names))
    assert [source.path.name for source in find_scans([str(tmp_path)])] == ["a_ct.nii.gz", "b.nii"]
    assert len(find_scans([str(tmp_path / "b_mask.nii")])) == 1


def test_dicom_folders(tmp_path):
    one, other = tmp_path / "cts" / "one", tmp_path / "cts" / "other.v2"
    touch_dicom(one / "IM2", one / "IM1", tmp_path / "cts" / "DICOMDIR")
    touch(other / "x.DCM", tmp_path / "cts" / "notes" / "readme.txt", tmp_path / "cts" / "third" / "ct.nii.gz")
    touch_dicom(tmp_path / "cts" / "third" / "IM1", tmp_path / "cts" / "deep" / "er" / "IM1")
    assert found(one) == [one]
    assert found(one / "IM1", one / "IM2") == [one]  # as a shell expands one/*
    deep = tmp_path / "cts" / "deep" / "er"
    assert found(tmp_path / "cts") == [deep, one, other, tmp_path / "cts" / "third" / "ct.nii.gz"]
    assert names(find_scans([str(tmp_path / "cts")])) == ["er", "one", "other.v2", "ct"]
    assert found(tmp_path / "cts" / "DICOMDIR") == found(tmp_path / "cts")


def test_patterns(tmp_path):
    touch(tmp_path / "b" / "ct.nii.gz", tmp_path / "a" / "ct.nii.gz", tmp_path / "a" / "note.txt")
    touch_dicom(tmp_path / "d" / "IM1", tmp_path / "d" / "IM2")
    (tmp_path / "empty").mkdir()
    cts = [tmp_path / "a" / "ct.nii.gz", tmp_path / "b" / "ct.nii.gz"]
    assert found(tmp_path / "*" / "*.nii.gz") == cts
    assert found(tmp_path / "**" / "*.nii.gz") == cts
    assert found(tmp_path / "?") == [*cts, tmp_path / "d"]
    assert found(tmp_path / "*") == [*cts, tmp_path / "d"]
    assert found(tmp_path / "*" / "*") == [*cts, tmp_path / "d"]
    touch(tmp_path / "scan[1].nii.gz")
    assert found(tmp_path / "scan[1].nii.gz") == [tmp_path / "scan[1].nii.gz"]


def test_order_is_kept_and_duplicates_are_dropped(tmp_path, monkeypatch):
    touch(*(tmp_path / f"{name}.nii.gz" for name in "abc"))
    monkeypatch.chdir(tmp_path)
    sources = find_scans(["c.nii.gz", ".", str(tmp_path / "a.nii.gz"), "*.nii.gz"])
    assert names(sources) == ["c", "a", "b"]


def test_the_name_of_the_folder_that_one_is_in(tmp_path, monkeypatch):
    touch_dicom(tmp_path / "patient" / "IM1")
    monkeypatch.chdir(tmp_path / "patient")
    assert names(find_scans(["."])) == ["patient"]


def test_like_names_are_told_apart(tmp_path):
    touch(*(tmp_path / folder / "scan.nii.gz" for folder in ("a", "b", "x/c", "y/c")), tmp_path / "b_scan.nii")
    touch(tmp_path / "a" / "scan.nii", tmp_path / "a" / "alone.nii")
    texts = ["a/scan.nii.gz", "b/scan.nii.gz", "x/c/scan.nii.gz", "y/c/scan.nii.gz", "a/alone.nii"]
    sources = find_scans([str(tmp_path / text) for text in texts])
    assert names(sources) == ["a_scan", "b_scan", "x_c_scan", "y_c_scan", "alone"]
    more = names(find_scans([str(tmp_path / text) for text in [*texts, "b_scan.nii", "a/scan.nii"]]))
    assert len(set(more)) == 7 and all(name.rstrip("_2").endswith(("scan", "alone", "nii", "gz")) for name in more)
    touch(*(tmp_path / "twins" / name for name in ("ct.nii", "ct.nii.gz", "ct.nrrd", "other.nii")))
    assert names(find_scans([str(tmp_path / "twins")])) == ["ct_nii", "ct_nii_gz", "ct_nrrd", "other"]
    touch_dicom(tmp_path / "p1" / "CT" / "IM1", tmp_path / "p2" / "CT" / "IM1")
    assert names(find_scans([str(tmp_path / "p1" / "CT"), str(tmp_path / "p2" / "CT")])) == ["p1_CT", "p2_CT"]


def test_inputs_without_a_scan_are_told_of_and_stop_no_other(tmp_path):
    touch(tmp_path / "good.nii.gz", tmp_path / "folder" / "sub" / "note.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.zip").write_bytes(b"no archive")
    for name, words in [
        ("absent", "no such file or folder"),
        ("absent.nii.gz", "no such file or folder"),
        ("empty", "no scan found here"),
        ("folder", "no scan found here"),
        ("*.dcm", "no scan found here"),
        ("damaged.zip", "can't be read as a ZIP archive"),
    ]:
        bad, good = find_scans([str(tmp_path / name), str(tmp_path / "good.nii.gz")])
        assert bad.error.startswith(f"{tmp_path / name}: {words}")
        assert good.error == "" and good.name == "good"
        assert ("folder/**/*_ct.nii.gz" in bad.error) == (name == "folder") or name == "empty"
        with pytest.raises(UserError, match=words):
            open_scan(bad)


def test_what_the_system_refuses_stops_no_other(tmp_path):
    touch(tmp_path / "good.nii.gz")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for text, words in [("x" * 300, "File name too long"), (str(tmp_path / "circle" / "a"), "no such file|symbolic")]:
        bad, good = find_scans([text, str(tmp_path / "good.nii.gz")])
        assert re.search(words, bad.error) and "\n" not in bad.error and good.name == "good"


def test_a_file_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    touch(tmp_path / "a.nii.gz")

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    (source,) = find_scans([str(tmp_path / "a.nii.gz")])
    with pytest.raises(UserError, match=r"a\.nii\.gz: can't be read \(Permission denied\)"):
        open_scan(source)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "ct.nii.gz")
    (tmp_path / "ct2.nii").touch()
    (source,) = find_scans([str(tmp_path / "ct.nii.gz")])
    assert "a device or a pipe, not a file" in source.error
    for text in (tmp_path, tmp_path / "*"):
        assert [source.name for source in find_scans([str(text)])] == ["ct2"]


def test_an_empty_name_is_not_the_working_folder(tmp_path, monkeypatch):
    touch(tmp_path / "a.nii.gz")
    monkeypatch.chdir(tmp_path)
    (source,) = find_scans([""])
    assert source.error.startswith("'': names no file")
