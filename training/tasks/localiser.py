"""Training of the localiser of one heatmap."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torchio as tio
from torch import Tensor

from data_transforms.heatmap_transforms import heatmap_presets
from dataloader import h5VerSe
from metrics.heatmap_metrics import HEATMAP_METRICS, spine_in_heatmap
from metrics.losses import build_loss
from metrics.metric_handler import MetricHandler
from networks.network import Network
from prediction.sliding_window import predict_window
from training.settings import TrainingSettings
from training.steps.step_plan import StepPlan
from training.tasks.task import TrainingTask, hu_of
from utils.preprocessing_settings import PreprocessingSettings, ViewSettings
from utils.tasks import HEATMAP
from utils.visualize import REFERENCE_COLOUR, draw_planes
from verse_utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Numbers of each view from which a localiser's scores are computed.
VIEW_TERMS = 6


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

    def predict(self, network: Network, subject: tio.Subject, plan: StepPlan) -> Tensor:
        """Heatmaps of a view, which the network sees at once."""
        network.eval()
        with plan.device.autocast():
            device = plan.device.torch_device
            return predict_window(network.logits_in_slabs, subject["image"].data, self.settings.tta, device)

    def score_terms(self, logits: Tensor, target: Tensor, spacing_mm: Sequence[float] = (1, 1, 1)) -> np.ndarray:
        prediction = torch.sigmoid(logits.double())
        heatmap = prediction[0, 0].cpu().numpy()
        confidence = spine_in_heatmap(heatmap, spacing_mm).confidence
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
        return draw_planes(hu_of(subject), subject["image"].spacing, target, rows, title)
