"""Training of the segmenter of a binary mask, or of classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchio as tio
from torch import Tensor

from data_transforms.segmentation_transforms import segmentation_presets
from dataloader import Patches, h5VerSe
from metrics.losses import build_loss
from metrics.mask_metrics import MASK_METRICS
from metrics.metric_handler import MetricHandler
from prediction.postprocessing import without_dropped_components
from prediction.probabilities import class_indices
from training.settings import TrainingSettings
from training.tasks.task import TrainingTask, hu_of, require_names
from utils.preprocessing_settings import IsotropicSettings, PreprocessingSettings
from utils.tasks import SEGMENTATION
from utils.visualize import PREDICTION_COLOUR, REFERENCE_COLOUR, draw_comparison, draw_planes
from verse_utils.labels import label_scheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    def check(self, dataset: h5VerSe) -> None:
        if self.scheme.class_count > 2:
            require_names(dataset, self.settings.labels)

    def score_terms(self, logits: Tensor, target: Tensor, spacing_mm: Sequence[float] = (1, 1, 1)) -> np.ndarray:
        prediction = (logits > 0).long() if self.out_channels == 1 else logits.argmax(dim=1, keepdim=True)
        return self._overlaps_and_sizes(prediction, target, max(self.out_channels, 2))

    @staticmethod
    def _overlaps_and_sizes(prediction: Tensor, target: Tensor, class_count: int) -> np.ndarray:
        classes = range(1, class_count)
        overlaps = [((prediction == c) & (target == c)).sum().item() for c in classes]
        found = [(prediction == c).sum().item() for c in classes]
        wanted = [(target == c).sum().item() for c in classes]
        return np.array([overlaps, found, wanted], dtype=float)

    def classes(self, probabilities_KXYZ: Tensor) -> np.ndarray:
        """The class that each voxel of a whole scan belongs to, 0 the background: (X, Y, Z) uint8."""
        return class_indices(probabilities_KXYZ.numpy())

    def scan_score(self, subject: tio.Subject, probabilities_KXYZ: Tensor) -> float:
        """Dice of the scan; the mean over the classes that occur."""
        prediction = torch.from_numpy(self.classes(probabilities_KXYZ))
        return self.score(self._overlaps_and_sizes(prediction, subject["label"].data[0], self.scheme.class_count))

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
        if self.scheme.class_count == 2:
            return MetricHandler(MASK_METRICS)
        return MetricHandler(MASK_METRICS, self.scheme.class_names)

    def clean(self, probabilities_KXYZ: Tensor, spacing_mm: Sequence[float]) -> Tensor:
        """Remove the connected components that ``--postprocess`` drops: pieces of ribs or of cut vertebrae."""
        return without_dropped_components(probabilities_KXYZ, spacing_mm, self.settings.postprocess)

    def measure(self, handler: MetricHandler, subject: tio.Subject, probabilities_KXYZ: Tensor) -> None:
        handler.update(
            subject["case_id"],
            prediction=self.classes(probabilities_KXYZ),
            reference=subject["label"].data[0].numpy(),
            spacing_mm=subject["image"].spacing,
        )

    def masks(self, subject: tio.Subject, probabilities_KXYZ: Tensor) -> dict[str, np.ndarray]:
        """Prediction and reference mask, with the values that inference writes."""
        values = np.array(self.scheme.mask_values, np.uint8)
        target = subject["label"].data[0].numpy()
        return {"prediction": values[self.classes(probabilities_KXYZ)], "target": values[target]}

    def picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        target = subject["label"].data[0].numpy() > 0
        prediction = class_indices(probabilities_KXYZ.numpy()) > 0
        rows = {"input": {}, "target": {REFERENCE_COLOUR: target}, "prediction": {PREDICTION_COLOUR: prediction}}
        return draw_planes(hu_of(subject), subject["image"].spacing, target, rows, title)

    def test_picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        """Draw prediction and reference mask on slices along the line of the spine."""
        masks = self.masks(subject, probabilities_KXYZ)
        return draw_comparison(hu_of(subject), subject["image"].spacing, masks["prediction"], masks["target"], title)
