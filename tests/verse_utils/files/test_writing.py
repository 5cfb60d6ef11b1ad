import json

import pytest

from verse_utils.errors import UserError
from verse_utils.files.writing import write_csv, write_json, written_aside


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with pytest.raises(RuntimeError), written_aside(path) as aside:
        aside.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with written_aside(path) as aside:
        aside.write_text("whole", encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path):
    """As where a disk is too small: a name on it leads to another one."""
    path, target = tmp_path / "a.json", tmp_path / "large" / "b.json"
    path.symlink_to("large/b.json")
    for number in (1, 2):
        write_json(path, number)
        assert path.is_symlink() and target.read_text(encoding="utf-8") == f"{number}\n"
    assert [file.name for file in target.parent.iterdir()] == ["b.json"]
    with written_aside(path, keep=tmp_path / "before.json") as aside:
        aside.write_text("3", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "3" and json.loads((tmp_path / "before.json").read_text()) == 2


def test_a_failed_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}


def test_what_cant_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(UserError, match=r"file/out\.json: can't be written \(.+\); make room, or choose"):
        write_json(tmp_path / "file" / "out.json", {})


def test_a_row_is_a_line_whatever_it_holds(tmp_path):
    write_csv(tmp_path / "a.csv", [{"scan": "a\nb\udcff, ä", "n": 1}, {"scan": "c", "error": None}])
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert text.splitlines() == ["scan,n,error", r'"a\nb\udcff, ä",1,', "c,,"]
