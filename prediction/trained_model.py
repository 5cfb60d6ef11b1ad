"""A trained network and, from its checkpoint alone, everything that its input must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from networks.network import Network
from prediction.checkpoints import NetworkSpec, fill_network, find_checkpoint, load_checkpoint_of, scaling_of
from prediction.device import Device
from prediction.sliding_window import Image, Windows, predict_slabs, predict_window
from utils.constants import SEGMENTATION_SPACING_MM
from utils.files.run_folder import RUNS_FOLDER
from utils.intensity import HuScaling
from utils.tasks import HEATMAP, SEGMENTATION, Task
from verse_utils.errors import UserError
from verse_utils.labels import LabelScheme, label_scheme

if TYPE_CHECKING:
    import h5py


class ModelInput(NamedTuple):
    """What a network sees and tells apart: alike in all models whose probabilities are averaged.

    Attributes: as those of ``TrainedModel``; labels are the name of its scheme.
    """

    labels: str
    input_shape: tuple[int, ...]
    spacing_mm: float
    scaling: HuScaling
    overhang_vox: tuple[int, int, int]

    @classmethod
    def of(cls, content: dict[str, Any]) -> ModelInput:
        """As a checkpoint, read by ``load_checkpoint``, tells it; what one from before 0.2.0 lacks is the task's."""
        told = content.get("input", {})
        return cls(
            content["settings"].get("labels", "binary"),
            content["network"].input_shape,
            told.get("spacing_mm", SEGMENTATION_SPACING_MM),
            scaling_of(content),
            tuple(told.get("overhang_vox", content["task"].overhang_vox)),
        )

    def check_alike(self, other: ModelInput, path: Path, other_path: Path) -> None:
        """Raise UserError unless another model's probabilities can be averaged with this one's; paths name both."""
        names = ("labels", "input shape", "spacing in mm", "HU scaling", "voxels beyond the ends")
        for what, mine, theirs in zip(names, self, other, strict=True):
            if mine != theirs:
                raise UserError(f"{path} and {other_path} can't be averaged: {what} {mine} and {theirs}; leave one out")


def weight_bytes(weights: Mapping[str, Tensor]) -> int:
    """Memory that a network with these weights takes while it is not used; its numbers have 32 bits or more."""
    return sum(tensor.numel() * max(4, tensor.itemsize) for tensor in weights.values())


@dataclass(frozen=True)
class TrainedModel:
    """A network, ready for prediction.

    Attributes:
        network: in evaluation mode; on the device, or on the CPU until it is used (``on_device``).
        spec: its building plan.
        task: that it was trained for.
        scheme: which vertebrae a segmenter tells apart.
        spacing_mm: of a segmenter's input.
        scaling: from HU to the network's input.
        overhang_vox: voxels of air along X, Y, Z that its windows see beyond each end of a scan, as patches did.
        device: device and precision.
        name: of the run.
        sha256: of the checkpoint file.
        steps_mm: what a localiser that names vertebrae learnt of the distances between neighbours.
        confidence: mean of a localiser's confidences in validation; None where its checkpoint doesn't tell it.
    """

    network: Network
    spec: NetworkSpec
    task: Task
    scheme: LabelScheme
    spacing_mm: float
    scaling: HuScaling
    overhang_vox: tuple[int, int, int]
    device: Device
    name: str
    sha256: str
    steps_mm: dict[str, tuple[float, float]] | None = None
    confidence: float | None = None

    @property
    def names_vertebrae(self) -> bool:
        """Whether it is a localiser with a heatmap of each vertebra."""
        return self.task is HEATMAP and self.scheme.name == "vertebrae"

    @property
    def finds_single_vertebrae(self) -> bool:
        """Whether it is a segmenter that is shown one vertebra at a time."""
        return self.task is SEGMENTATION and self.scheme.name == "single"

    @property
    def input(self) -> ModelInput:
        """What it sees and tells apart."""
        return ModelInput(self.scheme.name, self.spec.input_shape, self.spacing_mm, self.scaling, self.overhang_vox)

    @property
    def weight_bytes(self) -> int:
        """Memory that the network takes while it is not used."""
        return weight_bytes(self.network.state_dict())

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Have the network on the device; afterwards, even after an error, it is where it was before."""
        at_rest = next((weight.device for weight in self.network.parameters()), self.device.torch_device)
        try:
            self.network.to(self.device.torch_device)
            yield
        finally:
            self.network.to(at_rest)

    def predict_slabs(
        self, image_hu: np.ndarray | h5py.Dataset, windows: Windows, batch_size: int = 1, mirror: bool = False
    ) -> Iterator[tuple[slice, Tensor]]:
        """``sliding_window.predict_slabs`` of an image (X, Y, Z) in HU on the network's grid, within ``on_device``."""
        device = self.device.torch_device
        return predict_slabs(self._logits, self.scaled(image_hu), windows, batch_size, mirror, device, self.scaling)

    def predict_window(self, window_CXYZ: Tensor, mirror: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
        """Probabilities (K, X, Y, Z) of one window (C, X, Y, Z) of its scaled input, on the CPU."""
        with self.on_device(), self.device.autocast():
            return predict_window(self.network.logits_in_slabs, window_CXYZ, mirror, self.device.torch_device, dtype)

    def scaled(self, image_hu: np.ndarray | h5py.Dataset) -> Image:
        """An image (X, Y, Z) in HU as the network is given it, scaled where it is read."""
        return _ScaledImage(image_hu, self.scaling)

    def _logits(self, windows_BCXYZ: Tensor) -> Tensor:
        with self.device.autocast():
            logits_BKXYZ: Tensor = self.network(windows_BCXYZ)
            return logits_BKXYZ


@dataclass(frozen=True)
class _ScaledImage:
    """An image (X, Y, Z) in HU that is scaled to (1, X, Y, Z) where it is read."""

    image_hu: np.ndarray | h5py.Dataset
    scaling: HuScaling

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.image_hu.shape)

    def __getitem__(self, where: tuple[slice, ...]) -> Tensor:
        part_hu = np.ascontiguousarray(self.image_hu[where[1:]])
        return self.scaling.scale(torch.from_numpy(part_hu)[None])


def load_model(
    run: Path, task: Task, device: Device, runs: Path = RUNS_FOLDER, rests_on_cpu: bool = False
) -> TrainedModel:
    """Load a network by its checkpoint file, its run's folder or its run's name.

    Args:
        run: file, folder or name, or "pretrained".
        task: that it must have been trained for.
        device: device and precision.
        runs: folder of the runs, for names.
        rests_on_cpu: the network is on the device only while it is used.

    Raises:
        UserError: no checkpoint, or one of the other task.
    """
    path = find_checkpoint(run, runs, task)
    content = load_checkpoint_of(task, path)
    spec: NetworkSpec = content["network"]
    network = spec.build()
    fill_network(network, spec, content, path)
    network_input = ModelInput.of(content)
    return TrainedModel(
        network=network.to("cpu" if rests_on_cpu else device.torch_device).eval(),
        spec=spec,
        task=task,
        scheme=label_scheme(network_input.labels),
        spacing_mm=network_input.spacing_mm,
        scaling=network_input.scaling,
        overhang_vox=network_input.overhang_vox,
        device=device,
        name=content["settings"]["model_name"],
        sha256=content["sha256"],
        steps_mm=content.get("input", {}).get("steps_mm"),
        confidence=content.get("input", {}).get("confidence"),
    )
