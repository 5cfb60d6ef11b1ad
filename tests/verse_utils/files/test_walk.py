"""The search for files, in folders with links, circles and strange names."""

import os
from pathlib import Path

import pytest

from verse_utils.cases import Chosen, find_cases
from verse_utils.catalogue import list_cases
from verse_utils.errors import UserError, one_line
from verse_utils.files.walk import files_below, walk

CASE = ("sub-verse004_ct.nii.gz", "sub-verse004_seg-vert_msk.nii.gz")
UNDECODABLE = os.fsdecode(b"scan\xff\n.1")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files_below(root)]


def test_files_come_sorted_without_hidden_ones(tmp_path):
    touch(*(tmp_path / name for name in ("b/2", "b/1", "a/3", "z", ".hidden", ".dataset-x.partial/4", "b/.c/5")))
    assert found(tmp_path) == ["z", "a/3", "b/1", "b/2"]
    assert list(walk(tmp_path / "absent")) == list(walk(tmp_path / "z")) == []


def test_links_are_followed_and_each_folder_comes_once(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    touch(root / "own" / "1", elsewhere / "deep" / "2")
    for link, target in {
        "a": root / "own",  # sorted before it, but the folder's own path is told
        "b": elsewhere,
        "c": elsewhere,
        "own/up": root,
        "own/self": root / "own",
        "out": tmp_path,  # would bring in what lies beside the root
    }.items():
        (root / link).symlink_to(target)
    (elsewhere / "deep" / "back").symlink_to(elsewhere)
    (root / "dead").symlink_to(tmp_path / "absent")
    os.mkfifo(root / "pipe")  # whoever opened it would wait without end
    assert found(root) == ["dead", "own/1", "b/deep/2"]
    assert found(root / "b") == ["deep/2"]


def test_folders_that_are_taken_out_are_not_entered(tmp_path):
    touch(tmp_path / "a" / "1", tmp_path / "elsewhere" / "2")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere")
    for _, folders, files in walk(tmp_path / "root"):
        assert folders == ["a"] and not files
        folders.clear()


def test_cases_in_a_circle_count_once(tmp_path):
    dataset = tmp_path / "dataset-verse19training"
    touch(*(dataset / name for name in CASE))
    (dataset / "again").symlink_to(dataset)
    (tmp_path / "dataset-verse19validation").symlink_to(dataset)
    with pytest.warns(UserWarning, match="1 of 80 training, 0 of 40 validation"):
        assert len(find_cases(tmp_path, 19)) == 1


def test_names_that_cannot_be_shown(tmp_path):
    """A line break after the ending makes another ending; below folders of any name, files are found."""
    verse = tmp_path / UNDECODABLE / "dataset-verse19training"
    touch(*(verse / name for name in CASE), verse / f"{CASE[0]}\n")
    with pytest.warns(UserWarning, match="1 of 80") as caught:
        (case,) = find_cases(tmp_path, 19)
    assert case.image_path.exists()
    assert one_line(caught[0].message).isprintable()
    nnunet = tmp_path / "nnunet"
    touch(
        *(nnunet / f"{part}Tr" / f"{UNDECODABLE}{end}" for part, end in (("images", "_0000.nii"), ("labels", ".nii")))
    )
    (nnunet / "dataset.json").write_text('{"labels": {"background": 0, "spine": 1}}', encoding="utf-8")
    with pytest.raises(UserError, match="its name can't be shown"):
        list_cases([nnunet], 19)
    chosen = Chosen(goes_on=True)
    assert list_cases([nnunet], 19, chosen) == [] and [*chosen.problems] == [r"scan\udcff\n.1"]


def test_one_line_keeps_what_can_be_shown():
    assert one_line("×\u202fÄ 骨") == "×\u202fÄ 骨"
    assert one_line("a\nb\r\x1b\udcff\u2028") == r"a\nb\r\x1b\udcff\u2028"
