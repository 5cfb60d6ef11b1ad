"""Training in several processes, as ``torchrun`` starts them: which one this is, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from utils.processes import stop_with_parent

# How long processes wait for one that preprocesses or validates. torchrun ends them all as soon as one of them fails.
_PATIENCE = timedelta(days=7)
# What torchrun sets, and what holds without it.
_ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
_TORCHRUN = "TORCHELASTIC_RUN_ID"  # other launchers, such as a shell's script, may end before the processes


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run; one by itself unless ``torchrun`` started it.

    Attributes:
        rank: number of this process, from 0.
        count: of processes.
        local_rank: number of this process among those of its machine: of the GPU that it uses.
        device: of tensors that processes exchange.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the run's files and lines."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums of each value over all processes, which must all ask for it."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in their order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    @contextmanager
    def writer_first(self) -> Iterator[None]:
        """Let the writer do something before all others do it too, and find it done."""
        if self.count > 1 and not self.is_writer:
            distributed.barrier()
        yield
        if self.count > 1 and self.is_writer:
            distributed.barrier()


def find_ranks() -> Ranks:
    """This process by the environment that ``torchrun`` gives it; the processes are not joined yet."""
    rank, count, local_rank = (int(os.environ.get(name, default)) for name, default in _ENVIRONMENT.items())
    return Ranks(rank, count, local_rank)


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[Ranks]:
    """Join the processes of a run: by NCCL on GPUs, by Gloo on CPUs."""
    if ranks.count == 1:
        yield ranks
        return
    if _TORCHRUN in os.environ:  # it ends all of them if it is asked to end, but not if it is killed
        stop_with_parent()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield replace(ranks, device=device) if on_gpu else ranks
    finally:
        distributed.destroy_process_group()
