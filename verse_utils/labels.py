"""VerSe's vertebra labels, their anatomical order, and the tables that remap them.

Source of the numbers: Sekuboyina et al. 2021 (10.1016/j.media.2021.102166), section 2.
"""

from __future__ import annotations

import numpy as np

L6 = 25
SACRUM = 26
COCCYX = 27
T13 = 28

VERTEBRA_NAMES: dict[int, str] = {
    **{number: f"C{number}" for number in range(1, 8)},
    **{number: f"T{number - 7}" for number in range(8, 20)},
    **{number: f"L{number - 19}" for number in range(20, 25)},
    L6: "L6",
    T13: "T13",
}

# From head to foot; T13 lies between T12 and L1.
ANATOMICAL_ORDER: tuple[int, ...] = (*range(1, 20), T13, *range(20, 26))

# Raw label -> class. Labels that a table does not name (sacrum 26, coccyx 27) become background 0.
LABEL_TABLES: dict[str, dict[int, int]] = {
    "binary": dict.fromkeys(ANATOMICAL_ORDER, 1),
    "regions": {
        **dict.fromkeys(range(1, 8), 1),  # cervical
        **dict.fromkeys((*range(8, 20), T13), 2),  # thoracic
        **dict.fromkeys(range(20, 26), 3),  # lumbar
    },
    "vertebrae": {label: index for index, label in enumerate(ANATOMICAL_ORDER, start=1)},
}


def class_count(table: dict[int, int]) -> int:
    """Number of classes of a label table, the background included."""
    return max(table.values()) + 1


def label_values(labels: str) -> np.ndarray:
    """(classes,) uint8: a written mask's value for each class; VerSe's own number where vertebrae are told apart.

    Args:
        labels: a key of ``LABEL_TABLES``.
    """
    table = LABEL_TABLES[labels]
    values = np.arange(class_count(table), dtype=np.uint8)
    if labels == "vertebrae":
        values[list(table.values())] = list(table)
    return values
