"""What networks are trained for, each kind in a file of its own."""

from __future__ import annotations

from training.settings import TrainingSettings
from training.tasks.localiser import HeatmapTraining
from training.tasks.names import NamesTraining
from training.tasks.segmenter import SegmentationTraining
from training.tasks.single import SingleTraining
from training.tasks.task import TrainingTask
from utils.tasks import HEATMAP, SEGMENTATION

_KINDS: dict[tuple[str, str], type[TrainingTask]] = {
    (HEATMAP.name, "vertebrae"): NamesTraining,
    (SEGMENTATION.name, "single"): SingleTraining,
    (HEATMAP.name, ""): HeatmapTraining,
    (SEGMENTATION.name, ""): SegmentationTraining,
}


def build_task(settings: TrainingSettings) -> TrainingTask:
    """What the network of these settings is trained for."""
    return _KINDS.get((settings.task.name, settings.labels), _KINDS[settings.task.name, ""])(settings)
