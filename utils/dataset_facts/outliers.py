"""Unusual cases, which should be checked before training, found by these rules.

- A spacing or field of view along X, Y or Z, or the volume of a vertebra among those of its level: beyond the quartiles
  by more than 1.5 interquartile ranges (Tukey 1977, Exploratory Data Analysis), and over 10 % away from the median, as
  most scans of a data set may share one spacing. Fewer than 5 values are not judged.
- HU that are not those of a CT, by ``verse_utils.hounsfield``; none at or below -500 (no air); none above 200 in
  vertebrae.
- A level is missing between two labelled levels. T13 and L6, which few people have, never count as missing.
- No vertebra is labelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from utils.dataset_facts.case_facts import CaseFacts
from verse_utils.check.anatomy import missing_levels
from verse_utils.hounsfield import BONE_ABOVE_HU, why_no_air
from verse_utils.labels import ANATOMICAL_ORDER, VERTEBRA_NAMES

FENCE_IQR = 1.5
LEAST_SHARE_OFF_MEDIAN = 0.1
FEWEST_VALUES = 5  # for a median and quartiles

_LEVELS = [VERTEBRA_NAMES[label] for label in ANATOMICAL_ORDER]
_LABEL_OF = {name: label for label, name in VERTEBRA_NAMES.items()}


@dataclass(frozen=True)
class Outlier:
    """A case and what is unusual about it; ``value`` is None where the quantity is no number."""

    case_id: str
    split: str
    quantity: str
    value: float | None
    reason: str


def find_outliers(cases: Sequence[CaseFacts]) -> tuple[list[Outlier], list[str]]:
    """The outliers in the order of the cases, and the quantities with too few values to be judged."""
    outliers = [outlier for case in cases for outlier in _unusual_alone(case)]
    not_judged = []
    for quantity, values in _quantities(cases).items():
        if len(values) < FEWEST_VALUES:
            not_judged.append(quantity)
        else:
            outliers += _beyond_fences(quantity, values)
    position = {(case.split, case.case_id): number for number, case in enumerate(cases)}
    return sorted(outliers, key=lambda outlier: position[outlier.split, outlier.case_id]), not_judged


def _quantities(cases: Sequence[CaseFacts]) -> dict[str, list[tuple[CaseFacts, float]]]:
    values: dict[str, list[tuple[CaseFacts, float]]] = defaultdict(list)
    for axis, letter in enumerate("XYZ"):
        values[f"spacing_mm {letter}"] = [(case, case.spacing_mm[axis]) for case in cases]
        values[f"field_of_view_mm {letter}"] = [(case, case.field_of_view_mm[axis]) for case in cases]
    for level in _LEVELS:
        for case in cases:
            if level in case.volume_ml:
                values[f"volume_ml {level}"].append((case, case.volume_ml[level]))
    return values


def _beyond_fences(quantity: str, values: Sequence[tuple[CaseFacts, float]]) -> Iterator[Outlier]:
    numbers = [value for _, value in values]
    first, median, third = (float(q) for q in np.percentile(numbers, [25, 50, 75]))
    low, high = first - FENCE_IQR * (third - first), third + FENCE_IQR * (third - first)
    for case, value in values:
        if not low <= value <= high and abs(value - median) > LEAST_SHARE_OFF_MEDIAN * median:
            side, fence = ("under", low) if value < low else ("over", high)
            rule = f"{side} {fence:.3g}, {FENCE_IQR} interquartile ranges beyond the quartiles of {len(values)} values"
            yield Outlier(case.case_id, case.split, quantity, value, f"{quantity} is {value:.3g}: {rule}")


def _unusual_alone(case: CaseFacts) -> Iterator[Outlier]:
    def outlier(quantity: str, value: float | None, reason: str) -> Outlier:
        return Outlier(case.case_id, case.split, quantity, value, reason)

    least_hu = min(facts.min for facts in (case.hu_in_bone, case.hu_outside) if facts)
    if case.not_hu is not None:
        yield outlier("hu", None, f"not HU: {case.not_hu}")
    elif reason := why_no_air(least_hu):
        yield outlier("hu min", least_hu, reason)
    if case.hu_in_bone is None:
        yield outlier("volume_ml", 0.0, "no vertebra is labelled")
    elif case.hu_in_bone.max <= BONE_ABOVE_HU:
        greatest_hu = case.hu_in_bone.max
        reason = f"greatest HU in bone is {greatest_hu}, not over {BONE_ABOVE_HU}: unlike CT"
        yield outlier("hu_in_bone max", greatest_hu, reason)
    for gap in missing_levels([_LABEL_OF[level] for level in case.volume_ml]):
        yield outlier("levels", None, gap)
