"""Whether vertebrae bear the right name: VerSe's identification rate and localisation error.

Sekuboyina et al. 2021 (10.1016/j.media.2021.102166), after Glocker et al. 2012. A true vertebra is
**identified** if the nearest of all predicted centroids to its true centroid bears its label and lies no farther than
``MOST_MM``. The **identification rate** is the identified share of all annotated vertebrae of the whole test set. The
**localisation error** is the mean distance between the predicted and the true centroid of the same label, over the
vertebrae of which both are there: it tells nothing of missed ones.

The challenge's published code asks from the other side, among the labels that both have: whether the nearest true
centroid to the predicted one bears its label. The two can differ where a centroid lies about as near to a neighbour's
place as to its own, and where a false label lies nearer than the right one.

Centres of vertebral bodies, as VerSe lists them, lie 10 to 14 mm before their masks' centres of mass: compare like with
like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from verse_utils.labels import ANATOMICAL_ORDER

MOST_MM = 20.0


@dataclass(frozen=True)
class Identification:
    """The names of one case's vertebrae.

    Attributes:
        identified: true label -> whether it was, from head to foot.
        error_mm: label -> distance of the centroids, of the labels that both have.
    """

    identified: dict[int, bool]
    error_mm: dict[int, float]


def identify(predicted_mm: Mapping[int, np.ndarray], true_mm: Mapping[int, np.ndarray]) -> Identification:
    """Hold predicted centroids against the true ones.

    Args:
        predicted_mm, true_mm: label -> (3,) in mm of one space, as of ``mask_centroids`` or ``Centroids.to_world``.
    """
    labels = [number for number in ANATOMICAL_ORDER if number in true_mm]
    identified = dict.fromkeys(labels, False)
    for number in labels:
        apart_mm = {other: _distance(place, true_mm[number]) for other, place in predicted_mm.items()}
        if number in apart_mm:
            identified[number] = apart_mm[number] == min(apart_mm.values()) and apart_mm[number] <= MOST_MM
    error_mm = {number: _distance(predicted_mm[number], true_mm[number]) for number in labels if number in predicted_mm}
    return Identification(identified, error_mm)


def mask_centroids(mask: np.ndarray, affine: np.ndarray) -> dict[int, np.ndarray]:
    """Centre of mass of each label.

    Args:
        mask: (I, J, K) uint8, VerSe's labels.
        affine: (4, 4), voxel indices to RAS mm.

    Returns:
        label -> (3,) float64 in RAS mm.
    """
    from scipy.ndimage import center_of_mass

    present = set(np.unique(mask))
    labels = [number for number in ANATOMICAL_ORDER if number in present]
    centres_vox = center_of_mass(np.ones(mask.shape, np.uint8), mask, labels) if labels else []
    return {
        number: nib.affines.apply_affine(affine, centre) for number, centre in zip(labels, centres_vox, strict=True)
    }


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(np.subtract(first, second)))
