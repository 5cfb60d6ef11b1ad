"""Damaged headers: one line that says what is wrong, or a scan; no traceback, no hang, no memory for lies."""

import gzip
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from utils.files.find_scans import find_scans
from utils.files.scans import open_scan
from verse_utils.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is measured as Linux tells it")
ROOT = Path(__file__).parents[3]
SECONDS = 10
# Numbers that headers lie with: of any attribute that is two bytes long, or a length.
LIES = [0, 1, 2, 7, 255, 4096, 32767, 65535]
LONG_LIES = [0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 0x10000000]
# Group and element of attributes that size, place or explain pixels.
TAGS = [
    *[(0x28, element) for element in (0x02, 0x04, 0x08, 0x10, 0x11, 0x30, 0x100, 0x101, 0x102, 0x103, 0x1052, 0x1053)],
    *[(0x20, element) for element in (0x0D, 0x0E, 0x11, 0x32, 0x37)],
    *[(0x08, element) for element in (0x05, 0x08, 0x16, 0x60, 0x103E)],
    *[(0x02, element) for element in (0x00, 0x02, 0x10)],
    *[(0x5200, 0x9229), (0x5200, 0x9230), (0x7FE0, 0x10), (0x20, 0x9113), (0x28, 0x9145)],
]


# Where NIfTI-1 keeps what sizes, places or explains voxels, and how; and what a header may say instead.
FIELDS = {
    "<h": [*range(40, 56, 2), 70, 72, 252, 254],
    "<f": [*range(76, 120, 4), *range(256, 328, 4)],
    "<i": [0, 344],
    "B": [123, 348, 349],
}
OTHERS = {
    "<h": [-32768, -1, 0, 1, 2, 3, 4, 8, 16, 64, 128, 512, 768, 1024, 1792, 2048, 27952, 32767],
    "<f": [np.nan, np.inf, -np.inf, 0, -1, 1, 1e-30, 1e30, 0.001, 7, 353, 4096, 1e9],
    "<i": [0, 1, 348, 540, 0x0031_696E, 0x7FFFFFFF],
    "B": [0, 1, 2, 3, 255],
}
WORDS = b"0 -1 1 7 27952 99999999999 nan 1e400 1e30 none  x ( True LIST".split(b" ")


def damaged_image(path: Path, rng: np.random.Generator) -> bytes:
    """An image file with a few wrong bytes, words or lines in its header."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.compress(damaged_nifti(gzip.decompress(data), rng), 1) if rng.random() < 0.8 else flipped(data, rng)
    if path.suffix == ".nii":
        return damaged_nifti(data, rng)
    lines = data.split(b"\n", 14)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(lines) - 1))
        kind, words = rng.integers(5), lines[at].split(b" ")
        if kind == 0:
            lines[at] = flipped(lines[at] + b"\n", rng)
        elif kind == 1:
            del lines[at]
        elif kind == 2:
            lines.insert(at, lines[int(rng.integers(len(lines) - 1))])
        else:
            words[int(rng.integers(len(words)))] = WORDS[int(rng.integers(len(WORDS)))]
            lines[at] = b" ".join(words)
    return b"\n".join(lines)


def damaged_nifti(whole: bytes, rng: np.random.Generator) -> bytes:
    """The same of a NIfTI's bytes."""
    data = bytearray(whole)
    for _ in range(rng.integers(1, 5)):
        kind = rng.integers(8)
        if kind == 0:
            data[:352] = flipped(bytes(data[:352]), rng)
        elif kind == 1:
            del data[int(rng.integers(len(data))) :]
        else:
            code = list(FIELDS)[int(rng.choice(4, p=[0.4, 0.4, 0.1, 0.1]))]
            value = OTHERS[code][int(rng.integers(len(OTHERS[code])))]
            data += bytes(max(0, 352 - len(data)))
            struct.pack_into(code, data, FIELDS[code][int(rng.integers(len(FIELDS[code])))], value)
    return bytes(data)


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    at, bit = int(rng.integers(len(data))), 1 << int(rng.integers(8))
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """A file with a few wrong bytes in its header."""
    data = bytearray(whole)
    pixels = whole.rfind(struct.pack("<HH", 0x7FE0, 0x10))
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(5)
        at = int(rng.integers(128, pixels))
        tag = TAGS[rng.integers(len(TAGS))]
        place = whole.find(struct.pack("<HH", *tag), 128)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + 8] = rng.bytes(8)
        elif kind == 2 and place > 0:  # its value
            data[place + 8 : place + 10] = struct.pack("<H", LIES[rng.integers(len(LIES))])
        elif kind == 3 and place > 0:  # its length
            data[place + 4 : place + 8] = struct.pack("<I", LONG_LIES[rng.integers(len(LONG_LIES))])
        elif kind == 4:
            del data[at : at + int(rng.integers(1, 60))]
        else:
            del data[int(rng.integers(len(data) // 2, len(data))) :]
    return bytes(data)


def read(folder):
    """What the command does with a folder, in a process of its own: (exit code, seconds, peak memory in KiB)."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)  # which ends the process
        code = 3
        try:
            for source in find_scans([str(folder)]):
                scan = open_scan(source)
                for _ in scan.slabs():
                    pass
                scan.save(np.zeros(scan.shape, np.uint8, order="F"), folder.with_name("mask.nii.gz"))
            code = 0
        except UserError as error:
            code = 2 if str(error) and "\n" not in str(error) else 3
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - started, usage.ru_maxrss


KINDS = ["explicit", "implicit", "RLE", "JPEG-LS", "JPEG 2000", "enhanced", "images"]
IMAGES = ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha"]


def write_honest(folder, kind, dicom):
    if kind == "images":
        image = SimpleITK.GetImageFromArray(dicom.HU.T)
        image.SetSpacing((0.7, 0.8, 3))
        image.SetDirection(nib.eulerangles.euler2mat(0.3, -0.2, 0.1).ravel())
        for name in IMAGES:
            SimpleITK.WriteImage(image, folder / name, useCompression=name.endswith("a"))
        return
    packed = {"RLE": RLELossless, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless}
    if kind == "enhanced":
        dicom.write_enhanced(folder / "ct.dcm")
    elif kind in packed:
        dicom.write_series(folder, compress=packed[kind])
    else:
        dicom.write_series(folder, **({"syntax": ImplicitVRLittleEndian} if kind == "implicit" else {}))


@pytest.fixture(scope="module", params=[(0, 6), pytest.param((6, 90), marks=pytest.mark.slow)], ids=["few", "many"])
def outcomes(request, dicom, tmp_path_factory):
    """How many damaged ones of each kind were read, and how each ended; the first one of each kind isn't damaged.

    In a process without all that pytest has loaded, forked for each.
    """
    honest, work = tmp_path_factory.mktemp("honest"), tmp_path_factory.mktemp("work")
    for kind in KINDS:
        (honest / kind).mkdir()
        write_honest(honest / kind, kind, dicom)
    result = subprocess.run(
        [sys.executable, __file__, honest, work, *map(str, request.param)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    return request.param[1] - request.param[0], json.loads(result.stdout)


def read_damaged(honest, work, seeds):
    """Yield (seed, exit code, seconds, peak memory in KiB): of one slice that is damaged, or of all in the same way.

    Of images, one is read alone.
    """
    files = sorted(path.name for path in honest.iterdir())
    for seed in seeds:
        rng = np.random.default_rng([seed, len(files)])
        folder = work / f"{seed}"
        folder.mkdir()
        kind = int(rng.integers(1 << 30))
        names = IMAGES[seed % len(IMAGES) :][:1] if files[0] in IMAGES else files
        wrong = names if rng.random() < 0.5 else [names[rng.integers(len(names))]]
        for name in names:
            kinds, whole = np.random.default_rng(kind), honest / name
            damage = damaged_image(whole, kinds) if name in IMAGES else damaged(whole.read_bytes(), kinds)
            (folder / name).write_bytes(damage if name in wrong else whole.read_bytes())
        yield seed, *read(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_headers(outcomes, kind):
    count, outcomes_of = outcomes
    (code, _, honest_KiB), *others = outcomes_of[kind]
    assert code == 0 and len(others) == count * (len(IMAGES) if kind == "images" else 1)
    for seed, code, seconds, peak_KiB in others:
        assert code in (0, 2), f"seed {seed}: exit code {code}"
        assert seconds < SECONDS and peak_KiB <= 2 * honest_KiB, f"seed {seed}: {seconds:.0f} s, {peak_KiB} KiB"


if __name__ == "__main__":
    honest_folder, work_folder = map(Path, sys.argv[1:3])
    first_seed, end_seed = map(int, sys.argv[3:])
    outcomes_by_kind = {}
    for kind_folder in sorted(honest_folder.iterdir()):
        each = len(IMAGES) if kind_folder.name == "images" else 1
        open_scan(find_scans([str(kind_folder)])[0])  # what it imports is there before processes are forked
        results = read_damaged(kind_folder, work_folder, range(first_seed * each, end_seed * each))
        outcomes_by_kind[kind_folder.name] = [read(kind_folder), *results]
    print(json.dumps(outcomes_by_kind))
