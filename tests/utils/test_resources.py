"""What a process may use, in control groups of both versions, as Linux writes them."""

import os
import warnings
from types import SimpleNamespace

import psutil
import pytest

from utils import resources
from utils.resources import choose_workers, free_memory_bytes, usable_cores
from verse_utils.errors import UserError

MIB = 2**20
V2 = {
    "own": "0::/user/job\n",
    "user/memory.max": "max",
    "user/memory.current": f"{900 * MIB}",
    "user/job/memory.max": f"{1000 * MIB}",
    "user/job/memory.current": f"{600 * MIB}",
    "user/job/memory.stat": f"anon {500 * MIB}\ninactive_file {50 * MIB}\n",
    "user/cpu.max": "300000 100000",
    "user/job/cpu.max": "max 100000",
}
V1 = {
    "own": "9:name=systemd:/\n4:memory:/docker/1\n2:cpu,cpuacct:/docker/1\n0::/\n",
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "memory/memory.usage_in_bytes": f"{4000 * MIB}",
    "memory/docker/1/memory.limit_in_bytes": f"{1000 * MIB}",
    "memory/docker/1/memory.usage_in_bytes": f"{600 * MIB}",
    "memory/docker/1/memory.stat": f"inactive_file 0\ntotal_inactive_file {50 * MIB}\n",
    "cpu/docker/1/cpu.cfs_quota_us": "300000",
    "cpu/docker/1/cpu.cfs_period_us": "100000",
    "cpu/cpu.cfs_quota_us": "-1",
    "cpu/cpu.cfs_period_us": "100000",
}
# A container may see its group as the root, or a path that leads nowhere, as only the root is there.
INSIDE = {"own": "0::/\n", "memory.max": f"{450 * MIB}", "memory.current": "0", "cpu.max": "300000 100000"}
ELSEWHERE = {**INSIDE, "own": "0::/docker/1\n"}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 16 cores and 8 GiB free memory whose control groups are files: {path: content} -> nothing."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8192 * MIB))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(resources, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(resources, "_GROUPS", tmp_path)

    def write(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")

    return write


@pytest.mark.parametrize("files", [V2, V1, INSIDE, ELSEWHERE], ids=["v2", "v1", "inside", "elsewhere"])
def test_the_narrowest_limit_around_a_process_counts(machine, files):
    machine(files)
    assert free_memory_bytes() == 450 * MIB and usable_cores() == 3


def test_without_limits_all_of_the_machine_is_usable(machine):
    assert (free_memory_bytes(), usable_cores()) == (8192 * MIB, 16)
    machine({"own": "0::/\n", "memory.max": "max", "memory.current": f"{MIB}", "cpu.max": "max 100000"})
    assert (free_memory_bytes(), usable_cores()) == (8192 * MIB, 16)


def test_there_is_always_a_core_and_never_less_than_no_memory(machine):
    machine({"own": "0::/\n", "memory.max": "1000", "memory.current": "2000", "cpu.max": "50000 100000"})
    assert (free_memory_bytes(), usable_cores()) == (0, 1)


SCANS = {"sub-a": 300 * MIB, "sub-b": 200 * MIB, "sub-c": 400 * MIB, "sub-d": 100 * MIB}


@pytest.mark.parametrize(("free_mib", "count"), [(1000, 4), (999, 3), (900, 3), (899, 2), (700, 2), (699, 1), (0, 1)])
def test_as_many_processes_as_the_largest_scans_together_fit(machine, free_mib, count):
    machine({"own": "0::/\n", "memory.max": f"{free_mib * MIB}", "memory.current": "0"})
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert choose_workers(SCANS, None, None) == count
    words = f"{count} of 4 processes, as one takes up to 0.39 GiB and {free_mib / 1024:.2f} GiB are free"
    assert [words in str(one.message) for one in warned] == ([] if count == 4 else [True])


def test_what_the_user_says_counts(machine):
    machine({"own": "0::/\n", "memory.max": f"{400 * MIB}", "memory.current": "0", "cpu.max": "300000 100000"})
    assert choose_workers(SCANS, 8, None) == 8
    assert choose_workers(SCANS, None, 1) == 3  # cores
    assert choose_workers(SCANS, 2, 1) == 2
    with pytest.warns(UserWarning, match="2 of 4 processes"):
        assert choose_workers(SCANS, 4, 0.7) == 2
    with pytest.raises(UserError, match=r"^--memory_gb 0\.3: sub-c takes 0\.4; allow for that, or leave it out$"):
        choose_workers(SCANS, None, 0.3)
