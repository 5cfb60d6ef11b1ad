"""VerSe's labels, their anatomical order, and the classes that networks make of them.

Source of the numbers: Sekuboyina et al. 2021 (10.1016/j.media.2021.102166), section 2.
"""

from __future__ import annotations

import colorsys
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from verse_utils.errors import UserError

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


def label_colours(labels: Iterable[int] = ANATOMICAL_ORDER) -> dict[int, tuple[int, int, int]]:
    """Label -> red, green and blue, 0 to 255: neighbours differ clearly, as each is a golden angle farther."""
    colours = {}
    for number, label in enumerate(labels):
        red, green, blue = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.65, 0.95)
        colours[label] = round(255 * red), round(255 * green), round(255 * blue)
    return colours


@dataclass(frozen=True)
class LabelScheme:
    """Which vertebrae a network tells apart.

    Attributes:
        name: of the scheme, as ``--labels`` takes it.
        class_of: raw VerSe label -> class, from 1 on; labels that are not named (sacrum, coccyx) are background, 0.
        class_names: of the classes 1, 2, …
        mask_values: what a written mask holds for each class, the background's 0 first.
    """

    name: str
    class_of: dict[int, int]
    class_names: tuple[str, ...]
    mask_values: tuple[int, ...]

    @property
    def class_count(self) -> int:
        """Number of classes, the background included."""
        return len(self.mask_values)

    def to_classes(self, mask: np.ndarray) -> np.ndarray:
        """The classes of a mask of raw VerSe labels: uint8 of any shape, as is the mask."""
        classes = np.zeros(256, np.uint8)
        classes[list(self.class_of)] = list(self.class_of.values())
        classes_of_voxels: np.ndarray = classes[mask]
        return classes_of_voxels


_VERTEBRAE = LabelScheme(
    "vertebrae",
    {label: index for index, label in enumerate(ANATOMICAL_ORDER, start=1)},
    tuple(VERTEBRA_NAMES[label] for label in ANATOMICAL_ORDER),
    (0, *ANATOMICAL_ORDER),
)
_REGIONS = {"cervical": range(1, 8), "thoracic": (*range(8, 20), T13), "lumbar": range(20, 26)}
LABEL_SCHEMES: dict[str, LabelScheme] = {
    scheme.name: scheme
    for scheme in (
        LabelScheme("binary", dict.fromkeys(ANATOMICAL_ORDER, 1), ("vertebra",), (0, 1)),
        LabelScheme(
            "regions",
            {label: index for index, labels in enumerate(_REGIONS.values(), start=1) for label in labels},
            tuple(_REGIONS),
            (0, 1, 2, 3),
        ),
        _VERTEBRAE,
        replace(_VERTEBRAE, name="single"),  # the same masks, from a network that is shown one vertebra at a time
    )
}


def label_scheme(labels: str) -> LabelScheme:
    """A scheme by its name, or by its table as ``read_labels`` returns it."""
    if labels in LABEL_SCHEMES:
        return LABEL_SCHEMES[labels]
    table: dict[str, list[int]] = json.loads(labels)
    class_of = {label: index for index, members in enumerate(table.values(), start=1) for label in members}
    return LabelScheme(labels, class_of, tuple(table), tuple(range(len(table) + 1)))


def read_labels(text: str) -> str:
    """What ``--labels`` gives a segmenter, in the form that settings keep.

    Args:
        text: name of a scheme; a JSON file that holds a table of the classes, ``{"lumbar": ["L1", 21, …], …}``, each
            with its vertebrae by name or with VerSe's labels; or such a table itself.

    Returns:
        The name, or the table as JSON with VerSe's labels alone. The classes are numbered in their order from 1 on.

    Raises:
        UserError: no such name or file, or no such table.
    """
    if text in LABEL_SCHEMES:
        return text
    is_file = not text.lstrip().startswith("{")
    try:
        content = Path(text).read_text(encoding="utf-8") if is_file else text
        return _checked(json.loads(content, object_pairs_hook=_each_once))
    except OSError as error:
        known = ", ".join(sorted(LABEL_SCHEMES))
        raise UserError(f"--labels {text}: neither {known} nor a file that can be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        form = '{"upper lumbar": ["L1", "L2"], "sacrum": [26]}'
        raise UserError(f"--labels {text}: no table of classes ({error}); its form is {form}") from None


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Names and values of a table. Raises ValueError where a name is there twice, of which JSON would keep the last."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"class {next(name for name in names if names.count(name) > 1)} is there twice")
    return dict(pairs)


def _checked(table: object) -> str:
    """A table of classes as compact JSON with labels alone. Raises ValueError where it is none."""
    numbers: dict[Any, Any] = {name: label for label, name in VERTEBRA_NAMES.items()}
    if not isinstance(table, dict) or not table:
        raise ValueError("no classes")
    classes: dict[str, list[int]] = {}
    members: Any
    for name, members in table.items():
        if not re.fullmatch(r"[^\W_]([^\W_]|[ -])*", name):
            raise ValueError(f"class {name!r}: a name has letters, digits, spaces and hyphens")
        if not isinstance(members, list) or not members:
            raise ValueError(f"class {name}: no list of vertebrae")
        classes[name] = [numbers.get(member, member) if isinstance(member, str) else member for member in members]
        for label in classes[name]:
            if isinstance(label, bool) or label not in (*VERTEBRA_NAMES, SACRUM, COCCYX):
                raise ValueError(f"class {name}: {label!r} is no vertebra of VerSe")
    listed = [label for labels in classes.values() for label in labels]
    if len(set(listed)) < len(listed):
        raise ValueError(f"{next(label for label in listed if listed.count(label) > 1)} is in a class twice, or in two")
    return json.dumps(classes, ensure_ascii=False)
