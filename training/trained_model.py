"""A trained network and, from its checkpoint alone, everything that its input must be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from networks.network import Network
from training.checkpoints import NetworkSpec, find_checkpoint, load_checkpoint
from training.compute import Compute
from utils.constants import HU_PER_UNIT, HU_RANGE, OVERHANG_VOX, SEGMENTATION_SPACING_MM
from utils.intensity import scale_hu
from utils.sliding_window import Windows, joined, predict_slabs
from verse_utils.errors import UserError
from verse_utils.labels import label_values

if TYPE_CHECKING:
    import h5py

_KINDS = {"heatmap": "localiser (--heatmap_model)", "segmentation": "segmenter (--segmentation_model)"}


@dataclass(frozen=True)
class TrainedModel:
    """A network that is ready to be asked.

    Attributes:
        network: in evaluation mode, on the device.
        spec: its building plan.
        task: "heatmap" or "segmentation".
        labels: what a segmenter tells apart, a key of ``LABEL_TABLES``.
        spacing_mm: of a segmenter's input.
        hu_range, hu_per_unit: scaling of the input.
        compute: device and precision.
        name: of the run.
        sha256: of the checkpoint file.
    """

    network: Network
    spec: NetworkSpec
    task: str
    labels: str
    spacing_mm: float
    hu_range: tuple[float, float]
    hu_per_unit: float
    compute: Compute
    name: str
    sha256: str

    def windows(self, image_shape: Sequence[int], overlap: float = 0.5) -> Windows:
        """Windows over an image on the network's grid; a segmenter's see air beyond its upper and lower end."""
        overhang_vox = OVERHANG_VOX if self.task == "segmentation" else (0, 0, 0)
        return Windows.cover(image_shape, self.spec.input_shape, overlap, overhang_vox)

    def predict(self, image_hu: np.ndarray) -> Tensor:
        """Probabilities (K, X, Y, Z) of an image (X, Y, Z) in HU on the network's grid, as ``predict_slabs`` gives."""
        return joined(self.predict_slabs(image_hu, self.windows(image_hu.shape)), image_hu.shape[2])

    def predict_slabs(
        self, image_hu: np.ndarray | h5py.Dataset, windows: Windows, batch_size: int = 1, mirror: bool = False
    ) -> Iterator[tuple[slice, Tensor]]:
        """``utils.sliding_window.predict_slabs`` of an image (X, Y, Z) in HU on the network's grid."""
        image_CXYZ = _ScaledImage(image_hu, self.hu_range, self.hu_per_unit)
        slabs = predict_slabs(self.network, image_CXYZ, windows, batch_size, mirror, self.compute.device)
        while True:
            with self.compute.autocast():  # not while the caller works on a slab
                slab = next(slabs, None)
            if slab is None:
                return
            yield slab

    @property
    def label_values(self) -> np.ndarray:
        """(classes,) uint8: see ``verse_utils.labels.label_values``."""
        return label_values(self.labels)


@dataclass(frozen=True)
class _ScaledImage:
    """An image (X, Y, Z) in HU that is scaled to (1, X, Y, Z) where it is read."""

    image_hu: np.ndarray | h5py.Dataset
    hu_range: tuple[float, float]
    hu_per_unit: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.image_hu.shape)

    def __getitem__(self, where: tuple[slice, ...]) -> Tensor:
        part_hu = np.ascontiguousarray(self.image_hu[where[1:]])
        return scale_hu(torch.from_numpy(part_hu)[None], self.hu_range, self.hu_per_unit)


def load_model(run: Path, task: str, compute: Compute, runs: Path = Path("trained_models")) -> TrainedModel:
    """Load a network by its checkpoint file, its run's folder or its run's name.

    Args:
        run: file, folder or name.
        task: "heatmap" or "segmentation", which it must have been trained for.
        compute: device and precision.
        runs: folder of the runs, for names.

    Raises:
        UserError: no checkpoint, or one of the other task.
    """
    path = find_checkpoint(run, runs)
    content = load_checkpoint_of(task, path)
    settings = content["settings"]
    spec: NetworkSpec = content["network"]
    network = spec.build()
    network.load_state_dict(content["weights"])
    given = content.get("input", {})  # checkpoints of before have these numbers too, but don't tell them
    return TrainedModel(
        network=network.to(compute.device).eval(),
        spec=spec,
        task=task,
        labels=settings.get("labels", "binary"),
        spacing_mm=given.get("spacing_mm", SEGMENTATION_SPACING_MM),
        hu_range=tuple(given.get("hu_range", HU_RANGE)),
        hu_per_unit=given.get("hu_per_unit", HU_PER_UNIT),
        compute=compute,
        name=settings["model_name"],
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def load_checkpoint_of(task: str, path: Path) -> dict[str, Any]:
    """Read a checkpoint and see that it was trained for a task. Raises UserError."""
    content = load_checkpoint(path)
    found = content["settings"]["task"]
    if found != task:
        raise UserError(f"{path}: is a {_KINDS[found]}, not a {_KINDS[task]}; exchange them")
    return content
