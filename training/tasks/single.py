"""Training of the segmenter of ``--labels single``, which is shown one vertebra at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchio as tio
from torch import Tensor

from data_transforms.segmentation_transforms import segmentation_presets, single_presets
from dataloader import h5VerSe
from networks.network import Network
from prediction.names.single import SingleVertebrae
from prediction.sliding_window import predict_window
from training.settings import TrainingSettings
from training.steps.step_plan import StepPlan
from training.tasks.segmenter import SegmentationTraining
from utils.geometry.body_centres import body_centres
from utils.intensity import DEFAULT_SCALING


class SingleTraining(SegmentationTraining):
    """The segmenter of single vertebrae: a second channel shows the centre of the one to be found.

    In whole scans, the centres of the reference mask are shown one after the other, as if by a localiser that never
    errs. Their prediction has two channels: the probability of the vertebra that each voxel most probably belongs to,
    and this vertebra's class.
    """

    in_channels = 2

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        self.out_channels, self.starts_as_background = 1, True
        self.whole = segmentation_presets(self.scheme).evaluate
        self.presets = single_presets(settings.augmentation)

    def dataset(self, h5_path: Path | Sequence[Path], split: str, whole: bool = False) -> h5VerSe:
        """Patches that show one vertebra; whole scans with the classes of all."""
        dataset = super().dataset(h5_path, split, whole)
        if dataset.patches is None:
            dataset.transform = self.whole
        return dataset

    def predict(self, network: Network, subject: tio.Subject, plan: StepPlan) -> Tensor:
        """Probability and class, (2, X, Y, Z), of a whole scan, on the CPU."""
        mask = np.array(self.scheme.mask_values, np.uint8)[subject["label"].data[0].numpy()]
        vertebrae = SingleVertebrae(
            lambda window_CXYZ: predict_window(
                network.logits_in_slabs, window_CXYZ, self.settings.tta, plan.device.torch_device
            ),
            subject["image"].data,
            DEFAULT_SCALING.air,
            self.settings.input_shape,
            subject["image"].spacing[0],
            probability=np.zeros(mask.shape, np.float32),
            numbers=np.zeros(mask.shape, np.uint8),
        )
        network.eval()
        class_of_number = np.zeros(256, np.float32)
        with plan.device.autocast():
            for label, centre_vox in body_centres(mask, subject["image"].spacing).items():
                found = vertebrae.find(centre_vox)
                if found is not None and not class_of_number[found.number]:
                    class_of_number[found.number] = self.scheme.class_of[label]
        return torch.from_numpy(np.stack([vertebrae.probability, class_of_number[vertebrae.numbers]]))

    def classes(self, probabilities_KXYZ: Tensor) -> np.ndarray:
        probability, classes = probabilities_KXYZ.numpy()
        of_voxels: np.ndarray = np.where(probability > 0.5, classes, 0).astype(np.uint8)
        return of_voxels

    def clean(self, probabilities_KXYZ: Tensor, spacing_mm: Sequence[float]) -> Tensor:
        """Nothing more: each vertebra is one connected component already."""
        return probabilities_KXYZ
