"""The task of a segmenter of single vertebrae: it is shown which vertebra of a patch it is to find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torchio as tio

from utils.constants import SHOWN_SIGMA_MM
from utils.geometry.body_centres import body_centres
from utils.geometry.gaussians import gaussian

# A vertebra is shown by any place that is nearer to the centre of its body than to others, and not farther than this:
# half of the longest step between neighbours.
_MOST_MM = 20.0


class ShowOneVertebra(tio.Transform):
    """Show a place in a patch, and have the vertebra found whose body's centre is the nearest to it.

    ``image`` gets a second channel, a Gaussian at that place, and ``label``, with raw VerSe labels before, becomes 1 on
    the vertebra and 0 elsewhere. The place lies at or near the body that is nearest to the patch's middle. Where it is
    20 mm or more from all centres, there is nothing to be found; in a patch without a vertebra, the channel is 0, too.
    Networks of this kind: Lessmann et al. 2019 (10.1016/j.media.2019.02.005), Payer et al. 2020
    (10.5220/0008975201240133).

    Args:
        off_mm: standard deviation, along each axis, of how far from the body's centre the place is.
        far_off_mm: the same in some of the patches, where it may lie nearer to a neighbour, or to no vertebra.
        far_share: of these patches.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, off_mm: float = 0.0, far_off_mm: float = 0.0, far_share: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if min(off_mm, far_off_mm, far_share, 1 - far_share) < 0:
            raise ValueError(f"no place can be {off_mm} mm off, or {far_off_mm} in a share of {far_share}")
        self.off_mm, self.far_off_mm, self.far_share = off_mm, far_off_mm, far_share
        self.args_names = ["off_mm", "far_off_mm", "far_share"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Add the channel, and keep one vertebra in the label."""
        image, label = subject["image"], subject["label"]
        labels, spacing_mm = label.data[0].numpy(), np.array(label.spacing)
        centres_vox = body_centres(labels, spacing_mm)
        shown, chosen = np.zeros(labels.shape, np.float32), 0
        if centres_vox:
            _, nearest_vox, _ = _nearest(centres_vox, (np.array(labels.shape) - 1) / 2, spacing_mm)
            off_mm = self.far_off_mm if torch.rand(1).item() < self.far_share else self.off_mm
            place_vox = nearest_vox + off_mm * torch.randn(3).numpy() / spacing_mm
            number, _, away_mm = _nearest(centres_vox, place_vox, spacing_mm)
            chosen = number if away_mm < _MOST_MM else 0
            shown = gaussian(labels.shape, place_vox, SHOWN_SIGMA_MM / spacing_mm)
        image.set_data(torch.cat([image.data, torch.from_numpy(shown)[None]]))
        label.set_data(torch.from_numpy((labels == chosen) & (labels > 0)).to(torch.uint8)[None])
        return subject


def _nearest(
    centres_vox: Mapping[int, np.ndarray], place_vox: np.ndarray, spacing_mm: np.ndarray
) -> tuple[int, np.ndarray, float]:
    """The centre that is the nearest to a place: its label, where it is (3,), and the distance in mm."""
    away_mm = {
        number: float(np.linalg.norm((centre_vox - place_vox) * spacing_mm))
        for number, centre_vox in centres_vox.items()
    }
    nearest = min(away_mm, key=lambda number: away_mm[number])
    return nearest, centres_vox[nearest], away_mm[nearest]
