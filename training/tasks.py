"""What differs between training the localiser and the segmenter, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchio as tio
from torch import Tensor

from data_transforms.heatmap_transforms import heatmap_presets
from data_transforms.presets import Presets
from data_transforms.segmentation_transforms import segmentation_presets
from dataloader import Patches, h5VerSe
from metrics.losses import HEATMAP_LOSSES, MASK_LOSSES, DeepSupervision
from metrics.metric_handler import HEATMAP_METRICS, MASK_METRICS, MetricHandler
from preprocessing import Settings as PreprocessingSettings
from training.arguments import Settings
from utils.components import without_small_blobs
from utils.constants import HU_PER_UNIT, LEAST_BLOB_MM3, OVERHANG_VOX
from utils.probabilities import class_indices
from utils.visualize import PREDICTION_COLOUR, TARGET_COLOUR, draw_comparison, draw_planes
from verse_utils.errors import UserError
from verse_utils.labels import LABEL_TABLES, VERTEBRA_NAMES, class_count, label_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Task(ABC):
    """Target, loss, data, metrics and picture of one kind of network.

    Attributes:
        name: "heatmap" or "segmentation"; the H5 must have been made for it.
        score_name: column of the validation score that picks the best epoch; higher is better.
        target_key: of the subject, what the network learns.
        out_channels: of the network.
        loss: logits (B, K, X, Y, Z), or a list of them under deep supervision, and target to a scalar.
        presets: transforms for training and evaluation.
        overhang_vox: voxels that windows see beyond each end of a scan, as patches do.
    """

    name: str
    score_name: str
    target_key: str
    out_channels: int
    loss: torch.nn.Module
    presets: Presets
    overhang_vox: tuple[int, int, int] = (0, 0, 0)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def preprocessing(self) -> PreprocessingSettings:
        """How a VerSe folder is made into the task's H5."""

    @abstractmethod
    def patches(self) -> Patches | None:
        """How patches are drawn; None for whole volumes."""

    def dataset(self, h5_path: Path, split: str) -> h5VerSe:
        """Training and validation cases in patches, test cases whole."""
        transform = self.presets.train if split == "training" else self.presets.evaluate
        return h5VerSe(h5_path, split, transform, None if split == "test" else self.patches(), self.name)

    @abstractmethod
    def score_terms(self, logits: Tensor, target: Tensor) -> np.ndarray:
        """Sums from one batch that ``score`` can turn into a number, once they are added up."""

    @abstractmethod
    def score(self, terms: np.ndarray) -> float:
        """Validation score from the summed terms."""

    @abstractmethod
    def metric_handler(self) -> MetricHandler:
        """An empty table of the task's metrics."""

    def clean(self, probabilities_KXYZ: Tensor, spacing_mm: Sequence[float]) -> Tensor:
        """A whole scan's probabilities without what can be no finding; as they are, unless a task knows better."""
        return probabilities_KXYZ

    @abstractmethod
    def measure(self, handler: MetricHandler, subject: tio.Subject, probabilities_KXYZ: Tensor) -> None:
        """Add a whole test case's metrics to the table."""

    def masks(self, subject: tio.Subject, probabilities_KXYZ: Tensor) -> dict[str, np.ndarray]:
        """Masks of a whole test case to be kept, (X, Y, Z) uint8 by name; none, unless a task makes masks."""
        return {}

    @abstractmethod
    def picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        """Input, target and prediction in three planes through the spine."""

    def test_picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        """A whole test case; as any other, unless a task shows more."""
        return self.picture(subject, probabilities_KXYZ, title)


class HeatmapTask(Task):
    """The localiser: a heatmap of the spine in a view of the whole scan."""

    name = "heatmap"
    score_name = "validation_r2"
    target_key = "heatmap"
    out_channels = 1

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.loss = DeepSupervision(HEATMAP_LOSSES[settings.loss]())
        self.presets = heatmap_presets(mode=settings.heatmap_mode)

    def preprocessing(self) -> PreprocessingSettings:
        return PreprocessingSettings("heatmap", shape=self.settings.input_shape)

    def patches(self) -> None:
        return None

    def dataset(self, h5_path: Path, split: str) -> h5VerSe:
        dataset = super().dataset(h5_path, split)
        stored = tuple(dataset.store.settings["shape"])
        if stored != self.settings.input_shape:
            raise UserError(
                f"{h5_path}: made for --input_shape {stored}, not {self.settings.input_shape}; pass that one"
            )
        return dataset

    def score_terms(self, logits: Tensor, target: Tensor) -> np.ndarray:
        prediction, target = torch.sigmoid(logits.double()), target.double()
        residual = (prediction - target).square().sum()
        return np.array([residual.item(), target.square().sum().item(), target.sum().item(), target.numel()])

    def score(self, terms: np.ndarray) -> float:
        """R² over all voxels of the validation views."""
        residual, squares, total, count = terms
        return float(1 - residual / max(squares - total**2 / count, 1e-12))

    def metric_handler(self) -> MetricHandler:
        return MetricHandler(HEATMAP_METRICS)

    def measure(self, handler: MetricHandler, subject: tio.Subject, probabilities_KXYZ: Tensor) -> None:
        handler.update(
            subject["case_id"],
            prediction=probabilities_KXYZ[0].numpy(),
            target=subject["heatmap"].data[0].numpy(),
            mask=subject["label"].data[0].numpy() > 0,
            spacing_mm=subject["image"].spacing,
        )

    def picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        target = subject["heatmap"].data[0].numpy()
        prediction = probabilities_KXYZ[0].numpy()
        rows = {
            "input": {},
            "target": {"heatmap": target},
            "prediction": {"heatmap": prediction, TARGET_COLOUR: target},
        }
        return draw_planes(_hu(subject), subject["image"].spacing, target, rows, title)


class SegmentationTask(Task):
    """The segmenter: the mask of the vertebrae in patches at 1 mm."""

    name = "segmentation"
    score_name = "validation_dice"
    target_key = "label"
    overhang_vox = OVERHANG_VOX

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        table = LABEL_TABLES[settings.labels]
        classes = class_count(table)
        self.out_channels = 1 if classes == 2 else classes
        self.loss = DeepSupervision(MASK_LOSSES[settings.loss]())
        self.presets = segmentation_presets(table)

    def preprocessing(self) -> PreprocessingSettings:
        return PreprocessingSettings("segmentation")

    def patches(self) -> Patches:
        settings = self.settings
        return Patches(
            settings.input_shape, settings.patches_per_volume, settings.bone_share, self.overhang_vox, settings.seed
        )

    def score_terms(self, logits: Tensor, target: Tensor) -> np.ndarray:
        prediction = (logits > 0).long() if self.out_channels == 1 else logits.argmax(dim=1, keepdim=True)
        classes = range(1, max(self.out_channels, 2))
        overlaps = [((prediction == c) & (target == c)).sum().item() for c in classes]
        sizes = [(prediction == c).sum().item() + (target == c).sum().item() for c in classes]
        return np.array([overlaps, sizes], dtype=float)

    def score(self, terms: np.ndarray) -> float:
        """Dice over all voxels of the validation patches, the mean of the classes that occur."""
        overlaps, sizes = terms
        occurs = sizes > 0
        return float(np.mean(2 * overlaps[occurs] / sizes[occurs])) if occurs.any() else 1.0

    def metric_handler(self) -> MetricHandler:
        if self.out_channels == 1:
            return MetricHandler(MASK_METRICS)
        return MetricHandler(MASK_METRICS, class_names=_class_names(self.settings.labels))

    def clean(self, probabilities_KXYZ: Tensor, spacing_mm: Sequence[float]) -> Tensor:
        """Without blobs that are too small for a vertebra: pieces of ribs or of cut vertebrae."""
        return without_small_blobs(probabilities_KXYZ, spacing_mm, LEAST_BLOB_MM3)

    def measure(self, handler: MetricHandler, subject: tio.Subject, probabilities_KXYZ: Tensor) -> None:
        handler.update(
            subject["case_id"],
            prediction=class_indices(probabilities_KXYZ.numpy()),
            target=subject["label"].data[0].numpy(),
            spacing_mm=subject["image"].spacing,
        )

    def masks(self, subject: tio.Subject, probabilities_KXYZ: Tensor) -> dict[str, np.ndarray]:
        """Prediction and target, with the values that inference writes."""
        values = label_values(self.settings.labels)
        target = subject["label"].data[0].numpy()
        return {"prediction": values[class_indices(probabilities_KXYZ.numpy())], "target": values[target]}

    def picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        target = subject["label"].data[0].numpy() > 0
        prediction = class_indices(probabilities_KXYZ.numpy()) > 0
        rows = {"input": {}, "target": {TARGET_COLOUR: target}, "prediction": {PREDICTION_COLOUR: prediction}}
        return draw_planes(_hu(subject), subject["image"].spacing, target, rows, title)

    def test_picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        """Prediction and target on slices along the spine's line."""
        masks = self.masks(subject, probabilities_KXYZ)
        return draw_comparison(_hu(subject), subject["image"].spacing, masks["prediction"], masks["target"], title)


TASKS: dict[str, type[Task]] = {task.name: task for task in (HeatmapTask, SegmentationTask)}


def _class_names(labels: str) -> tuple[str, ...]:
    """Names of the foreground classes of a label table, in the order of their numbers."""
    if labels == "regions":
        return "cervical", "thoracic", "lumbar"
    return tuple(VERTEBRA_NAMES[label] for label in LABEL_TABLES[labels])


def _hu(subject: tio.Subject) -> np.ndarray:
    return subject["image"].data[0].numpy() * HU_PER_UNIT
