"""What differs between training the localiser and training the segmenter."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torchio as tio
from torch import Tensor

from data_transforms.heatmap_transforms import heatmap_presets
from data_transforms.presets import Presets
from data_transforms.segmentation_transforms import segmentation_presets
from dataloader import Patches, h5VerSe
from metrics.heatmap_metrics import HEATMAP_METRICS, confidence_in, spine_in_heatmap
from metrics.losses import build_loss
from metrics.mask_metrics import MASK_METRICS
from metrics.metric_handler import MetricHandler
from prediction.postprocessing import without_dropped_components
from prediction.probabilities import class_indices
from training.settings import TrainingSettings
from utils.constants import HU_PER_UNIT
from utils.preprocessing_settings import IsotropicSettings, PreprocessingSettings, ViewSettings
from utils.tasks import HEATMAP, SEGMENTATION, Task
from utils.visualize import PREDICTION_COLOUR, REFERENCE_COLOUR, draw_comparison, draw_planes
from verse_utils.errors import UserError
from verse_utils.labels import label_scheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Numbers of each view from which a localiser's scores are computed.
VIEW_TERMS = 6


class TrainingTask(ABC):
    """How networks are trained for a task: data, transforms, loss, metrics and pictures.

    Attributes:
        task: that the H5 must have been made for.
        score_name: column of the validation score, by which the best epoch is chosen; higher is better.
        target_key: image of the subject that is the target of the loss.
        scores_patches: whether the validation score is that of patches, so that whole scans may score otherwise.
        full_score_name: column of the score of whole validation scans, where patches are scored.
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


class HeatmapTraining(TrainingTask):
    """The localiser: a heatmap of the spine in a view of the whole scan."""

    task = HEATMAP
    score_name = "validation_r2"
    target_key = "heatmap"
    scores_patches = False
    full_score_name = ""
    out_channels = 1
    starts_as_background = True

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        self.loss = build_loss(settings.loss)
        self.presets = heatmap_presets(settings.heatmap_mode, settings.augmentation)

    def preprocessing(self) -> PreprocessingSettings:
        return ViewSettings(self.settings.input_shape)

    def patches(self) -> None:
        return None

    def dataset(self, h5_path: Path | Sequence[Path], split: str, whole: bool = False) -> h5VerSe:
        dataset = super().dataset(h5_path, split, whole)
        stored = tuple(dataset.store.settings["shape"])
        if stored != self.settings.input_shape:
            raise UserError(
                f"{dataset.store.name}: holds views of {stored} voxels, not of --input_shape "
                f"{self.settings.input_shape}; leave the argument out"
            )
        return dataset

    def score_terms(self, logits: Tensor, target: Tensor, spacing_mm: Sequence[float] = (1, 1, 1)) -> np.ndarray:
        prediction = torch.sigmoid(logits.double())
        heatmap = prediction[0, 0].cpu().numpy()
        confidence = confidence_in(heatmap, spine_in_heatmap(heatmap, spacing_mm))
        return self._terms(prediction, target.double(), confidence)

    @staticmethod
    def _terms(prediction: Tensor, target: Tensor, confidence: float) -> np.ndarray:
        """What R² and the mean confidence need of one view: ``VIEW_TERMS`` numbers."""
        residual = (prediction - target).square().sum().item()
        return np.array([residual, target.square().sum().item(), target.sum().item(), target.numel(), confidence, 1])

    def score(self, terms: np.ndarray) -> float:
        """R² over all voxels of the validation views together."""
        residual, squares, total, count = terms[:4]
        variation = squares - total**2 / count
        if variation <= 1e-9 * squares:  # apart from rounding, it is the same value everywhere
            warnings.warn("no validation view shows a spine: the score is 0; check the cases' masks", stacklevel=2)
            return 0.0
        return float(1 - residual / variation)

    def further_scores(self, terms: np.ndarray) -> dict[str, float | str]:
        """The mean of the localiser's confidences in the views, to which inference compares its own."""
        confidence, views = terms[4:VIEW_TERMS]
        return {"validation_confidence": float(confidence / views)}

    def learn_from_validation(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The mean confidence; nothing of an epoch from before it was measured."""
        return {"confidence": row["validation_confidence"]} if "validation_confidence" in row else {}

    def metric_handler(self) -> MetricHandler:
        return MetricHandler(HEATMAP_METRICS)

    def measure(self, handler: MetricHandler, subject: tio.Subject, probabilities_KXYZ: Tensor) -> None:
        handler.update(
            subject["case_id"],
            prediction=probabilities_KXYZ[0].numpy(),
            reference=subject["heatmap"].data[0].numpy(),
            mask=subject["label"].data[0].numpy() > 0,
            spacing_mm=subject["image"].spacing,
        )

    def picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        return self.draw(subject, subject["heatmap"].data[0].numpy(), probabilities_KXYZ[0].numpy(), title)

    @staticmethod
    def draw(subject: tio.Subject, target: np.ndarray, prediction: np.ndarray, title: str) -> Figure:
        """Draw a view and two heatmaps (X, Y, Z) of it in three planes."""
        rows = {
            "input": {},
            "target": {"heatmap": target},
            "prediction": {"heatmap": prediction, REFERENCE_COLOUR: target},
        }
        return draw_planes(_hu(subject), subject["image"].spacing, target, rows, title)


class SegmentationTraining(TrainingTask):
    """The segmenter: the mask of the vertebrae in patches at 1 mm."""

    task = SEGMENTATION
    score_name = "validation_dice"
    target_key = "label"
    scores_patches = True
    full_score_name = "full_validation_dice"

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        self.scheme = label_scheme(settings.labels)
        self.out_channels = 1 if self.scheme.class_count == 2 else self.scheme.class_count
        self.starts_as_background = self.out_channels == 1
        self.loss = build_loss(settings.loss)
        self.presets = segmentation_presets(self.scheme, settings.augmentation)

    def preprocessing(self) -> PreprocessingSettings:
        return IsotropicSettings()

    def patches(self) -> Patches:
        settings = self.settings
        return Patches(
            shape=settings.input_shape,
            per_volume=settings.patches_per_volume,
            foreground_share=settings.bone_share,
            overhang_vox=self.task.overhang_vox,
            seed=settings.seed,
        )

    def score_terms(self, logits: Tensor, target: Tensor, spacing_mm: Sequence[float] = (1, 1, 1)) -> np.ndarray:
        prediction = (logits > 0).long() if self.out_channels == 1 else logits.argmax(dim=1, keepdim=True)
        return self._overlaps_and_sizes(prediction, target)

    def _overlaps_and_sizes(self, prediction: Tensor, target: Tensor) -> np.ndarray:
        classes = range(1, max(self.out_channels, 2))
        overlaps = [((prediction == c) & (target == c)).sum().item() for c in classes]
        found = [(prediction == c).sum().item() for c in classes]
        wanted = [(target == c).sum().item() for c in classes]
        return np.array([overlaps, found, wanted], dtype=float)

    def scan_score(self, subject: tio.Subject, probabilities_KXYZ: Tensor) -> float:
        """Dice of the scan; the mean over the classes that occur."""
        prediction = torch.from_numpy(class_indices(probabilities_KXYZ.numpy()))
        return self.score(self._overlaps_and_sizes(prediction, subject["label"].data[0]))

    def score(self, terms: np.ndarray) -> float:
        """Dice over all voxels of the validation patches together; the mean over the classes that occur.

        A patch without foreground adds only what is falsely found in it. Without foreground in any patch, it is 0.
        """
        overlaps, found, wanted = terms
        if not wanted.any():
            remedy = "raise --bone_share or --patches_per_volume"
            warnings.warn(f"no validation patch holds foreground: the score is 0; {remedy}", stacklevel=2)
            return 0.0
        sizes = found + wanted
        occurs = sizes > 0
        return float(np.mean(2 * overlaps[occurs] / sizes[occurs]))

    def metric_handler(self) -> MetricHandler:
        if self.out_channels == 1:
            return MetricHandler(MASK_METRICS)
        return MetricHandler(MASK_METRICS, self.scheme.class_names)

    def clean(self, probabilities_KXYZ: Tensor, spacing_mm: Sequence[float]) -> Tensor:
        """Remove the connected components that ``--postprocess`` drops: pieces of ribs or of cut vertebrae."""
        return without_dropped_components(probabilities_KXYZ, spacing_mm, self.settings.postprocess)

    def measure(self, handler: MetricHandler, subject: tio.Subject, probabilities_KXYZ: Tensor) -> None:
        handler.update(
            subject["case_id"],
            prediction=class_indices(probabilities_KXYZ.numpy()),
            reference=subject["label"].data[0].numpy(),
            spacing_mm=subject["image"].spacing,
        )

    def masks(self, subject: tio.Subject, probabilities_KXYZ: Tensor) -> dict[str, np.ndarray]:
        """Prediction and reference mask, with the values that inference writes."""
        values = np.array(self.scheme.mask_values, np.uint8)
        target = subject["label"].data[0].numpy()
        return {"prediction": values[class_indices(probabilities_KXYZ.numpy())], "target": values[target]}

    def picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        target = subject["label"].data[0].numpy() > 0
        prediction = class_indices(probabilities_KXYZ.numpy()) > 0
        rows = {"input": {}, "target": {REFERENCE_COLOUR: target}, "prediction": {PREDICTION_COLOUR: prediction}}
        return draw_planes(_hu(subject), subject["image"].spacing, target, rows, title)

    def test_picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        """Draw prediction and reference mask on slices along the line of the spine."""
        masks = self.masks(subject, probabilities_KXYZ)
        return draw_comparison(_hu(subject), subject["image"].spacing, masks["prediction"], masks["target"], title)


TRAINING_TASKS: dict[Task, type[TrainingTask]] = {kind.task: kind for kind in (HeatmapTraining, SegmentationTraining)}


def _hu(subject: tio.Subject) -> np.ndarray:
    image_hu: np.ndarray = subject["image"].data[0].numpy() * HU_PER_UNIT
    return image_hu
