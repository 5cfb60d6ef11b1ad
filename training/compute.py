"""Where a run computes, in which numbers, and in how large pieces."""

from __future__ import annotations

import os
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from verse_utils.errors import UserError

_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# What torch.cpu.get_capabilities calls bf16 arithmetic, on x86 and on Arm.
_BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16")
# First compute capabilities with bf16 arithmetic (Ampere) and with fast fp16 (Volta's tensor cores).
_BF16_CUDA, _FP16_CUDA = (8, 0), (7, 0)


@dataclass(frozen=True)
class Compute:
    """How networks run.

    Attributes:
        device: where.
        precision: fp32, bf16 or fp16.
        checkpointing: whether training computes activations twice rather than keep them.
        batch_size: patches in a forward pass.
        accumulate: forward passes whose gradients make one step.
    """

    device: torch.device
    precision: str
    checkpointing: bool = False
    batch_size: int = 1
    accumulate: int = 1

    def __str__(self) -> str:
        checkpointing = "checkpointing" if self.checkpointing else "no checkpointing"
        return f"{self.precision}, {checkpointing}, {self.accumulate} × {self.batch_size} patches a step"

    def autocast(self) -> torch.autocast:
        """The context to run a network in; does nothing for fp32."""
        dtype = _AUTOCAST_DTYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def find_compute(device_name: str, precision: str) -> Compute:
    """What ``--device`` and ``--precision`` ask for; "auto" is the best there is.

    Raises:
        UserError: it can't be had.

    Warns:
        UserWarning: bf16 was asked of a processor that has to emulate it.
    """
    device = _find_device(device_name)
    fastest = fastest_precision(device)
    precision = fastest if precision == "auto" else precision
    if device.type == "cpu" and precision == "fp16":
        raise UserError("--precision fp16: needs a GPU; use auto, bf16 or fp32 on a CPU")
    if device.type == "cpu" and precision == "bf16" != fastest:
        warnings.warn("--precision bf16: this CPU emulates it, many times slower than fp32; use auto", stacklevel=2)
    return Compute(device, precision)


def fastest_precision(device: torch.device) -> str:
    """The fastest precision that a device computes by itself; an emulated one is slower than fp32."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return "bf16" if any(capabilities.get(name) for name in _BF16_CAPABILITIES) else "fp32"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= _BF16_CUDA else "fp16" if capability >= _FP16_CUDA else "fp32"
    return "fp32"


def _find_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: can't be used ({reason}); try --device cpu") from None
    return device


def hardware() -> dict[str, str | int]:
    """Names of the processor and, where there is one, of the GPU, and the number of cores that may be used."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    found: dict[str, str | int] = {"processor": next(names, "") or platform.processor() or platform.machine()}
    found["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
