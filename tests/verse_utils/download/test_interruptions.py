"""A download that is killed, meets a full disk, or runs twice at once: the next one fetches only the rest."""

from __future__ import annotations

import os
import queue
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from verse_utils.download import fetch
from verse_utils.download.fetch import fetch_where_missing
from verse_utils.download.osf_source import OsfSource

ROOT = Path(__file__).resolve().parents[3]

CHILD = """
import sys
from pathlib import Path
from verse_utils.download import archives
from verse_utils.download.fetch import fetch_where_missing

def hang(zipped, member, path, progress):
    whole(zipped, member, path, progress)
    print("unpacked one", flush=True)
    sys.stdin.read()

whole = archives._unpack_member
if sys.argv[2] == "hang":
    archives._unpack_member = hang
fetch_where_missing(Path(sys.argv[1]), [19])
"""


def start(root: Path, how: str = "", **options) -> subprocess.Popen:
    """Fetch in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def wait_for_size(wait_until):
    """Wait until files of a pattern below a folder have so many bytes: (pattern, folder, bytes)."""

    def wait(pattern: str, root: Path, size: int) -> None:
        wait_until(lambda: sum(path.stat().st_size for path in root.glob(pattern) if path.is_file()) >= size)

    return wait


def test_killed_while_downloading(tmp_path, mirror, server, edition, zips, answer, check, wait_for_size):
    root, path = tmp_path / "verse19", "/mirror/dataset-verse19training.zip"
    server.faults[path] = [answer(stall_at=5000), answer(stall_at=7000)]
    for stop in (5000, 7000):
        process = start(root)
        wait_for_size(".download/19/*.zip", root, stop)
        kill(process)
    assert not list(root.glob("dataset*"))
    fetch_where_missing(root, [19])
    check(root, edition)
    assert server.ranges_of(path) == [None, "bytes=5000-", "bytes=7000-"]
    assert server.served[path] == len(zips["training"])


def test_killed_while_unpacking(tmp_path, mirror, server, edition, zips, check):
    root, path = tmp_path / "verse19", "/mirror/dataset-verse19training.zip"
    process = start(root, "hang")
    assert process.stdout.readline() == b"unpacked one\n"
    kill(process)
    assert not list(root.glob("dataset*")) and list(root.glob(".download/19/*/*/*/*.nii.gz"))
    fetch_where_missing(root, [19])
    check(root, edition)
    assert server.served[path] == len(zips["training"]) and server.ranges_of(path) == [None]


def test_killed_while_osf_sends_its_zip(
    tmp_path, server, two_sources, fake_osf, splits, edition, answer, files_below, wait_for_size
):
    osf = fake_osf(splits["training"])
    osf.zip_answer = answer(stall_at=len(osf.zip_bytes) * 2 // 3)
    code = f"""
from pathlib import Path
from verse_utils.download.checksums import Checksums
from verse_utils.download.osf_source import OsfSource
source = OsfSource("{server.url}/osf/zip/?zip=", "{server.url}/v2/root/")
source.fetch(Path("{tmp_path}"), "split", Checksums(Path("{tmp_path}")), 60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    wait_for_size("split.osf/**/*_ctd.json", tmp_path, 30)
    kill(process)
    kept = [path for path in files_below(tmp_path / "split.osf") if not path.endswith(".part")]
    assert len(kept) >= 3
    source = OsfSource(f"{server.url}/osf/zip/?zip=", f"{server.url}/v2/root/")
    assert files_below(source.fetch(tmp_path, "split", fetch.Checksums(tmp_path), 60)) == splits["training"]
    assert [path for path, _, _ in server.asked].count("/osf/zip/") == 1
    taken = {int(path.rpartition("/")[2]) for path in server.served if path.startswith("/storage/")}
    assert taken == {n for n, path in enumerate(splits["training"]) if path not in kept}


def limit_file_size(size: int):
    """A full disk, as far as a process can tell: no file grows beyond ``size`` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("limit", [2000, 6000])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path, mirror, server, edition, make_zip, limit, check):
    """At 2000 bytes while downloading; at 6000, zips fit, but a scan of the training split does not."""
    path = "/mirror/dataset-verse19training.zip"
    if limit == 6000:
        large = {"rawdata/sub-verse004/sub-verse004_ct.nii.gz": np.random.default_rng(0).bytes(4000) * 3}
        server.files[path] = make_zip(large)
        edition = {name: data for name, data in edition.items() if "training" not in name}
        edition |= {f"dataset-verse19training/{name}": data for name, data in large.items()}
    root = tmp_path / "verse19"
    process = start(root, preexec_fn=limit_file_size(limit))
    _, errors = process.communicate(timeout=240)
    assert b"UserError" in errors and b"can't be written" in errors and b"File too large" in errors
    assert not list(root.glob("dataset*")) and not [path for path in root.glob(".download/19/*") if path.is_dir()]
    fetch_where_missing(root, [19])
    check(root, edition)
    assert server.ranges_of(path) == ([None, "bytes=2000-"] if limit == 2000 else [None])


@pytest.mark.parametrize("first_is", ["killed", "finished"])
def test_two_at_once_take_turns(tmp_path, mirror, server, edition, answer, monkeypatch, first_is, check, wait_for_size):
    lines: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(fetch, "say", lines.put)
    root = tmp_path / "verse19"
    server.faults["/mirror/dataset-verse19training.zip"] = [answer(stall_at=3000)]
    first = start(root)
    wait_for_size(".download/19/*.zip", root, 3000)
    with ThreadPoolExecutor() as pool:
        second = pool.submit(fetch_where_missing, root, [19])
        while "downloads to it; waiting" not in lines.get(timeout=60):
            pass
        if first_is == "killed":
            kill(first)
        else:
            server.stop.set()  # the connection is closed, and the rest is asked for
            assert first.communicate(timeout=240) and first.returncode == 0
        second.result(timeout=240)
    check(root, edition)
    assert len(server.asked) == 4
