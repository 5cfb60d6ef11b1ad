"""The whole download of an edition: whether, from where, and what is left on disk."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from verse_utils.download import announcement
from verse_utils.download.fetch import fetch_where_missing
from verse_utils.errors import UserError


def test_a_path_that_does_not_exist_is_filled(tmp_path, s3, edition, capsys, check):
    root = tmp_path / "data" / "verse19"
    fetch_where_missing(root, [19])
    check(root, edition)
    said = capsys.readouterr().err
    for words in (
        f"{root}: no such folder, so VerSe19 is downloaded there; --no_download",
        "about 20.0 GB",
        "CC BY-SA 4.0",
        "10.1148/ryai.2020190138",
        str(root),
        "GB on the disk",
    ):
        assert words in said


def test_a_second_time_nothing_is_asked(tmp_path, s3, server, edition, check):
    fetch_where_missing(tmp_path, [19])
    asked = len(server.asked)
    for download in (None, True, False):
        fetch_where_missing(tmp_path, [19], download)
    check(tmp_path, edition)
    assert len(server.asked) == asked


@pytest.mark.parametrize("there", ["notes.txt", "scans/a_ct.nii.gz", "dataset-verse19training/readme.txt", ".git/../a"])
def test_a_folder_that_holds_other_things_is_left_alone(tmp_path, s3, server, there, files_below):
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).touch()
    fetch_where_missing(tmp_path, [19])
    assert not server.asked and len(files_below(tmp_path)) == 1


def test_a_folder_of_links_is_not_empty(tmp_path, s3, server):
    for split in ("training", "elsewhere"):
        (tmp_path / split).mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "dataset-verse19training").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    fetch_where_missing(tmp_path / "root", [19])
    assert not server.asked


def test_a_link_to_a_folder_is_as_good_as_the_folder(tmp_path, s3, edition, check):
    (tmp_path / "disk").mkdir()
    (tmp_path / "verse19").symlink_to(tmp_path / "disk", target_is_directory=True)
    fetch_where_missing(tmp_path / "verse19", [19])
    check(tmp_path / "disk", edition)


@pytest.mark.parametrize("there", [".DS_Store", ".cache/x", "checksums.json"])
def test_a_folder_without_a_file_of_the_users_is_filled(tmp_path, s3, edition, there, files_below):
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_text("{}", encoding="utf-8")
    (tmp_path / "dataset-verse19training" / "rawdata").mkdir(parents=True)  # empty, so it is not there
    fetch_where_missing(tmp_path, [19])
    assert files_below(tmp_path).items() >= edition.items()


def test_asked_for_it_adds_what_is_missing(tmp_path, s3, server, edition):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "02_validation/rawdata/a").mkdir(parents=True)  # by another name, and so of any edition
    (tmp_path / "dataset-verse19validation/rawdata/a").mkdir(parents=True)
    (tmp_path / "dataset-verse19validation/rawdata/a/sub-a_ct.nii.gz").touch()
    fetch_where_missing(tmp_path, [19], download=True)
    assert sorted(path for path, _, _ in server.asked) == [f"/s3/dataset-verse19{s}.zip" for s in ("test", "training")]
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_what_lies_at_a_datasets_place_is_not_replaced(tmp_path, s3):
    (tmp_path / "dataset-verse19test").mkdir()
    (tmp_path / "dataset-verse19test" / "notes.txt").touch()
    with pytest.raises(UserError, match="dataset-verse19test: is there but holds no CT"):
        fetch_where_missing(tmp_path, [19], download=True)


def test_switched_off_nothing_happens(tmp_path, s3, server):
    fetch_where_missing(tmp_path / "verse19", [19], download=False)
    assert not server.asked and not (tmp_path / "verse19").exists()


def test_a_file_as_data_folder_is_left_to_the_caller(tmp_path, s3, server):
    (tmp_path / "a.csv").write_text("mine", encoding="utf-8")
    for name in ("a.csv", "absent.csv", "absent.h5", "scan.nii.gz"):
        for download in (None, True):
            fetch_where_missing(tmp_path / name, [19], download)
    assert not server.asked and [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "mine"


def test_a_terminal_gets_time_for_ctrl_c(tmp_path, s3, server, monkeypatch, naps):
    monkeypatch.setattr(announcement.sys.stderr, "isatty", lambda: True, raising=False)

    def interrupt(seconds):
        assert seconds == 5 and not server.asked
        raise KeyboardInterrupt

    monkeypatch.setattr(announcement.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_where_missing(tmp_path / "verse91", [19])
    assert not (tmp_path / "verse91").exists()


BAD_ANSWERS = {
    "404": {"status": 404},
    "503": {"status": 503},
    "web page": {"body": b"<html>", "headers": {"Content-Type": "text/html"}},
    "web page without a type": {"body": b"<html>"},
    "too short": {"length": 500},
    "empty": {"body": b""},
    "cut without length or ranges": {"length": False, "ranges": False, "cut_at": 700},
    "a long wait": {"status": 429, "headers": {"Retry-After": "600"}},
}


@pytest.mark.parametrize("fault", BAD_ANSWERS)
def test_the_second_source_is_tried_after_any_failure(
    tmp_path, s3, server, fake_osf, splits, edition, answer, fault, check
):
    server.faults["/s3/dataset-verse19training.zip"] = [answer(**BAD_ANSWERS[fault])] * 20
    osf = fake_osf(splits["training"])
    osf.zip_answer = answer(cut_at=len(osf.zip_bytes) // 2)
    fetch_where_missing(tmp_path / "verse19", [19])
    check(tmp_path / "verse19", edition)


@pytest.mark.parametrize("kind", ["crc", "elsewhere", "no scan"])
def test_the_second_source_is_tried_after_a_bad_archive(
    tmp_path, s3, server, fake_osf, splits, edition, make_zip, kind, check
):
    content = dict(splits["training"])
    bad = {"crc": content, "elsewhere": content | {"../evil": b""}, "no scan": {"readme.txt": b"hello"}}
    archive = bytearray(make_zip(bad[kind]))
    if kind == "crc":
        archive[len(archive) // 4] ^= 1
    server.files["/s3/dataset-verse19training.zip"] = bytes(archive)
    fake_osf(splits["training"])
    fetch_where_missing(tmp_path / "verse19", [19])
    check(tmp_path / "verse19", edition)
    assert "/s3/dataset-verse19training.zip" not in (tmp_path / "verse19/checksums.json").read_text(encoding="utf-8")
    assert len(server.ranges_of("/s3/dataset-verse19training.zip")) == 1


def test_when_all_fail_the_message_names_all_and_nothing_is_left(tmp_path, two_sources, server):
    for root in (tmp_path / "new" / "verse19", tmp_path):
        with pytest.raises(UserError, match=r"s3/.*training.zip: answer 404.*v2/root/: .*404.*--from_zip"):
            fetch_where_missing(root, [19])
    assert tmp_path.exists() and not list(tmp_path.iterdir())


def test_after_a_failure_in_the_middle_the_next_run_goes_on(tmp_path, s3, server, edition, answer, check):
    test_zip = "/s3/dataset-verse19test.zip"
    server.faults[test_zip] = [answer(404)]
    with pytest.raises(UserError, match="dataset-verse19test can't be downloaded"):
        fetch_where_missing(tmp_path, [19])
    assert (tmp_path / "dataset-verse19training").exists()
    assert not list((tmp_path / ".download").rglob("*.zip"))  # room for the next
    fetch_where_missing(tmp_path, [19])
    check(tmp_path, edition)
    assert [path for path, _, _ in server.asked].count("/s3/dataset-verse19training.zip") == 1


def test_two_editions(tmp_path, s3, server, splits, edition, make_zip, make_scans, check):
    other = {split: make_scans(f"gl{number}") for number, split in enumerate(splits)}
    server.files |= {f"/s3/dataset-verse20{split}.zip": make_zip(files) for split, files in other.items()}
    fetch_where_missing(tmp_path, [19, 20])
    check(tmp_path, edition | {f"dataset-verse20{s}/{path}": data for s in other for path, data in other[s].items()})


def test_a_mirror_replaces_both_sources(tmp_path, mirror, server, edition, monkeypatch, capsys, check):
    fetch_where_missing(tmp_path / "verse19", [19])
    check(tmp_path / "verse19", edition)
    assert f"from     {server.url}/mirror/dataset-verse19training.zip\n" in capsys.readouterr().err
    with_password = server.url.replace("http://", "http://me:secret@")
    monkeypatch.setenv("VERSE_MIRROR", f"{with_password}/nothing")
    with pytest.raises(UserError, match=r"nothing/dataset-verse19training.zip: answer 404") as error:
        fetch_where_missing(tmp_path / "other", [19])
    assert "secret" not in str(error.value) + capsys.readouterr().err


@pytest.mark.parametrize(
    "value",
    [
        "host/folder",
        "ftp://me:secret@host/a",
        "/mnt/verse",
        "http://",
        "http://[",
        "http://me:secret@[",
        "https://host:x/",
        "https://host/a?secret",
    ],
)
def test_a_mirror_that_is_no_address_is_named(tmp_path, monkeypatch, value):
    monkeypatch.setenv("VERSE_MIRROR", value)
    with pytest.raises(UserError, match=r"VERSE_MIRROR=((?!secret).)*$"):
        fetch_where_missing(tmp_path / "verse19", [19])
    assert not list(tmp_path.iterdir())


def test_a_zip_that_came_again_must_be_the_same(tmp_path, mirror, server, edition, make_zip, make_scans):
    fetch_where_missing(tmp_path, [19])
    for path in sorted((tmp_path / "dataset-verse19test").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    server.files["/mirror/dataset-verse19test.zip"] = make_zip(make_scans("verse099"))
    with pytest.raises(UserError, match=r"its SHA-256 is .* was recorded .* remove its line from .*checksums.json"):
        fetch_where_missing(tmp_path, [19], download=True)


@pytest.mark.parametrize("content", ["", "[1]", "no JSON", None])
def test_checksums_that_are_none_are_named(tmp_path, mirror, content):
    path = tmp_path / "checksums.json"
    path.mkdir() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"checksums.json"):
        fetch_where_missing(tmp_path, [19])


def test_a_zip_that_was_assembled_wrongly_is_fetched_anew(
    tmp_path, mirror, server, edition, answer, zips, capsys, check
):
    """The part that an earlier run left was damaged on disk: the server can't know."""
    server.faults["/mirror/dataset-verse19training.zip"] = [answer(cut_at=2000), answer(404)]
    with pytest.raises(UserError):
        fetch_where_missing(tmp_path, [19])
    (part,) = tmp_path.glob(".download/19/*.zip")
    part.write_bytes(bytes(2000))
    fetch_where_missing(tmp_path, [19])
    check(tmp_path, edition)
    assert server.ranges_of("/mirror/dataset-verse19training.zip") == [None, "bytes=2000-", "bytes=2000-", None]


def test_too_little_room_is_said_before_the_first_byte(tmp_path, mirror, server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4000))
    with pytest.raises(
        UserError, match=r"dataset-verse19training.zip with what is in it takes .* kB, and 4.0 kB are free"
    ):
        fetch_where_missing(tmp_path / "verse19", [19])
    assert not server.served["/mirror/dataset-verse19training.zip"] > 10**5 and not list(tmp_path.rglob("*.zip"))


def test_less_room_than_the_edition_takes_is_said_at_once(tmp_path, s3, server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=15 * 10**9))
    with pytest.raises(UserError, match=r"takes about 20.0 GB, and 15.0 GB are free"):
        fetch_where_missing(tmp_path / "verse19", [19])
    assert not server.asked and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file in the way", "dangling link", "name too long", "file as .download"])
def test_a_target_that_cannot_be_written_is_one_line(tmp_path, s3, server, kind):
    if kind == "file in the way":
        (tmp_path / "a").touch()
        root = tmp_path / "a" / "verse19"
    elif kind == "dangling link":
        root = tmp_path / "link"
        root.symlink_to(tmp_path / "nowhere")
    elif kind == "file as .download":
        (tmp_path / ".download").touch()
        root = tmp_path
    else:
        root = tmp_path / ("x" * 300)
    with pytest.raises(UserError, match="can't be written"):
        fetch_where_missing(root, [19])
    assert not server.asked
