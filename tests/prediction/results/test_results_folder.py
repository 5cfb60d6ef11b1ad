"""The table of all scans' results."""

import csv
from threading import Thread
from unittest.mock import patch

import pytest

from prediction.results import results_folder
from prediction.results.results_folder import ScanResults, check_names_in_bids, write_results
from verse_utils.errors import UserError
from verse_utils.files.writing import write_csv
from verse_utils.names import parse_file_name


def row(name, **facts):
    return {"name": name, "scan": f"/scans/{name}.nii.gz", **facts}


def lines_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return {line["name"]: line for line in csv.DictReader(file)}


def test_results_are_called_as_verse_does_and_never_both_ways(tmp_path):
    results = ScanResults(tmp_path, "sub-verse008_ct", bids=True)
    assert parse_file_name(results.mask.name).kind == "seg-vert_msk"
    assert parse_file_name(results.centroids.name).kind == "seg-subreg_ctd"
    assert results.picture.name == "sub-verse008_seg-vert_snp.png"
    before = ScanResults(tmp_path, "sub-verse008_ct")
    for path in (before.mask, before.picture, before.summary, results.mask):
        path.touch()
    results.clear()
    assert list(tmp_path.iterdir()) == [results.mask]
    with pytest.raises(UserError, match=r"of a_ct and a would have the same names"):
        check_names_in_bids(["b_ct", "a_ct", "a"])


def test_lines_of_other_commands_are_kept(tmp_path):
    path = tmp_path / "results.csv"
    write_results([row("a", error="no CT"), row("b, c", volume_ml=2, warnings=["x", "y"])], path)
    write_results([row("a", volume_ml=1, metrics={"dice": 0.5}, volume_ml_of_label={20: 1})], path)
    lines = lines_of(path)
    assert [(name, line["error"], line["volume_ml"]) for name, line in lines.items()] == [
        ("a", "", "1"),
        ("b, c", "", "2"),
    ]
    assert lines["a"]["dice"] == "0.5" and lines["a"]["volume_of_label_20_ml"] == "1"
    assert lines["b, c"]["warnings"] == "x; y" and lines["b, c"]["dice"] == ""
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("content", [b"", b"name,volume\na,1\n", b"name,scan,error\n\xff,1,2\n"])
def test_a_file_of_other_content_is_replaced(tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    write_results([row("b")], path)
    assert list(lines_of(path)) == ["b"]


@pytest.mark.parametrize("content", [b"level,ml\nL1,60\n", b"scan,label\n\xff,1\n"])
def test_a_table_of_vertebrae_that_is_not_ours_stays_where_none_is_named(tmp_path, content):
    """And is no error, nor is a damaged one of ours."""
    (tmp_path / "vertebrae.csv").write_bytes(content)
    write_results([row("a")], tmp_path / "results.csv")
    assert (tmp_path / "vertebrae.csv").read_bytes() == content


def test_of_two_commands_that_end_at_once_one_waits_for_the_other(tmp_path):
    path = tmp_path / "results.csv"
    other = Thread(target=write_results, args=([row("b")], path))

    def write_while_the_other_comes(*arguments):
        if other.ident is None:
            other.start()
            other.join(timeout=0.2)  # without the lock, it is done by then
        write_csv(*arguments)

    with patch.object(results_folder, "write_csv", write_while_the_other_comes):
        write_results([row("a")], path)
        other.join()
    assert list(lines_of(path)) == ["a", "b"]
