"""Checkpoints: everything to rebuild a network, and everything to go on training it."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import warnings
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from networks import build_network
from networks.network import Network
from prediction.device import is_of_memory
from prediction.pretrained import PRETRAINED, pretrained_checkpoint
from utils.files.run_folder import find_run_folder
from utils.intensity import HuScaling
from utils.tasks import TASKS, Task
from verse_utils.errors import UserError
from verse_utils.files.writing import written_aside

FORMAT = "spine-segmentation checkpoint 1"


class CheckpointError(UserError):
    """A file that is no checkpoint, or none of this network, or a damaged one.

    Attributes:
        fault: the message without its remedy, for who knows a better one.
    """

    def __init__(
        self,
        fault: str,
        remedy: str = "give a run's folder or its best.pt, which the run's training command writes again from last.pt",
    ) -> None:
        super().__init__(f"{fault}; {remedy}")
        self.fault = fault


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
        except (ValueError, TypeError) as error:  # TypeError: an option that is called as one of the other arguments
            raise UserError(f"--model {self.name}: {error}; change --input_shape or --model_args") from None

    def without_shape(self) -> tuple[Any, ...]:
        """What two networks must share so that one takes the weights of the other."""
        options = {key: list(value) if isinstance(value, tuple) else value for key, value in self.options.items()}
        return self.name, self.in_channels, self.out_channels, options

    def __str__(self) -> str:
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        shape = "×".join(map(str, self.input_shape))
        return f"{self.name}{options} ({self.in_channels} to {self.out_channels} channels, {shape})"


def save_checkpoint(
    path: Path,
    spec: NetworkSpec,
    weights: dict[str, Any],
    settings: dict[str, Any],
    keep: Path | None = None,
    **state: Any,
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: file to write.
        spec: the network's building plan.
        weights: the network's ``state_dict``.
        settings: of the run, in JSON's types.
        keep: new name for the file that is at ``path`` until now; without it, that is replaced.
        state: what else a continued run needs; tensors and plain Python only, as it is loaded with ``weights_only``.

    Raises:
        UserError: it can't be written.
    """
    content = {"format": FORMAT, "network": asdict(spec), "weights": weights, "settings": settings, **state}
    with written_aside(path, keep) as aside, aside.open("wb") as file:  # a path would put its name into the file
        try:
            torch.save(content, file)
        except RuntimeError:  # what torch's writer makes of any failed write
            raise OSError("not all of it; is the disk full?") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; its ``sha256`` is that of the file.

    Raises:
        CheckpointError: it is no checkpoint, it is damaged, or its weights are not all finite.
        UserError: it can't be read, which says nothing about what it holds.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such checkpoint", "give a run's folder, or its best.pt")
        stored = path.read_bytes()  # once, for the hash and for torch
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise UserError(f"{path}: can't be read ({reason}); make it readable") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles that it then refuses
            content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle raises nearly anything
        if is_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80] if stored else "empty"
        if isinstance(error, pickle.UnpicklingError):  # torch tells of its own history first
            reason = "holds something else than tensors, numbers and text"
        raise CheckpointError(f"{path}: not a checkpoint, or damaged ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this project", "give a run's folder, or its best.pt")
    try:
        spec = content["network"]
        content["network"] = NetworkSpec(**{**spec, "input_shape": tuple(spec["input_shape"])})
        content["task"] = TASKS[content["settings"]["task"]]
        not_finite = [name for name, tensor in content["weights"].items() if not torch.isfinite(tensor).all()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged, its content is incomplete ({error!r:.80})") from None
    if not_finite:
        fault = f"{path}: the weights of {not_finite[0]} are not finite"
        raise CheckpointError(fault, "use an earlier checkpoint, or train anew")
    content["sha256"] = hashlib.sha256(stored).hexdigest()
    return content


def load_checkpoint_of(task: Task, path: Path) -> dict[str, Any]:
    """Read a checkpoint that must have been trained for a task. Raises UserError."""
    content = load_checkpoint(path)
    found = content["task"]
    if found != task:
        kinds = [f"{each.network_name} ({each.model_argument})" for each in (found, task)]
        raise UserError(f"{path}: is a {kinds[0]}, not a {kinds[1]}; exchange them")
    return content


def describe_input(scaling: HuScaling, overhang_vox: tuple[int, int, int], grid: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says under ``input``: all that inference must do to an image before the network sees it.

    Args:
        scaling: of HU.
        overhang_vox: of the patches.
        grid: the H5's own settings (spacing or shape).
    """
    return {**grid, **asdict(scaling), "overhang_vox": list(overhang_vox)}


def scaling_of(content: dict[str, Any]) -> HuScaling:
    """The scaling that a checkpoint holds; what one from before 0.2.0 lacks is today's."""
    told = {key: value for key, value in content.get("input", {}).items() if key in {f.name for f in fields(HuScaling)}}
    if "hu_range" in told:
        told["hu_range"] = tuple(told["hu_range"])
    return HuScaling(**told)


def find_checkpoint(run: Path, runs: Path, task: Task) -> Path:
    """The checkpoint that is meant.

    Args:
        run: "pretrained" for the network that comes with the project; else a file, or a run, of which the best network
            is meant, by its folder or its name.
        runs: folder of the runs, for names.
        task: of the pretrained network.
    """
    if str(run) == PRETRAINED:
        return pretrained_checkpoint(task)
    folder = find_run_folder(run, runs)
    return run if folder is None else folder.best_checkpoint


def load_weights(path: Path, spec: NetworkSpec, network: Network) -> None:
    """Load a checkpoint's weights into a network of the same plan.

    What may differ: the input shape; what is told apart, where the layers that give the logits keep the weights that
    they have; and what the network is shown besides the image, whose weights become 0.

    Raises:
        UserError: no checkpoint, or one of another model.
    """
    content = load_checkpoint(path)
    found: NetworkSpec = content["network"]
    if found.out_channels != spec.out_channels:
        heads = {parameter for head in network.heads() for parameter in head.parameters()}
        own = {name: parameter.detach() for name, parameter in network.named_parameters() if parameter in heads}
        content["network"] = replace(found, out_channels=spec.out_channels)
        content["weights"] = {**content["weights"], **own}
    if found.in_channels < spec.in_channels:
        content["network"] = replace(content["network"], in_channels=spec.in_channels)
        own = network.state_dict()
        content["weights"] = {name: _widened(weight, own.get(name)) for name, weight in content["weights"].items()}
    fill_network(network, spec, content, path)


def _widened(weight: Tensor, own: Tensor | None) -> Tensor:
    """A layer's weight with 0 for the channels that it isn't given and ``own`` has."""
    if own is None or own.shape == weight.shape or own.ndim != weight.ndim or own.ndim < 2:
        return weight
    wider = torch.zeros_like(own)
    wider[:, : weight.shape[1]] = weight
    return wider


def fill_network(network: nn.Module, spec: NetworkSpec, content: dict[str, Any], path: Path) -> None:
    """Load the weights of what ``load_checkpoint`` read from a path into a network of the same plan.

    Raises:
        CheckpointError: the checkpoint is one of another model.
    """
    found: NetworkSpec = content["network"]
    if found.without_shape() != spec.without_shape():
        fault = f"{path}: a checkpoint of {found}, not of {spec}"
        raise CheckpointError(fault, "give one of the same model and options")
    try:
        network.load_state_dict(content["weights"])
    except RuntimeError as error:
        fault = f"{path}: weights don't fit {spec} ({str(error).splitlines()[0]})"
        raise CheckpointError(fault, "train it anew") from None
