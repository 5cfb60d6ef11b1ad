"""The localiser's transforms: from raw labels to a heatmap of the spine, or of each vertebra."""

from __future__ import annotations

import torchio as tio

from data_transforms.classes.heatmap_from_labels import HeatmapFromLabels
from data_transforms.classes.labels_to_classes import LabelsToClasses
from data_transforms.classes.names_from_labels import NamesFromLabels
from data_transforms.classes.random_field_of_view import RandomFieldOfView
from data_transforms.classes.scale_hu import ScaleHU
from data_transforms.presets import Presets, intensity_augmentation, spatial_augmentation
from verse_utils.labels import LABEL_SCHEMES

# Share of the scans of which a part is shown where names are taught: they are to be read from what a scan shows.
_CUT_SHARE = 0.6


def heatmap_presets(mode: str = "distance", augmentation: str = "light", labels: str = "binary") -> Presets:
    """Transforms of subjects with ``image`` in HU and ``label`` with raw VerSe labels.

    Afterwards ``image`` is scaled float32, ``heatmap`` float32 in [0, 1] and ``label`` 1 on the foreground.

    Args:
        mode: of ``HeatmapFromLabels``, for one heatmap of the spine.
        augmentation: one of ``utils.constants.AUGMENTATIONS``.
        labels: "binary" for that, or "vertebrae" for one of each, as ``NamesFromLabels`` makes them; then ``label``
            keeps VerSe's labels.
    """
    if labels == "vertebrae":
        target = [NamesFromLabels(copy=False), ScaleHU(copy=False)]
    else:
        to_classes = LabelsToClasses(LABEL_SCHEMES["binary"].class_of, copy=False)
        target = [HeatmapFromLabels(mode, copy=False), to_classes, ScaleHU(copy=False)]
    spatial, intensity = spatial_augmentation(augmentation), _of_the_image(intensity_augmentation(augmentation))
    if labels == "vertebrae":
        spatial.insert(0, RandomFieldOfView(p=_CUT_SHARE, copy=False))
    return Presets(
        train=tio.Compose([*spatial, *target, *intensity], copy=False),
        evaluate=tio.Compose(target, copy=False),
    )


def _of_the_image(transforms: list[tio.Transform]) -> list[tio.Transform]:
    """Apply intensity transforms to the image only; torchio would apply them to the heatmap too."""
    for transform in transforms:
        transform.include = ["image"]
    return transforms
