"""The segmenter's transforms: from raw labels to classes."""

from __future__ import annotations

import torchio as tio

from data_transforms.classes.labels_to_classes import LabelsToClasses
from data_transforms.classes.scale_hu import ScaleHU
from data_transforms.presets import Presets, intensity_augmentation, spatial_augmentation
from verse_utils.labels import LabelScheme


def segmentation_presets(scheme: LabelScheme) -> Presets:
    """Transforms of subjects with ``image`` in HU and ``label`` with raw VerSe labels.

    Afterwards ``image`` is scaled float32 and ``label`` holds class indices.

    Args:
        scheme: the classes.
    """
    target = [LabelsToClasses(scheme.class_of, copy=False), ScaleHU(copy=False)]
    return Presets(
        train=tio.Compose([*spatial_augmentation(), *target, *intensity_augmentation()], copy=False),
        evaluate=tio.Compose(target, copy=False),
    )
