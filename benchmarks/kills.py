"""Kill preprocessing at random moments, in the work on cases and in the packing into one file, and run it again.

    python benchmarks/kills.py

Five kills take the whole group of processes, five the parent alone, at each of both stages. Each time, the same command
runs again to its end; its H5 must hold, entry by entry, what an undisturbed one holds, and ten seconds after a kill no
process of it may be left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import hdf5plugin  # noqa: F401  registers the compression
import psutil

from utils.misc import OneLineParser, command
from verse_utils.phantom.dataset import write_phantom_dataset

ROOT = Path(__file__).resolve().parents[1]
SPLITS = {"training": 10, "validation": 1, "test": 1}
GRACE_S = 10.0


def start(data: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start preprocessing, or let it go on, in a group of processes of its own."""
    line = [sys.executable, "-W", "ignore", str(ROOT / "preprocessing.py"), "--data_path", str(data)]
    line += ["--output", str(output), "--task", "segmentation", "--workers", "2", "--no_download"]
    return subprocess.Popen(
        line,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def left_of(session: int) -> int:
    """Processes of a session that are still there after some seconds."""
    until_s = time.monotonic() + GRACE_S
    while True:
        left = 0
        for process in psutil.process_iter(["status"]):
            with suppress(ProcessLookupError, PermissionError):
                left += os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE
        if not left or time.monotonic() > until_s:
            return left
        time.sleep(0.1)


def until(is_there: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for a moment of a run, or its end."""
    while process.poll() is None and not is_there():
        time.sleep(0.0005)


def kill(data: Path, output: Path, stage: str, whole_group: bool, delay_s: float) -> tuple[bool, int]:
    """Start, and kill some time after a stage has begun.

    Returns:
        Whether that was before the end of the run; and how many processes were left ten seconds later.
    """
    process = start(data, output)
    if stage == "cases":
        until(lambda: next(output.glob("*.cases/*/*.h5"), None) is not None, process)
    else:
        until(lambda: next(output.glob(".*.h5.*.partial"), None) is not None, process)
    time.sleep(delay_s)
    is_in_time = process.poll() is None
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    return is_in_time, left_of(process.pid)


def entries(h5_path: Path) -> dict[str, object]:
    """Arrays and attributes of an H5 by their names, without what tells where and when it was made."""
    found: dict[str, object] = {}

    def add(name: str, item: h5py.HLObject) -> None:
        found.update({f"{name}@{key}": repr(value) for key, value in item.attrs.items() if key != "notes"})
        if isinstance(item, h5py.Dataset):
            found[name] = item[...].tobytes()

    with h5py.File(h5_path, "r") as file:
        add("", file)
        file.visititems(add)
    return found


@command
def main() -> None:
    """Print a line for each kill; exit code 1 where anything differs or is left."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="of each kind at each stage")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw, failures = random.Random(arguments.seed), 0
    with TemporaryDirectory() as place:
        folder, data = Path(place), Path(place) / "phantoms"
        write_phantom_dataset(data, SPLITS, seed=3, size="tiny")
        began = time.monotonic()
        start(data, folder / "whole").wait()
        work_s = time.monotonic() - began
        (h5_path,) = (folder / "whole").glob("*.h5")
        expected = entries(h5_path)
        print(f"{len(expected)} entries; the undisturbed run took {work_s:.1f} s\n")
        print("| stage | killed | in time | processes left | entries that differ |\n|---|---|---|---|---|")
        for stage, span_s in (("cases", work_s / 2), ("packing", 0.05)):
            for number in range(2 * arguments.kills):
                whole_group = number % 2 == 0
                output = folder / f"{stage}{number}"
                in_time, left = kill(data, output, stage, whole_group, draw.uniform(0, span_s))
                start(data, output).wait()
                found = entries(output / h5_path.name) if (output / h5_path.name).exists() else {}
                different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
                rest = [path for path in output.rglob("*") if ".partial" in path.name or path.name == ".lock"]
                failures += bool(left or different or rest)
                who = "group" if whole_group else "parent alone"
                print(f"| {stage} | {who} | {'yes' if in_time else 'no'} | {left} | {len(different)} |", flush=True)
    print(f"\n{failures} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
