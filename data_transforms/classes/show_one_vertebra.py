"""The task of a segmenter of single vertebrae: it is shown which vertebra of a patch it is to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
# A patch shows whether there is a vertebra where its body would lie so far inside.
_INSIDE_MM = 16.0


class ShowOneVertebra(tio.Transform):
    """Show a place in a patch, and have the vertebra found whose body's centre is the nearest to it.

    ``image`` gets a second channel, a Gaussian at that place, and ``label``, with raw VerSe labels before, becomes 1 on
    the vertebra and 0 elsewhere. The place lies at or near the body that is nearest to the patch's middle, or where one
    more vertebra would lie beyond the first or the last one. Where it is 20 mm or more from all centres, there is
    nothing to be found; in a patch without a vertebra, the channel is 0, too.
    Networks of this kind: Lessmann et al. 2019 (10.1016/j.media.2019.02.005), Payer et al. 2020
    (10.5220/0008975201240133).

    Args:
        off_mm: standard deviation, along each axis, of how far from the body's centre the place is.
        far_off_mm: the same in some of the patches, where it may lie nearer to a neighbour, or to no vertebra.
        far_share: of these patches.
        beyond_share: of the patches in which the spine ends, that in which the place lies beyond the end.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(
        self,
        off_mm: float = 0.0,
        far_off_mm: float = 0.0,
        far_share: float = 0.0,
        beyond_share: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(off_mm, far_off_mm) < 0 or not 0 <= far_share <= 1 or not 0 <= beyond_share <= 1:
            raise ValueError(f"no places can be {off_mm} mm off, {far_off_mm} in {far_share}, beyond in {beyond_share}")
        self.off_mm, self.far_off_mm = off_mm, far_off_mm
        self.far_share, self.beyond_share = far_share, beyond_share
        self.args_names = ["off_mm", "far_off_mm", "far_share", "beyond_share"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Add the channel, and keep one vertebra in the label."""
        image, label = subject["image"], subject["label"]
        labels, spacing_mm = label.data[0].numpy(), np.array(label.spacing)
        centres_vox = body_centres(labels, spacing_mm)
        shown, chosen = np.zeros(labels.shape, np.float32), 0
        if centres_vox:
            _, about_vox, _ = _nearest(centres_vox, (np.array(labels.shape) - 1) / 2, spacing_mm)
            off_mm = self.far_off_mm if torch.rand(1).item() < self.far_share else self.off_mm
            beyond_vox = _beyond(centres_vox, labels.shape, spacing_mm)
            if beyond_vox and torch.rand(1).item() < self.beyond_share:
                about_vox, off_mm = beyond_vox[int(torch.randint(len(beyond_vox), ()))], self.off_mm
            place_vox = about_vox + off_mm * torch.randn(3).numpy() / spacing_mm
            number, _, away_mm = _nearest(centres_vox, place_vox, spacing_mm)
            chosen = number if away_mm < _MOST_MM else 0
            shown = gaussian(labels.shape, place_vox, SHOWN_SIGMA_MM / spacing_mm)
        image.set_data(torch.cat([image.data, torch.from_numpy(shown)[None]]))
        label.set_data(torch.from_numpy((labels == chosen) & (labels > 0)).to(torch.uint8)[None])
        return subject


def _beyond(centres_vox: Mapping[int, np.ndarray], shape: Sequence[int], spacing_mm: np.ndarray) -> list[np.ndarray]:
    """Where one more vertebra would lie above the first and below the last one, far enough inside the patch."""
    centres, margin_vox = list(centres_vox.values()), _INSIDE_MM / spacing_mm
    if len(centres) < 2:
        return []
    places = [2 * centres[0] - centres[1], 2 * centres[-1] - centres[-2]]
    return [
        place
        for place in places
        if (place >= margin_vox).all()
        and (place <= np.array(shape) - 1 - margin_vox).all()
        and _nearest(centres_vox, place, spacing_mm)[2] >= _MOST_MM
    ]


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
