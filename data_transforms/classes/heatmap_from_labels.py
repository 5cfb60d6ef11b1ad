"""The localiser's target: a heatmap of the spine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torchio as tio
from scipy.ndimage import center_of_mass, distance_transform_edt

from utils.constants import HEATMAP_SIGMA_VOX
from verse_utils.labels import ANATOMICAL_ORDER


class HeatmapFromLabels(tio.Transform):
    """Add ``heatmap``, (1, X, Y, Z) float32 in [0, 1], made from ``label`` with raw VerSe labels.

    Args:
        mode: "distance": exp(-d² / 2σ²) of the distance d to the nearest foreground voxel, 1 on the whole foreground.
            "gaussian": the same of the distance d to the nearest vertebra's centre of mass, 1 only at these centres.
        sigma_vox: σ in voxels; ``HEATMAP_SIGMA_VOX`` of the mode by default.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, mode: str = "distance", sigma_vox: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in HEATMAP_SIGMA_VOX:
            raise ValueError(f"no heatmap mode {mode!r}; there are {', '.join(HEATMAP_SIGMA_VOX)}")
        self.mode = mode
        self.sigma_vox = HEATMAP_SIGMA_VOX[mode] if sigma_vox is None else sigma_vox
        if self.sigma_vox <= 0:
            raise ValueError(f"sigma_vox is {self.sigma_vox}, but must be positive")
        self.args_names = ["mode", "sigma_vox"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Add the heatmap; it is 0 everywhere if there is no vertebra."""
        label = subject["label"].data[0].numpy()
        vertebrae = np.isin(label, ANATOMICAL_ORDER)
        heatmap = np.zeros(label.shape, np.float32)
        if vertebrae.any():
            near = self._box_within_reach(vertebrae)  # a small part of most views
            distance_vox = self._distance_vox(label[near], vertebrae[near])
            heatmap[near] = np.exp(-np.square(distance_vox) / (2 * self.sigma_vox**2))
        subject.add_image(
            tio.ScalarImage(tensor=torch.from_numpy(heatmap)[None], affine=subject["label"].affine), "heatmap"
        )
        return subject

    def _box_within_reach(self, vertebrae: np.ndarray) -> tuple[slice, ...]:
        """The box outside of which the heatmap is below exp(-12.5) = 4e-6 and is left at 0."""
        reach = math.ceil(5 * self.sigma_vox)
        where = np.nonzero(vertebrae)
        return tuple(slice(max(int(w.min()) - reach, 0), int(w.max()) + reach + 1) for w in where)

    def _distance_vox(self, label: np.ndarray, vertebrae: np.ndarray) -> np.ndarray:
        if self.mode == "distance":
            distance_vox: np.ndarray = distance_transform_edt(~vertebrae)
            return distance_vox
        centres = np.array(center_of_mass(vertebrae, label, np.unique(label[vertebrae])))
        x, y, z = np.ogrid[tuple(slice(n) for n in label.shape)]
        squares = [(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 for cx, cy, cz in centres]
        nearest_vox: np.ndarray = np.sqrt(np.minimum.reduce(squares))
        return nearest_vox
