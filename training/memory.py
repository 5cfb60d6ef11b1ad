"""How much memory a training step takes, told before it is run, and what makes it fit."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from networks.checkpointing import checkpoint_blocks
from networks.network import Network
from training.checkpoints import NetworkSpec
from training.compute import Compute, fastest_precision
from verse_utils.errors import UserError

Loss = Callable[[Any, Tensor], Tensor]

GIB = 2**30
# Prodigy keeps four numbers for each weight: two moments, the weight at the start, and a running sum.
OPTIMIZER_COPIES = 4
# What a step takes beyond its tensors: workspaces, fragmentation, the libraries themselves. On a CPU as measured by
# ``python -m training.cost --measure``, at most; on a GPU the allocator is limited, and workspaces take what is left.
_CPU_SHARE_BEYOND, _CPU_GIB_BEYOND = 0.3, 0.25
_GPU_SHARE_BEYOND = 0.1


def training_bytes(network: Network, spec: NetworkSpec, loss: Loss, compute: Compute) -> int:
    """Peak bytes of all tensors of a training step: weights, optimizer, activations, gradients.

    The step runs on tensors without content, so that it takes seconds and no memory, for any device. What libraries
    allocate for themselves while they compute, as workspaces of convolutions, is not in it.

    Args:
        network: stays as it is.
        spec: its building plan.
        loss: logits and target to a scalar.
        compute: precision, checkpointing and batch size of the step.
    """
    without_content = FakeTensorMode()
    with FakeCopyMode(without_content):
        network = copy.deepcopy(network)
    with without_content:
        if compute.checkpointing:
            checkpoint_blocks(network)
        with _LiveBytes() as live:
            weights = [*network.parameters(), *network.buffers()]
            for tensor in weights:
                live.count(tensor)
            shape = compute.batch_size, 1, *spec.input_shape
            image = torch.empty(compute.batch_size, spec.in_channels, *spec.input_shape)
            with replace(compute, device=torch.device("cpu")).autocast():
                logits = network(image)
            loss(logits, torch.empty(shape)).backward()
    optimizer = OPTIMIZER_COPIES * sum(p.numel() * p.element_size() for p in network.parameters())
    return live.peak + optimizer


def fit_memory(
    network: Network, spec: NetworkSpec, loss: Loss, compute: Compute, memory_gb: float
) -> tuple[Compute, float]:
    """The fastest way of training a network that stays under a memory.

    Tried in this order: as asked; the batch in parts; 16 bit, where the device computes in it; checkpointing; both; 16
    bit where it is emulated.

    Args:
        network: stays as it is.
        spec: its building plan.
        loss: logits and target to a scalar.
        compute: device, and precision, checkpointing and batch size that were asked for.
        memory_gb: GiB that training may take.

    Returns:
        What fits, and the GiB that it will take at most, workspaces included.

    Raises:
        UserError: nothing fits.
    """
    for way in _ways(compute):
        gib = gib_at_most(training_bytes(network, spec, loss, way), way.device)
        if gib <= memory_gb:
            return way, gib
    raise UserError(
        f"--memory_gb {memory_gb:g}: {spec} needs {gib:.1f} GiB even with {way.precision} and checkpointing; "
        "choose a smaller --input_shape, another --model or other --model_args"
    )


def gib_at_most(counted_bytes: int, device: torch.device) -> float:
    """What a step on a device takes in GiB when its tensors take so many bytes."""
    counted_gib = counted_bytes / GIB
    if device.type == "cpu":
        return (1 + _CPU_SHARE_BEYOND) * counted_gib + _CPU_GIB_BEYOND
    return (1 + _GPU_SHARE_BEYOND) * counted_gib


@contextmanager
def limit_memory(spec: NetworkSpec, device: torch.device, memory_gb: float | None) -> Iterator[None]:
    """Keep a GPU's allocator under a memory, where one is given, and say in a line where memory was not enough.

    Raises:
        UserError: in place of the device's own complaint.
    """
    if memory_gb is not None and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(memory_gb * GIB / total, 1.0), device)
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        remedy = "lower --memory_gb" if memory_gb else "add --memory_gb with what there is"
        raise UserError(f"--model {spec}: memory on {device} was not enough; {remedy}") from None


def _ways(asked: Compute) -> list[Compute]:
    """Ways of computing the same, fastest first."""
    fastest = fastest_precision(asked.device)
    narrow = "bf16" if asked.device.type == "cpu" else fastest if fastest != "fp32" else "fp16"
    modes = list(product((asked.checkpointing, True), (asked.precision, narrow)))
    if fastest == "fp32":  # checkpointing costs a third more time, emulation many times more
        modes.sort(key=lambda mode: mode[1] == narrow)
    sizes = ((asked.batch_size, asked.accumulate), (1, asked.accumulate * asked.batch_size))
    ways = [
        replace(asked, checkpointing=checkpointing, precision=precision, batch_size=batch_size, accumulate=accumulate)
        for checkpointing, precision in modes
        for batch_size, accumulate in sizes
    ]
    return list(dict.fromkeys(ways))


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that live at once while it is active; ``peak`` is the most."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def count(self, tensor: Tensor) -> None:
        """Count a tensor until it dies; views share their storage."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.count(leaf)
        return result
