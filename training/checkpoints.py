"""Checkpoints: everything to rebuild a network, and everything to go on training it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from networks import build_network
from networks.network import Network
from utils.misc import written_aside
from verse_utils.errors import UserError

FORMAT = "spine-segmentation checkpoint 1"


@dataclass(frozen=True)
class NetworkSpec:
    """What ``build_network`` needs."""

    name: str
    in_channels: int
    out_channels: int
    input_shape: tuple[int, int, int]
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Network:
        """Build the network. Raises UserError where it can't be built like this."""
        try:
            return build_network(self.name, self.in_channels, self.out_channels, self.input_shape, **self.options)
        except ValueError as error:
            raise UserError(f"--model {self.name}: {error}; change --input_shape or --model_args") from None

    def __str__(self) -> str:
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        shape = "×".join(map(str, self.input_shape))
        return f"{self.name}{options} ({self.in_channels} to {self.out_channels} channels, {shape})"


def save_checkpoint(path: Path, spec: NetworkSpec, network: nn.Module, settings: dict, **state: Any) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: file to write.
        spec: the network's building plan.
        network: whose weights are saved.
        settings: of the run, in JSON's types.
        state: what else a continued run needs; tensors and plain Python only, as it is loaded with ``weights_only``.

    Raises:
        UserError: it can't be written.
    """
    content = {
        "format": FORMAT,
        "network": asdict(spec),
        "weights": network.state_dict(),
        "settings": settings,
        **state,
    }
    with written_aside(path) as aside:
        try:
            torch.save(content, aside)
        except RuntimeError:  # what torch's writer makes of any failed write
            raise OSError("not all of it; is the disk full?") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU. Raises UserError where it is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a run's folder, or its best.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle raises nearly anything
        reason = (str(error).splitlines() or ["unreadable"])[0][:80]
        raise UserError(f"{path}: not a checkpoint ({reason}); give a run's folder, or its best.pt") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project; give a run's folder, or its best.pt")
    content["network"] = NetworkSpec(**{**content["network"], "input_shape": tuple(content["network"]["input_shape"])})
    return content


def find_checkpoint(run: Path, runs: Path) -> Path:
    """The checkpoint of a file, of a run's folder, or of a run's name in the folder of the runs."""
    for folder in (run, runs / run):
        if folder.is_dir():
            return folder / "best.pt"
    return run


def load_weights(path: Path, spec: NetworkSpec, network: nn.Module) -> None:
    """Load a checkpoint's weights into a network of the same plan; the input shape may differ.

    Raises:
        UserError: no checkpoint, or one of another model.
    """
    content = load_checkpoint(path)
    found: NetworkSpec = content["network"]

    def plan(spec: NetworkSpec) -> tuple:
        return spec.name, spec.in_channels, spec.out_channels, {k: _listed(v) for k, v in spec.options.items()}

    if plan(found) != plan(spec):
        raise UserError(f"{path}: a checkpoint of {found}, not of {spec}; give one of the same model and options")
    try:
        network.load_state_dict(content["weights"])
    except RuntimeError as error:
        raise UserError(f"{path}: weights don't fit {spec} ({str(error).splitlines()[0]}); train it anew") from None


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
