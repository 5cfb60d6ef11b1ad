"""The two tasks that networks are trained for, by the names that H5 files, checkpoints and runs bear."""

from __future__ import annotations

from dataclasses import dataclass

from utils.constants import HEATMAP_SHAPE, OVERHANG_VOX, SEGMENTATION_SHAPE


@dataclass(frozen=True)
class Task:
    """What is known of a task before any network or data is loaded.

    Attributes:
        name: as H5 files, checkpoints and ``config.json`` bear it.
        network_name: what people call a network that was trained for it.
        model_argument: of ``inference.py``, that takes such a network.
        input_shape: (X, Y, Z) voxels of the network's input, unless the user asks for another.
        overhang_vox: voxels of air along X, Y, Z that patches and windows may see beyond each end of a scan.
        losses: classes of ``metrics.losses`` that it can be trained with, the default first.
    """

    name: str
    network_name: str
    model_argument: str
    input_shape: tuple[int, int, int]
    overhang_vox: tuple[int, int, int]
    losses: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


HEATMAP = Task(
    "heatmap",
    network_name="localiser",
    model_argument="--heatmap_model",
    input_shape=HEATMAP_SHAPE,
    overhang_vox=(0, 0, 0),
    losses=("MSE", "Wing", "AdaptiveWing", "HeatmapCE"),
)
SEGMENTATION = Task(
    "segmentation",
    network_name="segmenter",
    model_argument="--segmentation_model",
    input_shape=SEGMENTATION_SHAPE,
    overhang_vox=OVERHANG_VOX,
    losses=("DiceCE", "Dice", "BCE"),
)
TASKS = {task.name: task for task in (HEATMAP, SEGMENTATION)}
