"""Zips that are damaged or malicious: nothing of them is left on disk."""

from __future__ import annotations

import io
import random
import stat
import warnings
import zipfile
from pathlib import Path

import pytest

from verse_utils.download.archives import safe_path, unpack
from verse_utils.errors import BadArchiveError

SCAN = "rawdata/sub-a/sub-a_ct.nii.gz"


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as archive:
        warnings.simplefilter("ignore")  # two members of one name
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def encrypted() -> bytes:
    """A zip whose member says that it is encrypted: bit 0 of the flags in both headers."""
    content = bytearray(zipped((SCAN, b"scan")))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def with_bad_crc() -> bytes:
    content = bytearray(zipped((SCAN, b"a" * 500), ("rawdata/b.nii.gz", b"the voxels of a scan")))
    content[content.index(b"voxels")] ^= 1
    return bytes(content)


HOSTILE = {
    "empty file": (b"", "no whole zip"),
    "web page": (b"<html>404</html>", "no whole zip"),
    "cut": (zipped((SCAN, b"a" * 500))[:-30], "no whole zip"),
    "no member": (zipped(), "no scan"),
    "no scan": (zipped(("readme.txt", b"hello")), "no scan"),
    "bad CRC": (with_bad_crc(), "Bad CRC-32"),
    "above": (zipped((SCAN, b"a"), ("../../evil.nii.gz", b"a")), "leads elsewhere"),
    "absolute": (zipped((SCAN, b"a"), ("/tmp/evil.nii.gz", b"a")), "leads elsewhere"),
    "drive": (zipped((SCAN, b"a"), ("C:\\evil.nii.gz", b"a")), "leads elsewhere"),
    "backslashes": (zipped((SCAN, b"a"), ("a\\..\\..\\evil.nii.gz", b"a")), "leads elsewhere"),
    "long name": (zipped((SCAN, b"a"), ("a" * 300 + ".nii.gz", b"a")), "can't be written"),
    "link": (zipped((SCAN, b"a"), (entry("link", stat.S_IFLNK | 0o777), b"/etc")), "link"),
    "file below a link": (
        zipped((entry("rawdata", stat.S_IFLNK | 0o777), b"/tmp"), (SCAN, b"a")),
        "link",
    ),
    "device": (zipped((SCAN, b"a"), (entry("pipe", stat.S_IFIFO | 0o644), b"")), "device"),
    "encrypted": (encrypted(), "encrypted"),
    "two of one path": (zipped((SCAN, b"a"), (SCAN, b"b")), "two files"),
    "file below a file": (zipped(("rawdata", b"a"), (SCAN, b"b")), "where a folder is"),
    "bomb": (zipped((SCAN, bytes(50 * 2**20)), compression=zipfile.ZIP_DEFLATED), "would unpack to 52.4 MB"),
    "many members": (zipped(*((f"{n}.nii.gz", b"") for n in range(20_001))), "more than 20000"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_zips_are_refused_and_leave_nothing(tmp_path, kind):
    content, words = HOSTILE[kind]
    archive = tmp_path / "a.zip"
    archive.write_bytes(content)
    with pytest.raises(BadArchiveError, match=words):
        unpack(archive, tmp_path / "unpacked")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert not Path("/tmp/evil.nii.gz").exists()


def test_a_good_zip_replaces_what_a_killed_run_left(tmp_path):
    archive, folder = tmp_path / "a.zip", tmp_path / "unpacked"
    archive.write_bytes(zipped(("rawdata/", b""), (SCAN, b"scan"), ("readme.txt", b"hello")))
    folder.mkdir()
    (folder / "half.nii.gz").touch()
    unpack(archive, folder)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {SCAN, "readme.txt"}
    assert (folder / SCAN).read_bytes() == b"scan"


def test_damage_anywhere_is_found_or_harmless(tmp_path):
    """Flipped bytes, cuts and overwritten headers: each is refused, or the files are as they were."""
    rng = random.Random(0)
    members = [(f"rawdata/sub-{n}_ct.nii.gz", rng.randbytes(300)) for n in range(4)]
    whole = zipped(*members, compression=zipfile.ZIP_DEFLATED)
    archive, folder = tmp_path / "a.zip", tmp_path / "unpacked"
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.choice([0, 255, rng.randrange(256)])
        archive.write_bytes(content[: rng.choice([None, None, rng.randrange(len(content))])])
        try:
            unpack(archive, folder)
        except BadArchiveError:
            refused += 1
            assert not folder.exists()
        else:
            found = {path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            assert found <= {data for _, data in members}
    assert 250 < refused < 400


@pytest.mark.parametrize("name", ["", ".", "/", "..", "a/../b", "a\0b", "//host/a", "a/b/../../../c"])
def test_paths_that_are_not_below(name):
    with pytest.raises(BadArchiveError):
        safe_path(name)
