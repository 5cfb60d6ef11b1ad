"""Memory of a training step, computed before it is run, and settings with which it fits."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
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
from prediction.checkpoints import NetworkSpec
from prediction.device import fastest_precision, is_of_memory
from training.settings import OPTIMIZERS
from training.steps.step_plan import StepPlan
from verse_utils.errors import UserError

Loss = Callable[[Any, Tensor], Tensor]

GIB = 2**30
# Memory of a step besides its tensors: workspaces, fragmentation, the libraries themselves. On a CPU, the most that
# ``python -m training.cost --measure`` found; on a GPU, the allocator is limited, and workspaces take what is left.
_CPU_SHARE_BEYOND, _CPU_GIB_BEYOND = 0.3, 0.25
_GPU_SHARE_BEYOND = 0.1


def training_bytes(network: Network, spec: NetworkSpec, loss: Loss, plan: StepPlan, optimizer: str = "prodigy") -> int:
    """Peak bytes of all tensors of a training step: weights, optimizer, activations, gradients.

    The step is run on tensors without content, which takes seconds and no memory, for any device. Memory that libraries
    allocate while they compute, such as workspaces of convolutions, is not counted.

    Args:
        network: it is not changed.
        spec: its building plan.
        loss: function of logits and target; a scalar.
        plan: precision, checkpointing and batch size of the step.
        optimizer: a key of ``training.settings.OPTIMIZERS``.
    """
    without_content = FakeTensorMode()
    with FakeCopyMode(without_content):
        network = copy.deepcopy(network)
    with without_content:
        if plan.checkpointing:
            checkpoint_blocks(network)
        with _LiveBytes() as live:
            weights = [*network.parameters(), *network.buffers()]
            for tensor in weights:
                live.count(tensor)
            shape = plan.batch_size, 1, *spec.input_shape
            image = torch.empty(plan.batch_size, spec.in_channels, *spec.input_shape)
            with replace(plan.device, torch_device=torch.device("cpu")).autocast():
                logits = network(image)
            loss(logits, torch.empty(shape)).backward()
    kept = OPTIMIZERS[optimizer].copies * sum(p.numel() * p.element_size() for p in network.parameters())
    most: int = live.peak + kept
    return most


def fit_memory(
    network: Network, spec: NetworkSpec, loss: Loss, plan: StepPlan, memory_gb: float, optimizer: str = "prodigy"
) -> tuple[StepPlan, float]:
    """Find the fastest plan of a step that stays below a limit of memory.

    Tried in this order: as asked; the batch in parts; 16 bit, where the device computes in it; checkpointing; both; 16
    bit where it is emulated. A network with batch norms gets its batch whole, as they norm its patches together.

    Args:
        network: it is not changed.
        spec: its building plan.
        loss: function of logits and target; a scalar.
        plan: the plan that the user asked for.
        memory_gb: the limit in GiB.
        optimizer: a key of ``training.settings.OPTIMIZERS``.

    Returns:
        The plan, and the GiB that it takes at most, workspaces included.

    Raises:
        UserError: no plan fits.
    """
    for way in _ways(plan, in_parts=not network.norms_by_batch()):
        gib = gib_at_most(training_bytes(network, spec, loss, way, optimizer), way.device.torch_device)
        if gib <= memory_gb:
            return way, gib
    or_batch = " or --batch_size" if way.batch_size > 1 else ""
    raise UserError(
        f"--memory_gb {memory_gb:g}: {spec} needs {gib:.1f} GiB even with {way.device.precision} and checkpointing; "
        f"choose a smaller --input_shape{or_batch}, another --model or other --model_args"
    )


def gib_at_most(counted_bytes: int, device: torch.device) -> float:
    """GiB that a step takes at most on a device, from the bytes of its tensors."""
    counted_gib = counted_bytes / GIB
    if device.type == "cpu":
        return (1 + _CPU_SHARE_BEYOND) * counted_gib + _CPU_GIB_BEYOND
    return (1 + _GPU_SHARE_BEYOND) * counted_gib


@contextmanager
def limit_memory(spec: NetworkSpec, device: torch.device, memory_gb: float | None) -> Iterator[None]:
    """Limit the allocator of a GPU, and turn errors of too little memory into one line.

    Raises:
        UserError: instead of the device's own error.
    """
    if memory_gb is not None and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(memory_gb * GIB / total, 1.0), device)
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_of_memory(error):
            raise
        remedy = "lower --memory_gb" if memory_gb else "add --memory_gb with what there is"
        raise UserError(f"--model {spec}: memory on {device} was not enough; {remedy}") from None


def _ways(asked: StepPlan, in_parts: bool) -> list[StepPlan]:
    """Plans of the same step, the fastest first; they differ by the rounding of their precision, and by no more.

    Args:
        asked: the plan that the user asked for.
        in_parts: whether the patches of a batch may be computed one after the other.
    """
    fastest = fastest_precision(asked.device.torch_device)
    narrow = "bf16" if asked.device.torch_device.type == "cpu" else fastest if fastest != "fp32" else "fp16"
    modes = list(product((asked.checkpointing, True), (asked.device.precision, narrow)))
    if fastest == "fp32":  # checkpointing costs a third more time, emulation many times more
        modes.sort(key=lambda mode: mode[1] == narrow)
    sizes = [(asked.batch_size, asked.accumulate)]
    if in_parts:
        sizes.append((1, asked.accumulate * asked.batch_size))
    ways = [
        StepPlan(replace(asked.device, precision=precision), checkpointing, batch_size, accumulate)
        for checkpointing, precision in modes
        for batch_size, accumulate in sizes
    ]
    return list(dict.fromkeys(ways))


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that live at once while it is active; ``peak`` is the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types for it
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

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.count(leaf)
        return result
