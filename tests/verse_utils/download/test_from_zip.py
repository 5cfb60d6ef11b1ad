"""Zips that were downloaded elsewhere: ``--from_zip``."""

from __future__ import annotations

import pytest

from verse_utils.download.fetch import unpack_zips
from verse_utils.errors import UserError


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("dataset-verse19training.zip", ""),
        ("dataset-verse19training (1).zip", "dataset-verse19training/"),
        ("download.zip", "dataset-verse19training/"),
        ("training.zip", ""),
    ],
)
def test_zips_that_came_otherwise(tmp_path, splits, make_zip, name, folder, server, files_below):
    archive = tmp_path / name
    files = {f"{folder}{path}": data for path, data in splits["training"].items()}
    archive.write_bytes(make_zip(files))
    root = tmp_path / "verse19"
    for _ in range(2):  # the second time, it is there
        unpack_zips(root, [archive], [19])
    assert files_below(root) == {f"dataset-verse19training/{path}": data for path, data in files.items()}
    assert archive.exists() and not (root / ".download").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.zip", None, "no such file"),
        ("dataset-verse19training.zip", b"<html>", "no whole zip"),
        ("download.zip", {"rawdata/sub-a_ct.nii.gz": b""}, "rename it like dataset-verse19training.zip"),
        ("dataset-verse19training.zip", {"readme.txt": b""}, "no scan"),
        ("dataset-verse19training.zip", {"../sub-a_ct.nii.gz": b""}, "leads elsewhere"),
    ],
)
def test_zips_that_are_none_are_named_and_leave_nothing(tmp_path, make_zip, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else make_zip(content))
    with pytest.raises(UserError, match=words) as error:
        unpack_zips(tmp_path / "verse19", [tmp_path / name], [19])
    assert name in str(error.value) and not (tmp_path / "verse19").exists()
