"""From raw VerSe labels to the classes of a task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchio as tio


class LabelsToClasses(tio.LabelTransform):
    """Replace each label by its class; labels without a class become 0, the background.

    torchio's ``RemapLabels`` leaves labels without a class as they are and goes through the volume once for each label.
    This is one look-up.

    Args:
        class_of: label (0 to 255) -> class.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, class_of: dict[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        numbers = {*class_of, *class_of.values()}
        if not numbers or min(numbers) < 0 or max(numbers) > 255:
            raise ValueError(f"labels and classes must lie in 0 to 255: {class_of}")
        self.class_of = class_of
        self.args_names = ["class_of"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Every label map becomes uint8 classes."""
        lookup = np.zeros(256, np.uint8)
        for label, index in self.class_of.items():
            lookup[label] = index
        for image in self.get_images(subject):
            image.set_data(torch.from_numpy(lookup.take(image.data.numpy().astype(np.uint8))))
        return subject
