"""The device that networks run on, and the precision that they are computed in."""

from __future__ import annotations

import logging
import platform
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from utils.resources import usable_cores
from verse_utils.errors import UserError

_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Names of bf16 arithmetic in torch.cpu.get_capabilities, on x86 and on Arm.
_BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16")
# First CUDA compute capabilities with bf16 arithmetic (Ampere) and with fast fp16 (Volta's tensor cores).
_BF16_CUDA, _FP16_CUDA = (8, 0), (7, 0)


@dataclass(frozen=True)
class Device:
    """What networks run on, and in which precision.

    Attributes:
        torch_device: CPU or GPU.
        precision: "fp32", "bf16" or "fp16".
    """

    torch_device: torch.device
    precision: str

    def autocast(self) -> torch.autocast:
        """The context to run a network in; it changes nothing for fp32."""
        dtype = _AUTOCAST_DTYPES.get(self.precision)
        return torch.autocast(self.torch_device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def find_device(name: str, precision: str) -> Device:
    """The device and precision that ``--device`` and ``--precision`` ask for.

    Args:
        name: "auto" for the GPU where there is one and the CPU otherwise, or a device's name in torch.
        precision: "fp32", "bf16", "fp16", or "auto" for the fastest that the device computes natively.

    Raises:
        UserError: the device can't be used, or doesn't support the precision.

    Warns:
        UserWarning: bf16 on a CPU that has to emulate it.
    """
    torch_device = _find_torch_device(name)
    fastest = fastest_precision(torch_device)
    precision = fastest if precision == "auto" else precision
    if torch_device.type == "cpu" and precision == "fp16":
        raise UserError("--precision fp16: needs a GPU; use auto, bf16 or fp32 on a CPU")
    if torch_device.type == "cpu" and precision == "bf16" != fastest:
        warnings.warn("--precision bf16: this CPU emulates it, many times slower than fp32; use auto", stacklevel=2)
    return Device(torch_device, precision)


def fastest_precision(device: torch.device) -> str:
    """The fastest precision that a device computes natively; an emulated one is slower than fp32."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return "bf16" if any(capabilities.get(name) for name in _BF16_CAPABILITIES) else "fp32"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= _BF16_CUDA else "fp16" if capability >= _FP16_CUDA else "fp32"
    return "fp32"


def _find_torch_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"--device {name}: can't be used ({reason}); try --device cpu") from None
    return device


def compile_network(network: nn.Module, device: Device) -> None:
    """Let torch compile a network for its device (``torch.compile``), which it does when the network is first run.

    The network stays the same object: its weights keep their names, and a copy of it is not compiled.

    Raises:
        UserError: torch can't compile here, as there is no C++ compiler, or no Triton for a GPU.
    """
    new_shape = time.time_ns() % 10_000 + 2  # what was compiled before is taken from a cache, with no compiler at all
    logging.disable(logging.WARNING)  # torch tells where it leaves files of a failure
    try:
        torch.compile(torch.sin)(torch.zeros(new_shape, device=device.torch_device))
    except Exception as error:  # as many as there are compilers
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        needed = "a C++ compiler" if device.torch_device.type == "cpu" else "Triton and a C compiler"
        remedy = f"install {needed}, or leave --compile out"
        raise UserError(f"--compile: torch can't compile for {device.torch_device} ({reason}); {remedy}") from None
    finally:
        logging.disable(logging.NOTSET)
    network.compile()


def is_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not enough. torch has one for GPUs; that of CPUs is told by its text."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def hardware() -> dict[str, str | int]:
    """Names of the CPU (``processor``) and of the GPU, if there is one (``gpu``), and the usable CPU ``cores``."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    found: dict[str, str | int] = {"processor": next(names, "") or platform.processor() or platform.machine()}
    found["cores"] = usable_cores()
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
