"""A phantom: a scan with its mask and its centroids."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np

from verse_utils.centroids import Centroids
from verse_utils.labels import ANATOMICAL_ORDER
from verse_utils.phantom.anatomy import Anatomy


@dataclass(frozen=True)
class Phantom:
    """A scan, on its stored grid.

    Attributes:
        image_hu: (I, J, K) int16.
        label: (I, J, K) uint8, VerSe's numbers.
        affine: (4, 4) to RAS millimetres.
        centroids: centres of the labelled bodies.
        anatomy: the body that was scanned.
    """

    image_hu: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    centroids: Centroids
    anatomy: Anatomy


def label_whole(anatomy: Anatomy, image_hu: np.ndarray, label: np.ndarray, affine: np.ndarray) -> Phantom:
    """The phantom of a scan: a vertebra whose body the end of the field of view cuts is visible but not labelled, as
    in VerSe. Labels are changed in place."""
    whole = [number for number in anatomy.body_pose if _is_whole(anatomy, number, affine, label.shape)]
    label[~np.isin(label, whole)] = 0
    inverse = np.linalg.inv(affine)
    points_vox = {
        number: nib.affines.apply_affine(inverse, anatomy.body_pose[number].origin)
        for number in sorted(whole, key=ANATOMICAL_ORDER.index)
    }
    direction = nib.aff2axcodes(affine)
    return Phantom(image_hu, label, affine, Centroids(direction, points_vox), anatomy)


def _is_whole(anatomy: Anatomy, number: int, affine: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the vertebra's body lies in the field of view."""
    pose, half = anatomy.body_pose[number], anatomy.body_size_mm[number] / 2
    corners = [pose.to_world(half * [x, y, z]) for x in (-0.7, 0.7) for y in (-0.7, 0.7) for z in (-1, 1)]
    index = nib.affines.apply_affine(np.linalg.inv(affine), corners)
    return bool((index > -0.5).all() and (index < np.array(shape) - 0.5).all())
