"""What this process may use of its machine: cores and memory, within the limits of a container or a batch system."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path

from verse_utils.errors import UserError

_GIB = 2**30
# Linux says here in which control groups a process is, and what their limits are; v1 and v2 name the files differently.
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_MEMORY_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def usable_cores() -> int:
    """Cores that this process may run on, at least 1; a share of them by a control group's quota counts, too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = []
    for group in _groups("cpu"):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if (group / "cpu.max").is_file():
            quota, period = (_number(group / "cpu.max", word) for word in (0, 1))
        if quota is not None and quota > 0 and period:
            quotas.append(quota // period)
    return max(1, min([cores, *quotas]))


def free_memory_bytes() -> int:
    """Memory that this process and those that it starts can still take without swapping, or being killed."""
    import psutil

    free = [int(psutil.virtual_memory().available)]
    for group in _groups("memory"):
        for limit_name, used_name in _MEMORY_FILES:
            limit, used = _number(group / limit_name), _number(group / used_name)
            if limit is not None and used is not None:
                free.append(limit - used + _reclaimable_bytes(group))
    return max(0, min(free))


def choose_workers(bytes_of_item: Mapping[str, int], workers: int | None, memory_gb: float | None) -> int:
    """The number of processes whose largest items together fit the memory, at most ``workers`` or one for each core.

    Args:
        bytes_of_item: what a process takes for each item, itself included.
        workers: what the user asked for; without ``memory_gb`` this is the result.
        memory_gb: GiB for all of them; what is free where None.

    Raises:
        UserError: ``memory_gb`` is less than the largest item alone takes.

    Warns:
        UserWarning: the memory allows for fewer processes than would be used else.
    """
    if workers is not None and memory_gb is None:
        return workers
    most = min(workers or usable_cores(), len(bytes_of_item))
    memory = free_memory_bytes() if memory_gb is None else memory_gb * _GIB
    largest = sorted(bytes_of_item.values(), reverse=True)[:most]
    fitting = sum(total <= memory for total in accumulate(largest))
    if not fitting and memory_gb is not None:
        item = max(bytes_of_item, key=lambda one: bytes_of_item[one])
        needed = math.ceil(largest[0] / _GIB * 100) / 100
        raise UserError(f"--memory_gb {memory_gb:g}: {item} takes {needed:g}; allow for that, or leave it out")
    if fitting < most:
        takes, free = largest[0] / _GIB, memory / _GIB
        warnings.warn(
            f"{max(fitting, 1)} of {most} processes, as one takes up to {takes:.2f} GiB and {free:.2f} GiB are free "
            "(--workers and --memory_gb say otherwise)",
            stacklevel=3,
        )
    return max(fitting, 1)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups of this process, its own first, then those around it."""
    if not _OWN_GROUPS.exists():  # no Linux
        return
    for line in _OWN_GROUPS.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = _GROUPS / controller if controllers else _GROUPS  # v1 has a tree for each controller, v2 one for all
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _number(path: Path, word: int = 0) -> int | None:
    """A number in a file; None where there is no such file, or it says "max"."""
    try:
        return int(path.read_text(encoding="utf-8").split()[word])
    except (OSError, ValueError, IndexError):
        return None


def _reclaimable_bytes(group: Path) -> int:
    """What a group's memory holds of files that were not used lately: the system takes it back where it is needed."""
    try:
        lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    numbers = {name: int(number) for name, number in (line.split() for line in lines)}
    return numbers.get("total_inactive_file", numbers.get("inactive_file", 0))
