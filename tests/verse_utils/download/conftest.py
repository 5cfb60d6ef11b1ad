"""A web server on this machine that misbehaves as it is told to, and that speaks as OSF's documentation says."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import socket
import struct
import threading
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from verse_utils.download import sources, transfer


@dataclass(frozen=True)
class Answer:
    """How one request is answered; by default as a good server does.

    Attributes:
        status: 200, or 206 where a range was asked for; anything else comes with a short body.
        headers: added to the others.
        body: in place of the file.
        length: the Content-Length; True is the right one, False none at all.
        ranges: whether ranges and validators are known.
        cut_at: byte of the file at which the connection is closed.
        with_reset: it is closed with an error (a reset), not silently.
        stall_at: byte of the file at which nothing more comes.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    length: bool | int = True
    ranges: bool = True
    cut_at: int | None = None
    with_reset: bool = False
    stall_at: int | None = None


class FaultyServer(ThreadingHTTPServer):
    """Serves ``files`` by path.

    Attributes:
        url: address.
        files: path -> content.
        faults: path -> answers to its next requests; then come good ones.
        asked: path, Range and Authorization of each request, in order.
        served: path -> bytes of bodies that were sent.
        osf: what OSF's addresses answer.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Answer]] = defaultdict(list)
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.served: Counter[str] = Counter()
        self.osf: FakeOsf | None = None
        self.stop = threading.Event()

    def ranges_of(self, path: str) -> list[str | None]:
        """The ranges that were asked of a path."""
        return [wanted for asked, wanted, _ in self.asked if asked == path]

    def handle_error(self, *_: object) -> None:
        """Clients that go away are no errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append((parts.path, self.headers["Range"], self.headers["Authorization"]))
        if self.server.osf is not None and self.server.osf.answers(parts.path):
            self.server.osf.answer(self, parts.path, parse_qs(parts.query))
            return
        content = self.server.files.get(parts.path)
        default = Answer() if content is not None else Answer(404)
        faults = self.server.faults[parts.path]
        self.send(parts.path, content or b"", faults.pop(0) if faults else default)

    def send(self, path: str, content: bytes, answer: Answer) -> None:
        """Send a file, or the part of it that is asked for, as ``answer`` says."""
        content = content if answer.body is None else answer.body
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        status, start = answer.status, 0
        if status != 200:
            content = answer.body or b"no"
        elif answer.ranges and self.headers["If-Range"] in (None, etag):
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            if wanted:
                start = int(wanted[1])
                status = 206 if start < len(content) else 416
        self.send_response(status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if status == 206 and "Content-Range" not in answer.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(content)}")
            start = len(content)
        if answer.ranges and status != 404:
            self.send_header("ETag", etag)
        if answer.length is not False:
            self.send_header("Content-Length", str(len(content) - start if answer.length is True else answer.length))
        self.end_headers()
        ends = [end for end in (answer.cut_at, answer.stall_at) if end is not None]
        stop = min([*ends, len(content)])
        if stop > start:
            # Counted first: a test may look as soon as the last byte has come.
            self.server.served[path] += stop - start if status in (200, 206) else 0
            self.wfile.write(content[start:stop])
            self.wfile.flush()
        if answer.stall_at is not None:
            self.server.stop.wait(60)
        if answer.with_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if answer.cut_at is not None or answer.length is not True or answer.stall_at is not None:
            self.close_connection = True


class FakeOsf:
    """OSF's zips (waterbutler), its API (JSON:API in pages) and its files, for one folder.

    Attributes:
        files: path below the folder -> content.
        zip_answer: how the zip is cut; it has no length and no ranges, and is sent in chunks.
        allowed: requests to the API that are allowed until it answers 429; with a token, any number.
        page_size: files on a page at most, whatever is asked for.
    """

    def __init__(self, server: FaultyServer, files: dict[str, bytes]) -> None:
        self.server = server
        self.files = files
        self.zip_answer = Answer()
        self.allowed = 10**6
        self.page_size = 3
        self.zip_bytes = _zip_without_lengths(files)

    def answers(self, path: str) -> bool:
        return path.startswith(("/osf/zip/", "/v2/", "/download/"))

    def answer(self, handler: _Handler, path: str, query: dict[str, list[str]]) -> None:
        if path.startswith("/osf/zip/"):
            self._send_zip(handler)
        elif path.startswith("/v2/"):
            self._send_page(handler, path, int(query.get("page", ["1"])[0]))
        else:  # to the storage, as OSF does
            number = path.strip("/").split("/")[-1]
            self.server.files[f"/storage/{number}"] = list(self.files.values())[int(number)]
            handler.send(path, b"", Answer(302, {"Location": f"{self.server.url}/storage/{number}"}))

    def _send_zip(self, handler: _Handler) -> None:
        answer = self.zip_answer
        if answer.status != 200:
            handler.send("/osf/zip/", b"", answer)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "application/zip")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        stop = min(end for end in (answer.cut_at, answer.stall_at, len(self.zip_bytes)) if end is not None)
        for first in range(0, stop, 1000):
            block = self.zip_bytes[first : min(first + 1000, stop)]
            self.server.served["/osf/zip/"] += len(block)
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
        handler.wfile.flush()
        if answer.stall_at is not None:
            self.server.stop.wait(60)
        if answer.cut_at is None:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    def _send_page(self, handler: _Handler, path: str, page: int) -> None:
        if handler.headers["Authorization"] is None:
            self.allowed -= 1
            if self.allowed == -1:
                self.allowed = 10**6  # the hour is over
                handler.send(path, b"", Answer(429, {"Retry-After": "3400"}))
                return
        folder = path.removeprefix("/v2/root").strip("/")
        prefix = f"{folder}/" if folder else ""
        below = sorted({name.removeprefix(prefix).split("/")[0] for name in self.files if name.startswith(prefix)})
        shown = below[(page - 1) * self.page_size : page * self.page_size]
        following = f"{self.server.url}{path}?page={page + 1}" if page * self.page_size < len(below) else None
        content = {"data": [self._item(f"{prefix}{name}") for name in shown], "links": {"next": following}}
        handler.send(path, json.dumps(content).encode(), Answer(headers={"Content-Type": "application/vnd.api+json"}))

    def _item(self, path: str) -> dict:
        name = path.rpartition("/")[2]
        if path not in self.files:
            link = {"related": {"href": f"{self.server.url}/v2/root/{path}/"}}
            return {"attributes": {"kind": "folder", "name": name}, "relationships": {"files": {"links": link}}}
        content = self.files[path]
        hashes = {"sha256": hashlib.sha256(content).hexdigest(), "md5": hashlib.md5(content).hexdigest()}
        return {
            "attributes": {"kind": "file", "name": name, "size": len(content), "extra": {"hashes": hashes}},
            "links": {"download": f"{self.server.url}/download/{list(self.files).index(path)}/"},
        }


class _Unseekable(io.RawIOBase):
    """A stream as a socket is, so that zipfile writes sizes behind the members, as OSF does."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.content += data
        return len(data)


def _zip_without_lengths(files: dict[str, bytes]) -> bytes:
    stream = _Unseekable()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, content in files.items():
            with zipped.open(path, "w") as member:
                member.write(content)
    return bytes(stream.content)


def zip_of(files: dict[str, bytes]) -> bytes:
    """A zip of these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, content in files.items():
            zipped.writestr(path, content)
    return stream.getvalue()


@pytest.fixture
def make_zip():
    """Makes the bytes of a zip: path -> content."""
    return zip_of


@pytest.fixture
def answer():
    """Makes an ``Answer``."""
    return Answer


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """A server that runs while the test does."""
    with FaultyServer() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.stop.set()
        running.shutdown()


@pytest.fixture
def fake_osf(server):
    """Makes the server answer as OSF for a folder: path -> content."""

    def make(files: dict[str, bytes]) -> FakeOsf:
        server.osf = FakeOsf(server, files)
        return server.osf

    return make


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """Pauses that downloads would make, in seconds; none is made."""
    made: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", made.append)
    return made


@pytest.fixture
def two_sources(server, monkeypatch, naps) -> None:
    """VerSe's two sources on the server: /s3/NAME.zip, and OSF's addresses."""
    monkeypatch.delenv(sources.MIRROR, raising=False)
    monkeypatch.delenv("OSF_TOKEN", raising=False)
    monkeypatch.setattr(sources, "_S3", f"{server.url}/s3/{{name}}.zip")
    monkeypatch.setattr(sources, "_OSF_ZIP", f"{server.url}/osf/zip/{{folder}}/?zip=")
    monkeypatch.setattr(sources, "_OSF_LISTING", f"{server.url}/v2/root/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**11))


def scans(*subjects: str, size: int = 3000) -> dict[str, bytes]:
    """Files as a split has them, with random bytes for scans."""
    rng = np.random.default_rng(len(subjects))
    files = {}
    for subject in subjects:
        files[f"rawdata/sub-{subject}/sub-{subject}_ct.nii.gz"] = rng.bytes(size)
        files[f"derivatives/sub-{subject}/sub-{subject}_seg-vert_msk.nii.gz"] = rng.bytes(size // 3)
        files[f"derivatives/sub-{subject}/sub-{subject}_seg-subreg_ctd.json"] = b'[{"direction": ["P", "I", "R"]}]'
    return files


@pytest.fixture
def make_scans():
    """Makes files of subjects: path -> content."""
    return scans


SPLITS = {"training": ("verse004", "verse005"), "validation": ("verse006",), "test": ("verse007",)}


@pytest.fixture
def splits():
    """Files of each split of VerSe19."""
    return {split: scans(*subjects) for split, subjects in SPLITS.items()}


@pytest.fixture
def edition(splits):
    """VerSe19 as it must be on disk."""
    return {f"dataset-verse19{split}/{path}": data for split, files in splits.items() for path, data in files.items()}


@pytest.fixture
def zips(splits):
    """The zip of each split."""
    return {split: zip_of(files) for split, files in splits.items()}


@pytest.fixture
def s3(server, zips, two_sources):
    """The first source has all zips, and the second nothing."""
    server.files |= {f"/s3/dataset-verse19{split}.zip": data for split, data in zips.items()}


@pytest.fixture
def mirror(server, zips, monkeypatch):
    """The mirror that users behind a firewall have."""
    monkeypatch.setenv("VERSE_MIRROR", f"{server.url}/mirror/")
    server.files |= {f"/mirror/dataset-verse19{split}.zip": data for split, data in zips.items()}


def read_files(root: Path) -> dict[str, bytes]:
    """Path below a folder -> content."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def files_below():
    """Reads the files below a folder: path -> content."""
    return read_files


@pytest.fixture
def check():
    """Checks that an edition is in a folder, with its checksums and nothing else."""

    def run(root: Path, edition: dict[str, bytes]) -> None:
        found = read_files(root)
        checksums = json.loads(found.pop("checksums.json", b"{}"))
        assert found == edition
        assert all(len(digest) == 64 for digest in checksums.values())
        assert not (root / ".download").exists()

    return run
