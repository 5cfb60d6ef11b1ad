"""OSF as a source, on a server that speaks as its documentation says."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from verse_utils.download.checksums import Checksums
from verse_utils.download.osf_source import OsfSource
from verse_utils.errors import SourceError, UserError


@pytest.fixture
def fetch(server, tmp_path, naps):
    """Fetches the folder and gives its files: path -> content."""

    def run(patience_s: float = 3700.0) -> dict[str, bytes]:
        source = OsfSource(f"{server.url}/osf/zip/?zip=", f"{server.url}/v2/root/")
        return content(source.fetch(tmp_path, "split", Checksums(tmp_path), patience_s))

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def files(make_scans):
    return make_scans("verse004", "verse005", "verse006", "verse007", "gl003")


@pytest.fixture
def osf(fake_osf, files):
    return fake_osf(files)


def asked_folders(server) -> int:
    return sum(path.startswith("/v2/") for path, _, _ in server.asked)


def test_the_zip_alone_is_enough(server, osf, files, fetch):
    assert fetch() == files
    assert [path for path, _, _ in server.asked] == ["/osf/zip/"]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.77, 0.999])
def test_of_a_cut_zip_every_whole_member_stays(server, osf, files, fetch, answer, share):
    osf.zip_answer = answer(cut_at=int(share * len(osf.zip_bytes)))
    assert fetch() == files
    storage = sum(count for path, count in server.served.items() if path.startswith("/storage/"))
    missing = [path for path in files if f"/storage/{list(files).index(path)}" in server.served]
    # Each file came whole by the zip, or was taken alone; of the one in which the zip was cut, only the rest was asked.
    assert storage <= sum(len(files[path]) for path in missing)
    assert server.served["/osf/zip/"] + storage <= len(osf.zip_bytes) + 4000
    assert len(missing) < len(files) or share < 0.1


def test_damage_in_the_zip_is_made_good(server, osf, files, fetch, tmp_path):
    """Flipped bits: a member that does not fit its CRC, and all behind it, come by themselves. Names have no CRC."""
    rng = random.Random(0)
    whole = osf.zip_bytes
    names = {at for name in files for match in re.finditer(name.encode(), whole) for at in range(*match.span())}
    for _ in range(15):
        damaged = bytearray(whole)
        for at in rng.sample(sorted({*range(len(whole))} - names), rng.randint(1, 3)):
            damaged[at] ^= 1 << rng.randrange(8)
        osf.zip_bytes = bytes(damaged)
        assert fetch() == files
        shutil.rmtree(tmp_path / "split.osf")


def test_what_was_cut_is_resumed_file_by_file(server, osf, files, fetch, answer):
    osf.zip_answer = answer(504)
    server.faults["/storage/0"] = [answer(cut_at=2000), answer(cut_at=2500)]
    assert fetch() == files
    assert server.ranges_of("/storage/0") == [None, "bytes=2000-", "bytes=2500-"]
    assert server.served["/storage/0"] == len(next(iter(files.values())))


def test_the_limit_is_waited_for_and_the_list_is_kept(server, osf, files, fetch, answer, naps, capsys):
    osf.zip_answer, osf.allowed = answer(404), 4
    assert fetch() == files
    assert naps == [3400]
    said = capsys.readouterr().err
    assert "going on in 57 min" in said and "OSF_TOKEN" in said


def test_no_page_is_asked_for_twice_in_two_runs(server, osf, files, fetch, answer, naps):
    osf.zip_answer, osf.allowed = answer(404), 4
    with pytest.raises(SourceError, match=r"the zip: answer 404.*its files: answer 429.* asks to wait 57 min"):
        fetch(patience_s=60)
    assert fetch(patience_s=60) == files
    # Root, rawdata and derivatives with two pages each, ten subjects; one of them was refused and asked again.
    assert asked_folders(server) == 15 + 1


def test_a_second_run_takes_only_what_is_missing(server, osf, files, fetch, answer, tmp_path):
    osf.zip_answer = answer(cut_at=len(osf.zip_bytes) // 2)
    refused = list(files).index("rawdata/sub-verse007/sub-verse007_ct.nii.gz")
    server.faults[f"/storage/{refused}"] = [answer(403)]
    with pytest.raises(SourceError, match="403"):
        fetch()
    kept = content(tmp_path / "split.osf")
    before, pages = server.served.copy(), asked_folders(server)
    assert fetch() == files
    assert server.served - before == {
        f"/storage/{number}": len(files[name]) for number, name in enumerate(files) if name not in kept
    }
    assert asked_folders(server) == pages


def test_a_token_lifts_the_limit(server, osf, files, fetch, answer, naps, monkeypatch):
    monkeypatch.setattr("verse_utils.download.transfer.is_osf", lambda host: host == "127.0.0.1")
    monkeypatch.setenv("OSF_TOKEN", "secret")
    osf.zip_answer, osf.allowed = answer(404), 0
    assert fetch() == files and not naps
    assert {token for path, _, token in server.asked if path.startswith("/v2/")} == {"Bearer secret"}


def test_a_file_with_another_hash_is_refused_and_the_list_forgotten(server, osf, files, fetch, answer, tmp_path):
    osf.zip_answer = answer(404)
    damaged = b"x" + next(iter(files.values()))[1:]
    server.faults["/storage/0"] = [answer(body=damaged)]
    with pytest.raises(SourceError, match="OSF lists"):
        fetch()
    assert not (tmp_path / "split.listing.json").exists()
    assert fetch() == files


def test_a_part_that_does_not_fit_is_fetched_anew(server, osf, files, fetch, answer, tmp_path):
    """A part on disk whose beginning is from another version, or was damaged by a power cut."""
    osf.zip_answer = answer(404)
    path = next(iter(files))
    part = tmp_path / "split.osf" / f"{path}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1000))
    assert fetch() == files
    assert server.ranges_of("/storage/0") == ["bytes=1000-", None]


def test_what_a_killed_write_left_is_no_file_of_the_folder(server, osf, files, fetch, tmp_path):
    left = tmp_path / "split.osf" / "rawdata" / ".sub-verse004_ct.nii.gz.part.json.123.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"{")
    assert files.items() <= fetch().items()
    assert [path for path, _, _ in server.asked] == ["/osf/zip/"]


def test_what_is_not_listed_is_removed(server, osf, files, fetch, answer, tmp_path):
    path = next(iter(files))
    for name, data in (("old_ct.nii.gz", b"old"), (path, b"of another size")):
        (tmp_path / "split.osf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "split.osf" / name).write_bytes(data)
    assert fetch() == files


def test_where_the_list_fails_the_zip_adds_what_it_has(server, osf, files, fetch, answer, tmp_path):
    osf.zip_answer = answer(cut_at=len(osf.zip_bytes) // 2)
    osf.allowed = 0
    with pytest.raises(SourceError, match="zip was cut"):
        fetch(patience_s=60)
    osf.zip_answer, osf.allowed = answer(), 0
    assert fetch(patience_s=60) == files


@pytest.mark.parametrize(
    "page",
    [
        b"no JSON",
        b"[" * 100_000,
        b"[]",
        b'{"data": [{}]}',
        b'{"data": [{"attributes": {"name": "../a", "kind": "file"}}]}',
        b'{"data": [{"attributes": {"name": "a.nii", "kind": "file", "size": 1}, "links": {"download": 5}}]}',
        b'{"data": [{"attributes": {"name": "a.nii", "kind": "file", "size": "1"}, "links": {"download": "x"}}]}',
        b'{"data": [], "links": {"next": 5}}',
    ],
)
def test_a_list_that_makes_no_sense_is_a_failure(server, fetch, page):
    server.files["/v2/root/"] = page
    with pytest.raises(SourceError, match=r"the zip: answer 404 .*; its files: "):
        fetch()


def test_a_list_that_leads_in_a_circle_ends(server, fetch):
    server.files["/v2/root/"] = f'{{"data": [], "links": {{"next": "{server.url}/v2/root/"}}}}'.encode()
    with pytest.raises(SourceError, match="leads in a circle"):
        fetch()


@pytest.mark.parametrize(("token", "sent"), [("secret\n", "Bearer secret"), ("  ", None)])
def test_blanks_around_a_token_are_no_part_of_it(server, osf, files, fetch, monkeypatch, token, sent):
    monkeypatch.setattr("verse_utils.download.transfer.is_osf", lambda host: host == "127.0.0.1")
    monkeypatch.setenv("OSF_TOKEN", token)
    assert fetch() == files
    assert {told for _, _, told in server.asked} == {sent}


@pytest.mark.parametrize("token", ["secret\nX-Evil: 1", "secr\u00e9t"])
def test_a_token_that_is_none_is_named_and_not_shown(server, osf, fetch, monkeypatch, token):
    monkeypatch.setenv("OSF_TOKEN", token)
    with pytest.raises(UserError, match=r"OSF_TOKEN: ((?!secr).)*$"):
        fetch()
    assert not server.asked


@pytest.mark.parametrize("kept", [{"pages": 5}, {"pages": [5]}, {"files": [{"path": 5}]}, {"files": [5]}])
def test_a_kept_list_that_was_damaged_is_asked_for_anew(server, osf, files, fetch, answer, tmp_path, kept):
    osf.zip_answer = answer(404)
    content = {"address": f"{server.url}/v2/root/", "pages": [], "files": [], **kept}
    (tmp_path / "split.listing.json").write_text(json.dumps(content), encoding="utf-8")
    assert fetch() == files


@pytest.mark.parametrize("names", [("a", "a/b_ct.nii.gz"), ("a/b_ct.nii.gz", "a")])
def test_a_file_where_a_folder_is_is_refused(server, fake_osf, fetch, names):
    fake_osf({name: name.encode() for name in names}).allowed = 0
    with pytest.raises(SourceError, match="a file where a folder is"):
        fetch(patience_s=60)


@pytest.mark.parametrize("name", ["../evil.nii.gz", "/tmp/evil.nii.gz"])
def test_a_member_that_leads_elsewhere_is_not_written(server, fake_osf, fetch, tmp_path, name):
    fake_osf({name: b"evil"}).allowed = 0
    with pytest.raises(SourceError, match="leads elsewhere"):
        fetch(patience_s=60)
    assert not [path for path in (*tmp_path.rglob("evil*"), Path("/tmp/evil.nii.gz")) if path.exists()]


def test_a_bomb_is_stopped(server, fake_osf, fetch, tmp_path):
    osf = fake_osf({"a_ct.nii.gz": bytes(100 * 2**20)})
    osf.allowed = 0
    with pytest.raises(SourceError, match="would unpack to"):
        fetch(patience_s=60)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 25 * 2**20
