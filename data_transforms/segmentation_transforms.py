"""The segmenter's transforms: from raw labels to classes."""

from __future__ import annotations

import torchio as tio

from data_transforms.classes.labels_to_classes import LabelsToClasses
from data_transforms.classes.random_bone_density import RandomBoneDensity
from data_transforms.classes.scale_hu import ScaleHU
from data_transforms.classes.show_one_vertebra import ShowOneVertebra
from data_transforms.presets import Presets, intensity_augmentation, spatial_augmentation
from verse_utils.labels import LabelScheme

# How far off the centres are, along each axis, that show a segmenter its vertebra in training: about as a localiser's,
# and in some of the patches so far that they lie between vertebrae, or beside them. In half of the patches in which the
# spine ends, they lie beyond the end, in the sacrum or where the scan cuts a vertebra.
_OFF_MM, _FAR_OFF_MM, _FAR_SHARE, _BEYOND_SHARE = 3.0, 12.0, 0.35, 0.5


def segmentation_presets(scheme: LabelScheme, augmentation: str = "light") -> Presets:
    """Transforms of subjects with ``image`` in HU and ``label`` with raw VerSe labels.

    Afterwards ``image`` is scaled float32 and ``label`` holds class indices.

    Args:
        scheme: the classes.
        augmentation: one of ``utils.constants.AUGMENTATIONS``.
    """
    target = [LabelsToClasses(scheme.class_of, copy=False), ScaleHU(copy=False)]
    in_hu, scaled = patch_augmentation(augmentation)
    return Presets(
        train=tio.Compose([*in_hu, *target, *scaled], copy=False),
        evaluate=tio.Compose(target, copy=False),
    )


def single_presets(augmentation: str = "light") -> Presets:
    """Transforms of patches for a segmenter that is shown one vertebra: ``image`` gets a second channel.

    Args:
        augmentation: one of ``utils.constants.AUGMENTATIONS``.
    """
    scale = ScaleHU(copy=False)
    in_hu, scaled = patch_augmentation(augmentation)
    show = ShowOneVertebra(_OFF_MM, _FAR_OFF_MM, _FAR_SHARE, _BEYOND_SHARE, copy=False)
    return Presets(
        train=tio.Compose([*in_hu, scale, *scaled, show], copy=False),
        evaluate=tio.Compose([scale, ShowOneVertebra(copy=False)], copy=False),
    )


def patch_augmentation(strength: str = "light") -> tuple[list[tio.Transform], list[tio.Transform]]:
    """The augmentation of patches: what comes before ``ScaleHU``, and what after.

    If strong, vertebrae have other densities in 0.3 of the patches.

    Args:
        strength: one of ``utils.constants.AUGMENTATIONS``.
    """
    density = [RandomBoneDensity(p=0.3, copy=False)] if strength == "strong" else []
    return [*spatial_augmentation(strength), *density], intensity_augmentation(strength, fine=True)
