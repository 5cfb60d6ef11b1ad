"""Raw VerSe labels to the classes of a task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchio as tio


class RemapLabels(tio.LabelTransform):
    """Replace labels by a table; what the table does not name becomes 0.

    torchio's own ``RemapLabels`` leaves unnamed labels as they are and passes over the volume once for each label;
    this is one lookup.

    Args:
        table: label (0 to 255) -> class.
        kwargs: of ``torchio.Transform``.
    """

    def __init__(self, table: dict[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not table or min(table) < 0 or max(table) > 255 or min(table.values()) < 0 or max(table.values()) > 255:
            raise ValueError(f"labels and classes of a table must lie in 0 to 255: {table}")
        self.table = table
        self.args_names = ["table"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Every label map becomes uint8 classes."""
        lookup = np.zeros(256, np.uint8)
        for label, index in self.table.items():
            lookup[label] = index
        for image in self.get_images(subject):
            image.set_data(torch.from_numpy(lookup.take(image.data.numpy().astype(np.uint8))))
        return subject
