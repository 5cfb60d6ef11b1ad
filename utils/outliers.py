"""Cases worth a look before they are trained on, by rules that are stated here.

- A spacing or field of view along X, Y or Z, or the volume of a vertebra among those of its level: beyond the quartiles
  by more than 1.5 interquartile ranges (Tukey 1977, Exploratory Data Analysis), and off the median by more than a tenth
  of it, as most of a data set may share one spacing. Under 5 values have no quartiles worth naming and aren't judged.
- HU unlike those of CT: none at or under -500 (no air), or none over 200 in bone.
- A level is missing between two that are labelled. T13 and L6, which few people have, are never missing.
- No vertebra is labelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from utils.case_facts import CaseFacts
from verse_utils.labels import ANATOMICAL_ORDER, L6, T13, VERTEBRA_NAMES

FENCE_IQR = 1.5
LEAST_SHARE_OFF_MEDIAN = 0.1
FEWEST_VALUES = 5  # that have a median and quartiles worth naming
AIR_BELOW_HU = -500
BONE_ABOVE_HU = 200

_LEVELS = [VERTEBRA_NAMES[label] for label in ANATOMICAL_ORDER]
_RARE_LEVELS = {VERTEBRA_NAMES[T13], VERTEBRA_NAMES[L6]}


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
    if least_hu > AIR_BELOW_HU:
        yield outlier("hu min", least_hu, f"least HU is {least_hu}, over {AIR_BELOW_HU}: no air, unlike CT")
    if case.hu_in_bone is None:
        yield outlier("volume_ml", 0.0, "no vertebra is labelled")
    elif case.hu_in_bone.max <= BONE_ABOVE_HU:
        greatest_hu = case.hu_in_bone.max
        reason = f"greatest HU in bone is {greatest_hu}, not over {BONE_ABOVE_HU}: unlike CT"
        yield outlier("hu_in_bone max", greatest_hu, reason)
    seen = list(case.volume_ml)
    for upper, lower in pairwise(seen):
        between = _LEVELS[_LEVELS.index(upper) + 1 : _LEVELS.index(lower)]
        if missing := [level for level in between if level not in _RARE_LEVELS]:
            reason = f"{', '.join(missing)} missing between {upper} and {lower}"
            yield outlier("levels", None, reason)
