"""The task of a segmenter of single vertebrae: it is shown which vertebra of a patch it is to find."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchio as tio

from utils.constants import SHOWN_SIGMA_MM
from utils.geometry.body_centres import body_centres
from utils.geometry.gaussians import gaussian


class ShowOneVertebra(tio.Transform):
    """Choose the vertebra whose body is nearest to the patch's middle: ``image`` gets a second channel, a Gaussian at
    the centre of its body, and ``label``, with raw VerSe labels before, becomes 1 on it and 0 elsewhere.

    In a patch without a vertebra, both are 0. Networks of this kind: Lessmann et al. 2019
    (10.1016/j.media.2019.02.005), Payer et al. 2020 (10.5220/0008975201240133).

    Args:
        off_mm: standard deviation, along each axis, of how far off the Gaussian is, as a localiser's centres are.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, off_mm: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if off_mm < 0:
            raise ValueError(f"off_mm is {off_mm}, but must not be negative")
        self.off_mm = off_mm
        self.args_names = ["off_mm"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Add the channel, and choose in the label."""
        image, label = subject["image"], subject["label"]
        labels, spacing_mm = label.data[0].numpy(), np.array(label.spacing)
        middle_vox = (np.array(labels.shape) - 1) / 2
        centres_vox = body_centres(labels, spacing_mm)
        away_mm = {one: float(np.linalg.norm((vox - middle_vox) * spacing_mm)) for one, vox in centres_vox.items()}
        shown = np.zeros(labels.shape, np.float32)
        chosen = min(away_mm, key=lambda one: away_mm[one], default=0)
        if chosen:
            off_vox = self.off_mm * torch.randn(3).numpy() / spacing_mm
            shown = gaussian(labels.shape, centres_vox[chosen] + off_vox, SHOWN_SIGMA_MM / spacing_mm)
        image.set_data(torch.cat([image.data, torch.from_numpy(shown)[None]]))
        label.set_data(torch.from_numpy((labels == chosen) & (labels > 0)).to(torch.uint8)[None])
        return subject
