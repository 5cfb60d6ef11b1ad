"""The target of a localiser that names vertebrae: a heatmap of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchio as tio

from utils.constants import NAMES_SIGMA_MM
from utils.geometry.body_centres import body_centres
from utils.geometry.boxes import Box
from utils.geometry.gaussians import gaussian
from verse_utils.labels import ANATOMICAL_ORDER


class NamesFromLabels(tio.Transform):
    """Add ``heatmap``, (1 + 26, X, Y, Z) float32 in [0, 1], made from ``label`` with raw VerSe labels.

    Channel 0 is what is left to 1, the background; the others are VerSe's labels in ``ANATOMICAL_ORDER``: a Gaussian at
    the centre of the vertebra's body, and 0 everywhere where the image doesn't show the vertebra. In each voxel, all
    channels add up to 1: where Gaussians of neighbours would exceed it, they share it.

    Args:
        sigma_mm: of the Gaussians; at least a voxel.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, sigma_mm: float = NAMES_SIGMA_MM, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if sigma_mm <= 0:
            raise ValueError(f"sigma_mm is {sigma_mm}, but must be positive")
        self.sigma_mm = sigma_mm
        self.args_names = ["sigma_mm"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Add the heatmaps."""
        label, spacing_mm = subject["label"].data[0].numpy(), np.array(subject["label"].spacing)
        heatmap = np.zeros((1 + len(ANATOMICAL_ORDER), *label.shape), np.float32)
        for number, centre_vox in body_centres(label, spacing_mm).items():
            self._add_gaussian(heatmap[1 + ANATOMICAL_ORDER.index(number)], centre_vox, spacing_mm)
        heatmap /= np.maximum(heatmap.sum(axis=0), 1)
        heatmap[0] = 1 - heatmap.sum(axis=0)
        image = tio.ScalarImage(tensor=torch.from_numpy(heatmap), affine=subject["label"].affine)
        subject.add_image(image, "heatmap")
        return subject

    def _add_gaussian(self, channel: np.ndarray, centre_vox: np.ndarray, spacing_mm: np.ndarray) -> None:
        """Add a Gaussian with the value 1 at its centre, as far as it exceeds exp(-8) = 3e-4."""
        sigma_vox = np.maximum(self.sigma_mm / spacing_mm, 1)
        reach_vox = np.ceil(4 * sigma_vox).astype(int)
        middle_vox = np.rint(centre_vox).astype(int)
        low, high = np.maximum(middle_vox - reach_vox, 0), middle_vox + reach_vox + 1
        part = channel[Box(low, high).slices]
        part += gaussian(part.shape, centre_vox - low, sigma_vox)
