"""Presets of the segmenter: raw labels to classes."""

from __future__ import annotations

import torchio as tio

from data_transforms.classes.remap_labels import RemapLabels
from data_transforms.classes.scale_hu import ScaleHU
from data_transforms.presets import Presets, intensity_augmentation, spatial_augmentation


def segmentation_presets(label_table: dict[int, int]) -> Presets:
    """Transforms of subjects with ``image`` in HU and ``label`` with raw VerSe labels.

    Afterwards ``image`` is scaled float32 and ``label`` holds class indices.

    Args:
        label_table: raw label -> class, one of ``verse_utils.labels.LABEL_TABLES``.
    """
    target = [RemapLabels(label_table, copy=False), ScaleHU(copy=False)]
    return Presets(
        train=tio.Compose([*spatial_augmentation(), *target, *intensity_augmentation()], copy=False),
        evaluate=tio.Compose(target, copy=False),
    )
