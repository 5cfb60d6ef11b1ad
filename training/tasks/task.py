"""What networks are trained for: what training, validation and test ask of each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torchio as tio
from torch import Tensor, nn

from data_transforms.presets import Presets
from dataloader import Patches, h5VerSe
from metrics.metric_handler import MetricHandler
from networks.network import Network
from prediction.sliding_window import predict_probabilities
from training.settings import TrainingSettings
from training.steps.step_plan import StepPlan
from utils.constants import HU_PER_UNIT
from utils.preprocessing_settings import PreprocessingSettings
from utils.tasks import Task
from verse_utils.errors import UserError
from verse_utils.labels import ANATOMICAL_ORDER

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TrainingTask(ABC):
    """How networks are trained for a task: data, transforms, loss, metrics and pictures.

    Attributes:
        task: that the H5 must have been made for.
        score_name: column of the validation score, by which the best epoch is chosen; higher is better.
        target_key: image of the subject that is the target of the loss.
        scores_patches: whether the validation score is that of patches, so that whole scans may score otherwise.
        full_score_name: column of the score of whole validation scans, where patches are scored.
        in_channels: of the network: the image, and what else it is shown.
        out_channels: of the network.
        starts_as_background: whether a new network answers background nearly everywhere.
        loss: function of logits (B, K, X, Y, Z), or a list of them under deep supervision, and target; a scalar.
        presets: transforms for training and evaluation.
    """

    task: Task
    score_name: str
    target_key: str
    scores_patches: bool
    full_score_name: str
    in_channels: int = 1
    out_channels: int
    starts_as_background: bool
    loss: torch.nn.Module
    presets: Presets

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings

    @abstractmethod
    def preprocessing(self) -> PreprocessingSettings:
        """What a VerSe folder is preprocessed to."""

    @abstractmethod
    def patches(self) -> Patches | None:
        """How patches are drawn; None for whole volumes."""

    def dataset(self, h5_path: Path | Sequence[Path], split: str, whole: bool = False) -> h5VerSe:
        """Cases of a split, in patches or ``whole``; those of the test always whole."""
        transform = self.presets.train if split == "training" else self.presets.evaluate
        patches = None if whole or split == "test" else self.patches()
        return h5VerSe(h5_path, split, transform, patches, self.task, self.settings.fold)

    def check(self, dataset: h5VerSe) -> None:
        """Raise UserError where the training cases can't teach what is to be learnt; by default, they can."""
        return None

    def learn(self, dataset: h5VerSe) -> dict[str, Any]:
        """What the training cases teach besides the weights, in JSON's types, for the checkpoint; by default, nothing.

        ``recall`` is given it, and the rest of the checkpoint's ``input``, where a network is tested without training.
        """
        return {}

    def learn_from_validation(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What an epoch's row of the history teaches, as ``learn``; by default, nothing."""
        return {}

    def recall(self, network_input: Mapping[str, Any]) -> None:
        """Take up what was learnt."""
        return None

    def predict(self, network: Network, subject: tio.Subject, plan: StepPlan) -> Tensor:
        """Probabilities (K, X, Y, Z) of a whole scan, on the CPU.

        ``--overlap`` and ``--tta`` have their defaults while a network is trained.
        """
        return self.predict_image(network, subject["image"].data, plan, self.task.overhang_vox)

    def predict_image(
        self, network: nn.Module, image_CXYZ: Tensor, plan: StepPlan, overhang_vox: Sequence[int] = (0, 0, 0)
    ) -> Tensor:
        """Probabilities (K, X, Y, Z) of a scaled image (C, X, Y, Z) of any size by windows, on the CPU."""
        network.eval()
        with plan.device.autocast():
            return predict_probabilities(
                network,
                image_CXYZ,
                self.settings.input_shape,
                overlap=self.settings.overlap,
                batch_size=plan.batch_size,
                overhang_vox=overhang_vox,
                mirror=self.settings.tta,
                device=plan.device.torch_device,
            )

    @abstractmethod
    def score_terms(self, logits: Tensor, target: Tensor, spacing_mm: Sequence[float] = (1, 1, 1)) -> np.ndarray:
        """Sums over one batch; ``score`` computes the score from their totals over all batches."""

    @abstractmethod
    def score(self, terms: np.ndarray) -> float:
        """Validation score from the summed terms.

        Warns:
            UserWarning: the targets hold nothing to be found, so that the score is 0 whatever the network finds.
        """

    def further_scores(self, terms: np.ndarray) -> dict[str, float | str]:
        """Further columns of the history from the summed terms; by default, none."""
        return {}

    def scan_score(self, subject: tio.Subject, probabilities_KXYZ: Tensor) -> float:
        """Score of a whole validation scan; only where patches are scored."""
        raise NotImplementedError

    @abstractmethod
    def metric_handler(self) -> MetricHandler:
        """A handler of the task's metrics without cases."""

    def clean(self, probabilities_KXYZ: Tensor, spacing_mm: Sequence[float]) -> Tensor:
        """Remove implausible findings from the probabilities of a whole scan; by default, nothing is removed."""
        return probabilities_KXYZ

    @abstractmethod
    def measure(self, handler: MetricHandler, subject: tio.Subject, probabilities_KXYZ: Tensor) -> None:
        """Add the metrics of a whole test case to the handler."""

    def masks(self, subject: tio.Subject, probabilities_KXYZ: Tensor) -> dict[str, np.ndarray]:
        """Masks of a whole test case to save, (X, Y, Z) uint8 by name; by default, none."""
        return {}

    @abstractmethod
    def picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        """Draw input, target and prediction in three planes through the spine."""

    def test_picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        """Draw a whole test case; by default, as ``picture``."""
        return self.picture(subject, probabilities_KXYZ, title)


def require_names(dataset: h5VerSe, labels: str) -> None:
    """Raise UserError where all masks of training cases have one and the same label: they tell no vertebrae apart.

    Args:
        dataset: of the training cases; read until a second label is found.
        labels: that are to be learnt, for the message.
    """
    seen: set[int] = set()
    for place in dataset.places:
        _, label = dataset.store.read(*place)
        seen |= set(np.flatnonzero(np.bincount(label.reshape(-1), minlength=256)).tolist()) & set(ANATOMICAL_ORDER)
        if len(seen) > 1:
            return
    raise UserError(
        f"{dataset.store.name}: the masks have one label for all vertebrae, so that --labels {labels} can't be learnt; "
        "train with --labels binary"
    )


def hu_of(subject: tio.Subject) -> np.ndarray:
    """The image (X, Y, Z) of a subject in HU again, for pictures."""
    image_hu: np.ndarray = subject["image"].data[0].numpy() * HU_PER_UNIT
    return image_hu
