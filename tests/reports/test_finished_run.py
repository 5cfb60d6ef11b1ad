import json
from pathlib import Path

import pytest

from reports.finished_run import read_finished_run
from verse_utils.errors import UserError

CASES = {"a": {"dice": 0.9, "offset_ml": 3.0}, "b": {"dice": 0.5, "offset_ml": -9.0}, "c": {"dice": 0.7}}


def test_the_worst_case_has_the_lowest_the_highest_or_the_value_farthest_from_0(make_run):
    run = read_finished_run(make_run("run", {case: {**row, "hd95_mm": row["dice"]} for case, row in CASES.items()}))
    assert run.worst_first == ["b", "c", "a"]
    assert [run.worst_case(metric) for metric in ("dice", "hd95_mm", "offset_ml")] == ["b", "a", "b"]
    assert run.values("offset_ml") == {"a": 3.0, "b": -9.0}


def test_an_interval_is_read_from_the_file_or_computed(make_run):
    folder = make_run("run", CASES)
    low, high = read_finished_run(folder).interval("dice")
    assert 0.5 <= low < 0.7 < high <= 0.9
    path = folder / "test_metrics.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["summary"]["dice"]["ci95"] = [0.1, 0.2]
    content["summary"]["offset_ml"]["ci95"] = None
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_finished_run(folder).interval("dice") == (0.1, 0.2)
    assert read_finished_run(folder).interval("offset_ml") is None


def test_a_run_is_found_by_its_name(make_run, monkeypatch, tmp_path):
    make_run("run", CASES).parent.rename(tmp_path / "trained_models")
    monkeypatch.chdir(tmp_path)
    assert read_finished_run(Path("run")).name == "run"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "test_metrics.json").unlink(), "unfinished.*test_metrics.json"),
        (lambda folder: (folder / "config.json").unlink(), "not a run.*config.json"),
        (lambda folder: (folder / "config.json").write_text("{", encoding="utf-8"), "config.json: damaged"),
        (lambda folder: (folder / "config.json").write_text("[]", encoding="utf-8"), "not as training writes it"),
        (
            lambda folder: (folder / "test_metrics.json").write_text('{"summary": {}, "cases": []}', encoding="utf-8"),
            "not as training writes it",
        ),
        (
            lambda folder: (folder / "metrics.csv").write_text("epoch,loss\n1,much\n", encoding="utf-8"),
            "not as training writes it",
        ),
    ],
)
def test_a_folder_that_is_not_a_finished_run_is_one_line(make_run, damage, words):
    folder = make_run("run", CASES)
    damage(folder)
    with pytest.raises(UserError, match=words):
        read_finished_run(folder)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"absent: no such run"):
        read_finished_run(tmp_path / "absent")
