"""What a network costs: operations by count, a training step's memory and time by running it."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from metrics.losses import DeepSupervision, DiceCE
from networks.checkpointing import checkpoint_blocks
from training.checkpoints import NetworkSpec
from training.compute import Compute
from training.memory import limit_memory
from training.optimizer import build_optimizer
from verse_utils.errors import UserError

LOSS = DeepSupervision(DiceCE())
# The first steps allocate the optimizer's state, and let libraries choose their algorithms.
_WARM_UP_STEPS = {"cpu": 1, "cuda": 3}


@dataclass(frozen=True)
class Measured:
    """A training step, as it was run.

    Attributes:
        peak_bytes: on CUDA, most bytes that tensors held; on a CPU, most bytes that the process grew by, from before
            the network was built, workspaces of convolutions included.
        seconds: of one step.
    """

    peak_bytes: int
    seconds: float


def count_parameters(spec: NetworkSpec) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in spec.build().parameters())


def count_flops(spec: NetworkSpec) -> int:
    """Floating-point operations of a forward pass of one image, by torch's counter; a multiply-add counts as two."""
    network = spec.build().eval().to("meta")  # nothing is computed; attention is counted, unlike a CPU's own kernel
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, spec.in_channels, *spec.input_shape, device="meta"))
    return counter.get_total_flops()


def measure_step(spec: NetworkSpec, compute: Compute, memory_gb: float | None = None) -> Measured:
    """Run training steps in a process of their own, whose memory is then theirs alone.

    Args:
        spec: the network's building plan.
        compute: how to run it.
        memory_gb: GiB that a GPU's allocator may take; all where None.

    Raises:
        UserError: the memory was not enough, or a CPU's can't be told on this system.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_run_steps, spec, compute, memory_gb).result()


def _run_steps(spec: NetworkSpec, compute: Compute, memory_gb: float | None) -> Measured:
    with limit_memory(spec, compute.device, memory_gb):
        return _measured_steps(spec, compute)


def _measured_steps(spec: NetworkSpec, compute: Compute) -> Measured:
    device = compute.device
    before = _process_bytes("VmRSS")
    network = spec.build().to(device)
    if compute.checkpointing:
        checkpoint_blocks(network)
    optimizer = build_optimizer(network)
    image = torch.randn(compute.batch_size, spec.in_channels, *spec.input_shape, device=device)
    target = (image[:, :1] > 1).to(torch.uint8)
    scaler = torch.amp.GradScaler(device.type, enabled=compute.precision == "fp16")
    seconds = 0.0
    for _ in range(_WARM_UP_STEPS[device.type] + 1):
        started = time.perf_counter()
        with compute.autocast():
            logits = network(image)
        scaler.scale(LOSS(logits, target)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    if device.type == "cuda":
        return Measured(torch.cuda.max_memory_allocated(device), seconds)
    return Measured(_process_bytes("VmHWM") - before, seconds)


def _process_bytes(name: str) -> int:
    """Resident bytes of this process: now (VmRSS), or at most so far (VmHWM)."""
    status = Path("/proc/self/status")
    if not status.exists():
        raise UserError("--measure: the memory of a CPU's training step is measured on Linux alone")
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(lines[name].split()[0]) * 1024
