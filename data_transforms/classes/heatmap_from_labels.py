"""The localiser's target."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torchio as tio
from scipy.ndimage import center_of_mass, distance_transform_edt

from verse_utils.labels import ANATOMICAL_ORDER


class HeatmapFromLabels(tio.Transform):
    """Add ``heatmap``, (1, X, Y, Z) float32 in [0, 1], made from ``label`` with raw VerSe labels.

    Args:
        mode: "distance": exp(-d² / 2σ²) of the distance d to the nearest voxel of a vertebra, so 1 on the spine.
            "gaussian": the same of the distance to the nearest vertebra's centre of mass, so 1 at the centres alone.
        sigma_vox: σ in voxels. The default of "distance" puts 0.5 between 1 and 2 voxels off the spine: the box around
            all that is above 0.5 has a margin of one voxel.
        kwargs: of ``torchio.Transform``.
    """

    DEFAULT_SIGMA_VOX = {"distance": 1.2, "gaussian": 3.0}  # noqa: RUF012  a table, never changed

    def __init__(self, mode: str = "distance", sigma_vox: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in self.DEFAULT_SIGMA_VOX:
            raise ValueError(f"no heatmap mode {mode!r}; there are {', '.join(self.DEFAULT_SIGMA_VOX)}")
        self.mode = mode
        self.sigma_vox = self.DEFAULT_SIGMA_VOX[mode] if sigma_vox is None else sigma_vox
        if self.sigma_vox <= 0:
            raise ValueError(f"sigma_vox is {self.sigma_vox}, but must be positive")
        self.args_names = ["mode", "sigma_vox"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Add the heatmap; 0 everywhere where there is no vertebra."""
        label = subject["label"].data[0].numpy()
        vertebrae = np.isin(label, ANATOMICAL_ORDER)
        heatmap = np.zeros(label.shape, np.float32)
        if vertebrae.any():
            near = self._box_within_reach(vertebrae)  # mostly a small part of the view
            distance_vox = self._distance_vox(label[near], vertebrae[near])
            heatmap[near] = np.exp(-np.square(distance_vox) / (2 * self.sigma_vox**2))
        subject.add_image(
            tio.ScalarImage(tensor=torch.from_numpy(heatmap)[None], affine=subject["label"].affine), "heatmap"
        )
        return subject

    def _box_within_reach(self, vertebrae: np.ndarray) -> tuple[slice, ...]:
        """Where the heatmap can be more than exp(-12.5) = 4e-6, which is left out."""
        reach = math.ceil(5 * self.sigma_vox)
        where = np.nonzero(vertebrae)
        return tuple(slice(max(int(w.min()) - reach, 0), int(w.max()) + reach + 1) for w in where)

    def _distance_vox(self, label: np.ndarray, vertebrae: np.ndarray) -> np.ndarray:
        if self.mode == "distance":
            return distance_transform_edt(~vertebrae)
        centres = np.array(center_of_mass(vertebrae, label, np.unique(label[vertebrae])))
        x, y, z = np.ogrid[tuple(slice(n) for n in label.shape)]
        squares = [(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 for cx, cy, cz in centres]
        return np.sqrt(np.minimum.reduce(squares))
