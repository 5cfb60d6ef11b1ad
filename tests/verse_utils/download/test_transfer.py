"""One file from a server that misbehaves."""

from __future__ import annotations

import json
import shutil
import time
from email.utils import formatdate
from types import SimpleNamespace

import numpy as np
import pytest

from verse_utils.download.progress import Progress
from verse_utils.download.transfer import Client, in_minutes, without_password
from verse_utils.errors import SourceError, UserError

CONTENT = np.random.default_rng(0).bytes(200_000)


@pytest.fixture
def fetch(server, tmp_path, naps):
    """Downloads /file to a path and gives what is there then."""
    server.files["/file"] = CONTENT

    def run(patience_s: float = 60.0, **options):
        path = tmp_path / "file"
        with Progress("file") as progress:
            received = Client(patience_s).download(f"{server.url}/file", path, progress, **options)
        return path.read_bytes(), received

    return run


def test_a_good_server_is_asked_once(server, fetch):
    content, received = fetch()
    assert content == CONTENT and received.in_one_go
    assert server.ranges_of("/file") == [None]


@pytest.mark.parametrize("with_reset", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_cut_connection_is_resumed_at_the_byte(server, fetch, answer, seed, with_reset):
    cuts = sorted(np.random.default_rng(seed).integers(1, len(CONTENT), 3).tolist())
    server.faults["/file"] = [answer(cut_at=cut, with_reset=with_reset) for cut in cuts]
    content, received = fetch()
    assert content == CONTENT and not received.in_one_go
    if not with_reset:  # a reset also throws away what the client has not read yet
        assert server.ranges_of("/file") == [None, *(f"bytes={cut}-" for cut in cuts)]
        assert server.served["/file"] == len(CONTENT)


def test_the_next_run_goes_on(server, fetch, answer):
    server.faults["/file"] = [answer(cut_at=150_000), answer(404)]
    with pytest.raises(SourceError, match="404"):
        fetch()
    content, _ = fetch()
    assert content == CONTENT
    assert server.ranges_of("/file") == [None, "bytes=150000-", "bytes=150000-"]
    assert server.served["/file"] == len(CONTENT)
    fetch()  # it is whole, and nobody is asked
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "note", [{"validator": 5}, {"validator": "a\nb"}, {"length": "7"}, {"length": -7}, {"more": 1}]
)
def test_a_damaged_note_of_a_part_is_as_none(server, fetch, tmp_path, note):
    (tmp_path / "file").write_bytes(b"no part")
    whole = {"address": f"{server.url}/file", "validator": "", "length": None, **note}
    (tmp_path / "file.part.json").write_text(json.dumps(whole), encoding="utf-8")
    assert fetch()[0] == CONTENT


def test_without_ranges_it_begins_anew(server, fetch, answer):
    server.faults["/file"] = [answer(cut_at=150_000, ranges=False), answer(ranges=False)]
    content, _ = fetch()
    assert content == CONTENT
    assert server.ranges_of("/file") == [None, None]  # no validator came, so no range is asked for


def test_a_file_that_changed_between_two_attempts_is_not_mixed(server, fetch, answer):
    old = bytes(len(CONTENT))
    server.faults["/file"] = [answer(body=old, cut_at=150_000)]
    content, _ = fetch()
    assert content == CONTENT
    assert server.ranges_of("/file") == [None, "bytes=150000-"]


def test_a_file_that_became_shorter_is_not_mixed(server, fetch, answer):
    server.faults["/file"] = [answer(body=bytes(250_000), cut_at=240_000), answer(416)]
    assert fetch()[0] == CONTENT


@pytest.mark.parametrize("length", [len(CONTENT) + 7, 10**15])
def test_a_content_length_that_is_too_long_never_counts_as_whole(server, fetch, answer, tmp_path, length):
    if length < 10**15:
        server.faults["/file"] = [answer(length=length, ranges=False) for _ in range(20)]
        with pytest.raises(SourceError, match="cut"):
            fetch()
        assert len(server.asked) == 6
    else:
        server.faults["/file"] = [answer(length=length)]
        with pytest.raises(UserError, match=r"file takes about 1000000 GB, and .* are free"):
            fetch()
        assert not (tmp_path / "file").exists()


def test_a_connection_on_which_nothing_more_comes_is_given_up(server, fetch, answer, monkeypatch):
    monkeypatch.setattr("verse_utils.download.transfer._TIMEOUTS_S", (10.0, 1.5))
    server.faults["/file"] = [answer(stall_at=150_000)]
    assert fetch()[0] == CONTENT
    assert server.ranges_of("/file") == [None, "bytes=150000-"]


def test_a_content_length_that_is_too_short_is_the_callers_to_find(server, fetch, answer):
    server.faults["/file"] = [answer(length=1000)]
    assert fetch()[0] == CONTENT[:1000]


def test_without_a_length_it_is_not_sure_to_be_whole(server, fetch, answer):
    server.faults["/file"] = [answer(length=False)]
    content, received = fetch()
    assert content == CONTENT and not received.in_one_go


@pytest.mark.parametrize("told", ["1000000000", "1e9", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Foo", "inf"])
def test_a_retry_after_without_sense_is_not_waited_for(server, fetch, answer, naps, told):
    server.faults["/file"] = [answer(503, {"Retry-After": told})]
    if told.isdecimal():
        with pytest.raises(SourceError, match="asks to wait"):
            fetch()
    else:
        assert fetch()[0] == CONTENT
    assert sum(naps) == 0


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept_and_said(server, fetch, answer, naps, capsys, status):
    later = formatdate(time.time() + 41, usegmt=True)
    server.faults["/file"] = [answer(status, {"Retry-After": "37"}), answer(status, {"Retry-After": later})]
    assert fetch()[0] == CONTENT
    assert naps[0] == 37 and 20 < naps[1] <= 41
    assert f"answer {status}" in capsys.readouterr().err


def test_a_retry_after_that_is_too_long_is_a_failure(server, fetch, answer, naps):
    server.faults["/file"] = [answer(429, {"Retry-After": "4000"})]
    with pytest.raises(SourceError, match="asks to wait 67 min"):
        fetch()
    assert not naps


def test_numbers_without_end_are_none(server, fetch, answer, naps):
    many = "9" * 5000
    server.faults["/file"] = [answer(503, {"Retry-After": many}), answer(length=int("9" * 4000), ranges=False)] * 2
    assert fetch()[0] == CONTENT
    assert 0 <= max(naps) <= 60


def test_a_range_that_lies_about_the_length_ends(server, fetch, answer, tmp_path):
    told = {"Content-Range": "bytes 150000-159999/160000"}
    server.faults["/file"] = [answer(cut_at=150_000), answer(206, told, body=bytes(20_000), length=20_000)]
    with pytest.raises(SourceError, match="more than the 160000 bytes"):
        fetch()
    assert not (tmp_path / "file").exists()
    assert fetch()[0] == CONTENT


def test_a_server_that_hardly_sends_is_given_up(server, fetch, monkeypatch):
    server.files["/file"] = bytes(2**21)  # far more than six attempts of a block bring
    monkeypatch.setattr("verse_utils.download.transfer._WINDOW_S", -1.0)
    monkeypatch.setattr("verse_utils.download.transfer._LEAST_BYTES", 10**6)
    with pytest.raises(SourceError, match=r"only .* came in .*, 6 times"):
        fetch()


def test_an_answer_whose_headers_never_end_is_given_up(fetch, server, monkeypatch, naps):
    """A byte now and then keeps each timeout between two bytes from being reached."""
    monkeypatch.setattr("verse_utils.download.transfer._ANSWER_S", 0.05)

    def trickle(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not server.stop.wait(0.01):
            handler.wfile.write(b"X")

    monkeypatch.setattr(server.RequestHandlerClass, "do_GET", trickle)
    with pytest.raises(SourceError, match="no whole answer in 0 s, 6 times"):
        fetch()


def test_what_has_no_length_fills_no_disk(server, fetch, answer, monkeypatch, tmp_path):
    monkeypatch.setattr("verse_utils.download.transfer._STRIDE_BYTES", 2**16)
    server.faults["/file"] = [answer(length=False)] * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9 + 10**5))
    with pytest.raises(UserError, match=r"file, whose length is not told, takes about 1\.. GB, and .* are free"):
        fetch(room=2)
    (tmp_path / "file").unlink()
    monkeypatch.setattr("verse_utils.download.transfer.MOST_BYTES", 10**5)
    with pytest.raises(SourceError, match="more than 100 kB came, without an end"):
        fetch()
    assert not (tmp_path / "file").exists()


def test_pauses_grow_and_end(server, fetch, answer, naps):
    server.faults["/file"] = [answer(503, {"Retry-After": "soon"}) for _ in range(20)]
    with pytest.raises(SourceError, match="503 Service Unavailable, 6 times"):
        fetch()
    assert naps == [0, 2, 4, 8, 16]


def test_data_that_come_make_new_attempts_worth_it(server, fetch, answer, naps):
    server.files["/file"] = bytes(3 * 2**20)
    for part in (1, 2):
        server.faults["/file"] += [answer(cut_at=part * 2**20), *[answer(503)] * 4]
    content, _ = fetch()
    assert len(content) == 3 * 2**20 and len(naps) == 10


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_what_cannot_succeed_is_not_repeated(server, fetch, answer, naps, status):
    server.faults["/file"] = [answer(status)]
    with pytest.raises(SourceError, match=str(status)):
        fetch()
    assert len(server.asked) == 1 and not naps


def test_a_web_page_is_not_taken_for_the_file_and_leaves_what_came(server, fetch, answer, tmp_path):
    """The page on which a hotel asks for a password, for example."""
    page = answer(body=b"<html>Log in</html>", headers={"Content-Type": "Text/HTML; charset=utf-8"}, ranges=False)
    server.faults["/file"] = [answer(cut_at=150_000), page]
    with pytest.raises(SourceError, match="web page"):
        fetch()
    assert (tmp_path / "file").read_bytes() == CONTENT[:150_000]
    assert fetch()[0] == CONTENT


def test_bytes_are_not_unpacked_on_the_way(server, fetch, answer):
    server.faults["/file"] = [answer(headers={"Content-Encoding": "gzip"})]  # as servers send .nii.gz at times
    assert fetch()[0] == CONTENT


def test_a_server_that_is_not_there_is_asked_once(tmp_path, naps):
    with Progress("file") as progress, pytest.raises(SourceError, match=r"no connection .*refused"):
        Client(60).download("http://127.0.0.1:9/file", tmp_path / "file", progress)
    assert not naps and not list(tmp_path.iterdir())


@pytest.mark.parametrize("location", ["/file", "ftp://127.0.0.1/file", "http://[", "//"])
def test_redirects_that_lead_nowhere_are_failures(server, fetch, answer, location):
    server.faults["/file"] = [answer(302, {"Location": location}) for _ in range(40)]
    with pytest.raises(SourceError):
        fetch()


def test_the_token_goes_to_osf_only():
    client = Client(60, token="secret")
    assert client._authorisation("https://api.osf.io/v2/") == {"Authorization": "Bearer secret"}
    assert client._authorisation("https://files.de-1.osf.io/v1/") == {"Authorization": "Bearer secret"}
    for address in ("https://storage.example/osf.io", "https://osf.io.example", "https://notosf.io/"):
        assert client._authorisation(address) == {}


def test_addresses_and_times_for_people():
    assert without_password("https://me:secret@host:81/a.zip?key=1") == "https://host:81/a.zip"
    assert [in_minutes(seconds) for seconds in (37, 3240, 9000)] == ["37 s", "54 min", "2 h 30 min"]


def test_a_log_gets_lines(server, fetch, capsys):
    fetch()
    lines = capsys.readouterr().err.splitlines()
    assert lines and all("\r" not in line and line.startswith("file: ") for line in lines)
    assert "200k/200k" in lines[-1]
