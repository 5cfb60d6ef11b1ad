"""The command line of the two training scripts."""

from __future__ import annotations

import argparse
import ast
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from networks import ARCHITECTURES
from utils.constants import HEATMAP_SHAPE, SEGMENTATION_SHAPE
from utils.misc import OneLineParser, parse_bool
from verse_utils.errors import UserError
from verse_utils.labels import LABEL_TABLES

HEATMAP_MODES = ("distance", "gaussian")
LOSS_NAMES = {"heatmap": ("MSE", "Wing", "AdaptiveWing"), "segmentation": ("DiceCE", "Dice", "BCE")}
PRECISIONS = ("fp32", "bf16", "fp16", "auto")

# What may change between a run and its continuation, as it doesn't change what is learnt.
_FREE_TO_CHANGE = ("output", "workers", "device", "use_wandb", "dataset_edition")


@dataclass(frozen=True)
class Settings:
    """Everything that makes a run what it is; the fields are the command line's arguments."""

    task: str
    data_path: Path
    model_name: str
    epochs: int = 200
    batch_size: int = 1
    lr: float = 1.0
    input_shape: tuple[int, int, int] = SEGMENTATION_SHAPE
    model: str = "UNet"
    early_stopping: int = 30
    dataset_edition: int = 19
    use_wandb: bool = False
    model_args: dict[str, Any] = field(default_factory=dict)
    loss: str = "DiceCE"
    heatmap_mode: str = "distance"
    labels: str = "binary"
    patches_per_volume: int = 4
    bone_share: float = 1 / 3
    precision: str = "fp32"
    checkpointing: bool = False
    accumulate: int = 1
    memory_gb: float | None = None
    init_from: Path | None = None
    seed: int = 0
    workers: int = 1
    device: str = "auto"
    output: Path = Path("trained_models")

    @property
    def run_folder(self) -> Path:
        """Where the run's results lie."""
        return self.output / self.model_name

    def as_dict(self) -> dict:
        """The settings in JSON's types."""
        return json.loads(json.dumps(asdict(self), default=str))

    def identity(self) -> dict:
        """The settings that a continued run must share with its beginning."""
        return {key: value for key, value in self.as_dict().items() if key not in _FREE_TO_CHANGE}


def parse_arguments(task: str, argv: list[str] | None = None) -> Settings:
    """Read the command line of a task ("heatmap" or "segmentation"). Raises UserError."""
    heatmap = task == "heatmap"
    shape = HEATMAP_SHAPE if heatmap else SEGMENTATION_SHAPE
    parser = OneLineParser(
        description=f"Train the {'localiser' if heatmap else 'segmenter'}, then test it on whole scans.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data_path", type=Path, required=True, help="an H5 of preprocessing.py, or a VerSe folder")
    add("--model_name", required=True, help="name of the run; results go to trained_models/MODEL_NAME")
    add("--epochs", type=int, default=200, help="most epochs to train")
    add("--batch_size", type=int, default=1, help="patches in a step")
    add("--lr", type=float, default=1.0, help="factor on Prodigy's own step size")
    add("--input_shape", type=int, nargs=3, default=shape, metavar="N", help="voxels of the network's input")
    add("--model", default="UNet", choices=sorted(ARCHITECTURES), help="architecture")
    add("--early_stopping", type=int, default=30, help="epochs without a better validation score before stopping")
    add("--dataset_edition", type=int, default=19, choices=(19, 20), help="VerSe edition, where DATA_PATH is a folder")
    add("--use_wandb", type=_boolean, nargs="?", const=True, default=False, help="log to Weights & Biases too")
    add("--model_args", nargs="+", default=[], metavar="KEY=VALUE", help="options of the architecture")
    add("--loss", default=LOSS_NAMES[task][0], choices=LOSS_NAMES[task], help="what is minimised")
    if heatmap:
        add("--heatmap_mode", default="distance", choices=HEATMAP_MODES, help="from the spine's mask, or its centres")
    else:
        add("--labels", default="binary", choices=sorted(LABEL_TABLES), help="what is told apart")
        add("--patches_per_volume", type=int, default=4, help="random patches of each scan in an epoch")
        add("--bone_share", type=float, default=1 / 3, help="share of the patches that are centred on bone")
    add("--precision", default="fp32", choices=PRECISIONS, help="autocast; auto: the fastest here")
    add("--checkpointing", type=_boolean, nargs="?", const=True, default=False, help="less memory, a third more time")
    add("--accumulate", type=int, default=1, help="batches whose gradients make one step")
    add("--memory_gb", type=float, default=None, help="find what makes training stay under so many GiB")
    add("--init_from", type=Path, default=None, help="run or checkpoint of the same network to start from")
    add("--seed", type=int, default=0, help="same seed, same losses on a CPU")
    add("--workers", type=int, default=1, help="processes that prepare patches")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--output", type=Path, default=Path("trained_models"), help="folder of the runs")
    values = vars(parser.parse_args(argv))
    values["model_args"] = _parse_model_args(values["model_args"])
    values["input_shape"] = tuple(values["input_shape"])
    settings = Settings(task=task, **values)
    _check(settings)
    return settings


def _boolean(text: str) -> bool:
    try:
        return parse_bool(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parse_model_args(pairs: list[str]) -> dict[str, Any]:
    """``channels=8,16 refine_channels=4`` to keyword arguments; values are Python literals or plain words."""
    options = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--model_args {pair}: not of the form KEY=VALUE")
        try:
            options[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[key] = text
    return options


def _check(settings: Settings) -> None:
    for name in ("epochs", "batch_size", "early_stopping", "patches_per_volume", "lr", "accumulate"):
        if getattr(settings, name) <= 0:
            raise UserError(f"--{name} {getattr(settings, name)}: must be greater than 0")
    if settings.memory_gb is not None and settings.memory_gb <= 0:
        raise UserError(f"--memory_gb {settings.memory_gb}: must be greater than 0")
    if not 0 <= settings.bone_share <= 1:
        raise UserError(f"--bone_share {settings.bone_share}: must lie between 0 and 1")
    if settings.workers < 0 or settings.seed < 0:
        raise UserError("--workers and --seed must not be negative")
    if not settings.model_name or Path(settings.model_name).name != settings.model_name or settings.model_name == "..":
        raise UserError(f"--model_name {settings.model_name!r}: must be the name of a folder, not a path")
