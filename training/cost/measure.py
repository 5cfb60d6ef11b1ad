"""Costs of a network: operations by counting, memory and time of a training step by running it."""

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
from prediction.checkpoints import NetworkSpec
from training.cost.memory import limit_memory
from training.settings import TrainingSettings
from training.steps.optimizer import build_optimizer
from training.steps.step_plan import StepPlan
from utils.tasks import SEGMENTATION
from verse_utils.errors import UserError

LOSS = DeepSupervision(DiceCE())
# The first steps allocate the optimizer's state, and let libraries choose their algorithms.
_WARM_UP_STEPS = {"cpu": 1, "cuda": 3}


@dataclass(frozen=True)
class Measured:
    """Costs of a training step that was run.

    Attributes:
        peak_bytes: on CUDA, the peak of all tensors; on a CPU, the peak growth of the process since before the network
            was built, workspaces of convolutions included.
        seconds: of one step.
    """

    peak_bytes: int
    seconds: float


def count_parameters(spec: NetworkSpec) -> int:
    """Number of the network's parameters."""
    return sum(parameter.numel() for parameter in spec.build().parameters())


def count_flops(spec: NetworkSpec) -> int:
    """Floating-point operations of a forward pass of one image, by torch's counter; a multiply-add counts as two."""
    network = spec.build().eval().to("meta")  # computes nothing, and counts attention, which it doesn't for a CPU
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, spec.in_channels, *spec.input_shape, device="meta"))
    flops: int = counter.get_total_flops()
    return flops


def measure_step(spec: NetworkSpec, plan: StepPlan, memory_gb: float | None = None) -> Measured:
    """Run training steps in a separate process, so that its memory is theirs alone.

    Args:
        spec: the network's building plan.
        plan: how to run it.
        memory_gb: limit of a GPU's allocator in GiB; no limit if None.

    Raises:
        UserError: the memory was not enough, or it can't be measured for a CPU on this system.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_run_steps, spec, plan, memory_gb).result()


def _run_steps(spec: NetworkSpec, plan: StepPlan, memory_gb: float | None) -> Measured:
    with limit_memory(spec, plan.device.torch_device, memory_gb):
        return _measured_steps(spec, plan)


def _measured_steps(spec: NetworkSpec, plan: StepPlan) -> Measured:
    device = plan.device.torch_device
    before = _process_bytes("VmRSS")
    network = spec.build().to(device)
    if plan.checkpointing:
        checkpoint_blocks(network)
    settings = TrainingSettings(SEGMENTATION, (), "", input_shape=spec.input_shape, loss=SEGMENTATION.losses[0])
    optimizer = build_optimizer(network, settings)
    image = torch.randn(plan.batch_size, spec.in_channels, *spec.input_shape, device=device)
    target = (image[:, :1] > 1).to(torch.uint8)
    scaler = torch.amp.GradScaler(device.type, enabled=plan.device.precision == "fp16")
    seconds = 0.0
    for _ in range(_WARM_UP_STEPS[device.type] + 1):
        started = time.perf_counter()
        with plan.device.autocast():
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
    """Resident bytes of this process: now (VmRSS), or the peak so far (VmHWM)."""
    status = Path("/proc/self/status")
    if not status.exists():
        raise UserError("--measure: the memory of training steps on a CPU can be measured on Linux only")
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(lines[name].split()[0]) * 1024
