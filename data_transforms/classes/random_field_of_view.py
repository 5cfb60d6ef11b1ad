"""Parts of scans, as if no more had been scanned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torchio as tio
from nibabel.affines import from_matvec
from torchio.transforms.augmentation import RandomTransform

from utils.constants import HU_AIR
from utils.geometry.boxes import Box, mask_box

# A vertebra of which less is left is one that the scan's end cuts; VerSe doesn't label these.
_WHOLE_SHARE = 0.75
# Sides that are cut lie at most so far from the vertebrae.
_SIDE_MM = 60.0


class FieldOfView(tio.Transform):
    """Cut a part out of a view. What is left fills it as a whole scan does (``WorkingGrid.view``): in its middle,
    enlarged until it reaches the ends of an axis. Vertebrae that are cut lose their label.

    Args:
        start: first voxel that is left, along X, Y, Z.
        stop: first voxel behind.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, start: Sequence[int], stop: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start, self.stop = tuple(start), tuple(stop)
        self.args_names = ["start", "stop"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """``image`` is in HU, ``label`` holds raw VerSe labels; both get the affine of the new view."""
        box = Box(np.array(self.start), np.array(self.stop))
        image, label = subject["image"], subject["label"]
        image_hu, labels = (one.data[0].numpy() for one in (image, label))
        scale = float(max((box.stop - box.start) / labels.shape))
        offset = (box.start + box.stop - 1 - scale * (np.array(labels.shape) - 1)) / 2
        affine = image.affine @ from_matvec(np.diag([scale] * 3), offset)
        part_hu = np.full_like(image_hu, HU_AIR)
        part_hu[box.slices] = image_hu[box.slices]
        for one, part, order, fill in ((image, part_hu, 1, HU_AIR), (label, _without_cut(labels, box), 0, 0)):
            one.set_data(torch.from_numpy(_enlarged(part, scale, offset, order, fill))[None])
            one.affine = affine
        return subject


class RandomFieldOfView(RandomTransform):
    """Cut a view of a whole scan anywhere along Z, and at times at its sides, too: one scan gives many.

    A view without vertebrae, or that would lose the labels of all of them, stays as it is.

    Args:
        least_share: of the scan's length that is left, at least.
        side_share: of the views whose sides are cut.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, least_share: float = 0.3, side_share: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < least_share <= 1 or not 0 <= side_share <= 1:
            raise ValueError(f"shares of {least_share} and {side_share}: must lie between 0 and 1")
        self.least_share, self.side_share = least_share, side_share

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """As ``FieldOfView``."""
        image_hu, label = (subject[name].data[0].numpy() for name in ("image", "label"))
        scanned, spine = mask_box(image_hu != HU_AIR), mask_box(label > 0)
        if scanned is None or spine is None:
            return subject
        box = self._draw(scanned, spine, np.array(subject["image"].spacing))
        if not _without_cut(label, box).any():
            return subject
        found: tio.Subject = FieldOfView(box.start.tolist(), box.stop.tolist(), copy=False)(subject)
        return found

    def _draw(self, scanned: Box, spine: Box, spacing_mm: np.ndarray) -> Box:
        """Draw the part of a scan that is left."""
        start, stop = scanned.start.copy(), scanned.stop.copy()
        length_share, position, sides, *apart = torch.rand(7).tolist()
        whole = stop[2] - start[2]
        length = max(round((self.least_share + (1 - self.least_share) * length_share) * whole), 1)
        start[2] += round(position * (whole - length))
        stop[2] = start[2] + length
        if sides < self.side_share:
            apart_vox = np.rint(_SIDE_MM * np.array(apart).reshape(2, 2) / spacing_mm[:2]).astype(int)
            start[:2] = np.maximum(spine.start[:2] - apart_vox[0], start[:2])
            stop[:2] = np.minimum(spine.stop[:2] + apart_vox[1], stop[:2])
        return Box(start, stop)


def _without_cut(label: np.ndarray, box: Box) -> np.ndarray:
    """Labels (X, Y, Z) of the vertebrae that lie in a box, 0 elsewhere."""
    label = label.astype(np.uint8, copy=False)
    before, after = (np.bincount(part.reshape(-1), minlength=256) for part in (label, label[box.slices]))
    kept = np.where(after >= _WHOLE_SHARE * before, np.arange(256), 0).astype(np.uint8)
    part = np.zeros_like(label)
    part[box.slices] = kept[label[box.slices]]
    return part


def _enlarged(array: np.ndarray, scale: float, offset: np.ndarray, order: int, fill: float) -> np.ndarray:
    from scipy.ndimage import affine_transform

    found: np.ndarray = affine_transform(array, [scale] * 3, offset, order=order, mode="constant", cval=fill)
    return found
