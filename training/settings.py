"""Settings of a training run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prediction.options import Options
from utils.files.run_folder import PLACE_AND_MACHINE, RUNS_FOLDER, RunFolder
from utils.tasks import HEATMAP, Task
from verse_utils.editions import Edition
from verse_utils.splits import Fold


@dataclass(frozen=True)
class OptimizerFacts:
    """What is known of an optimizer before torch is loaded.

    Attributes:
        lr: learning rate if none is given.
        usual_lr: the least and the largest learning rate that it is used with.
        weight_decay: if none is given.
        copies: numbers that it keeps for each weight.
    """

    lr: float
    usual_lr: tuple[float, float]
    weight_decay: float
    copies: int


# Prodigy: its authors recommend --lr 1, and it keeps two moments, the weight at the start, and a running sum.
# AdamW: torch's defaults, two moments. SGD: those of nnU-Net (Isensee et al. 2021), one moment.
OPTIMIZERS = {
    "prodigy": OptimizerFacts(1.0, (0.1, 10.0), 0.01, copies=4),
    "adamw": OptimizerFacts(1e-3, (1e-6, 1e-2), 0.01, copies=2),
    "sgd": OptimizerFacts(1e-2, (1e-5, 1e-1), 3e-5, copies=1),
}

# The localiser's loss by its labels, where none is given.
HEATMAP_LOSSES = {"binary": HEATMAP.losses[0], "vertebrae": "HeatmapCE"}

# Settings of the test alone, which --test_only may give; their defaults are those of the test after training.
TEST_OPTIONS = ("test_split", "overlap", "tta", "postprocess")

# What may change between a run and its continuation: how long it takes, and what concerns the machine. The cases behind
# --data_path are compared by their content.
_FREE_TO_CHANGE = (
    *(name for name in PLACE_AND_MACHINE if name != "model_name"),
    *("dataset_edition", "epochs", "early_stopping", "full_validation", "precision"),
    *TEST_OPTIONS,
)


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a run: the arguments of the command line with their defaults, and the task."""

    task: Task
    data_path: tuple[Path, ...]
    model_name: str
    epochs: int = 200
    batch_size: int = 1
    lr: float = OPTIMIZERS["prodigy"].lr
    input_shape: tuple[int, int, int] = field(kw_only=True)
    model: str = "UNet"
    early_stopping: int = 30
    dataset_edition: Edition = 19
    no_download: bool = False
    use_wandb: bool = False
    model_args: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "prodigy"
    weight_decay: float = OPTIMIZERS["prodigy"].weight_decay
    schedule: str = "cosine"
    warmup: int = 0
    loss: str = field(kw_only=True)
    heatmap_mode: str = "distance"
    labels: str = "binary"
    augmentation: str = "light"
    patches_per_volume: int = 4
    bone_share: float = 1 / 3
    precision: str = "fp32"
    compile: bool = False
    checkpointing: bool = False
    accumulate: int = 1
    memory_gb: float | None = None
    clip: float = 12.0
    ema: float = 0.0
    full_validation: int | None = None
    checkpoint_minutes: float = 10.0
    restart: bool = False
    init_from: Path | None = None
    fold: Fold | None = None
    test_only: bool = False
    test_split: str = "test"
    overlap: float = Options.overlap
    tta: bool = False
    postprocess: str = Options.postprocess
    seed: int = 0
    workers: int = 1
    device: str = "auto"
    output: Path = RUNS_FOLDER

    @property
    def data_paths(self) -> str:
        """The paths of the data as text, for messages."""
        return ", ".join(map(str, self.data_path))

    @property
    def run_folder(self) -> RunFolder:
        """The folder of the run's results."""
        return RunFolder(self.output / self.model_name)

    @property
    def test_folder(self) -> RunFolder:
        """The folder of the test's results: the run's own, unless split or options are not those after training."""
        flags = {"overlap": f"overlap{self.overlap:g}", "tta": "tta", "postprocess": self.postprocess}
        differing = [flag for name, flag in flags.items() if getattr(self, name) != getattr(TrainingSettings, name)]
        name = "_".join([self.test_split, *differing])
        return self.run_folder if name == TrainingSettings.test_split else self.run_folder.further_test(name)

    @property
    def whole_scans_every(self) -> int:
        """Epochs between validations on whole scans: by default, about ten in a run."""
        return self.full_validation or max(1, round(self.epochs / 10))

    def as_dict(self) -> dict[str, Any]:
        """The settings in JSON's types."""
        texts = {"task": self.task.name, "fold": self.fold and str(self.fold)}
        content: dict[str, Any] = json.loads(json.dumps({**asdict(self), **texts}, default=str))
        return content

    def identity(self) -> dict[str, Any]:
        """The settings that a continued run must share with its beginning."""
        return {key: value for key, value in self.as_dict().items() if key not in _FREE_TO_CHANGE}
