"""How a training step is computed."""

from __future__ import annotations

from dataclasses import dataclass

from prediction.device import Device


@dataclass(frozen=True)
class StepPlan:
    """Where a training step is computed, and in how many parts.

    Attributes:
        device: device and precision.
        checkpointing: activation checkpointing: recompute activations in the backward pass rather than keep them.
        batch_size: patches in a forward pass.
        accumulate: forward passes whose gradients are summed in a step.
    """

    device: Device
    checkpointing: bool = False
    batch_size: int = 1
    accumulate: int = 1

    def __str__(self) -> str:
        checkpointing = "checkpointing" if self.checkpointing else "no checkpointing"
        return f"{self.device.precision}, {checkpointing}, {self.accumulate} × {self.batch_size} patches a step"
