"""Names that the segmenter confirms.

The localiser sees little of a vertebra in its coarse view. Where the segmenter is shown a place and finds no vertebra,
or one that lies elsewhere, there is none; where it finds one, its body tells the centre to a millimetre. With what was
learnt of the places, the sequence is named anew, until it holds no place that the segmenter wasn't shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from prediction.names.column import Candidate, Steps, Vertebra, fill_in, name_vertebrae
from verse_utils.labels import ANATOMICAL_ORDER

# A place nearer than this to a body is that body's; the least distance between neighbours is 15 mm.
_SAME_MM = 8.0
# What each heatmap is taken for at a body that none of them shows: it may have any name.
_UNNAMED_SCORE = 0.5 / len(ANATOMICAL_ORDER)
# Sequences that are looked at, at most: each shows the segmenter a new place at least.
_MOST_ROUNDS = len(ANATOMICAL_ORDER)


class FoundBody(NamedTuple):
    """The centre (3,) in mm of a vertebra's body, its number, and numbers of earlier ones that it shows to be none."""

    centre_mm: np.ndarray
    number: int
    fragments: tuple[int, ...] = ()


class Confirmed(NamedTuple):
    """A vertebra, and the number by which the segmenter found it; 0 where it found none."""

    vertebra: Vertebra
    number: int


def confirm(
    candidates: Iterable[Candidate],
    steps: Steps,
    find: Callable[[np.ndarray], FoundBody | None],
    is_shown: Callable[[np.ndarray], bool],
) -> list[Confirmed]:
    """Name vertebrae, and see whether they are there.

    Args:
        candidates: of the localiser's heatmaps.
        steps: distances between neighbours.
        find: a place (3,) in mm to the body that is found there, whose number is the same as before where it was found
            before; None where there is none.
        is_shown: whether the scan shows what lies at a place (3,) in mm whole.

    Returns:
        From head to foot, those that the heatmaps show, centred at their bodies where these were found, and those that
        were found where their neighbours tell that a level was missed.
    """
    candidates = list(candidates)
    bodies_mm: dict[int, np.ndarray] = {}
    seen_mm: list[np.ndarray] = []
    empty_mm: list[np.ndarray] = []
    for _ in range(_MOST_ROUNDS):
        column = fill_in(name_vertebrae(candidates, steps, list(bodies_mm.values()), empty_mm), steps)
        known_mm = [*seen_mm, *bodies_mm.values()]
        unseen = [one for one in column if not _is_near(one.centre_mm, known_mm)]
        if not unseen:
            break
        for one in sorted(unseen, key=lambda one: -one.confidence):
            found, body_mm = find(one.centre_mm), None
            if found is None and is_shown(one.centre_mm):
                empty_mm.append(one.centre_mm)
            if found is not None:
                for fragment in set(found.fragments) & set(bodies_mm):
                    candidates = _moved(candidates, bodies_mm.pop(fragment), None)
                if found.number not in bodies_mm or _is_near(one.centre_mm, [bodies_mm[found.number]]):
                    body_mm = bodies_mm.setdefault(found.number, found.centre_mm)
            candidates = _moved(candidates, one.centre_mm, body_mm)
            if body_mm is not None and not one.confidence:
                candidates += [Candidate(label, body_mm, _UNNAMED_SCORE) for label in ANATOMICAL_ORDER]
            seen_mm.append(one.centre_mm)
    return _joined(column, bodies_mm)


def _is_near(place_mm: np.ndarray, others_mm: Iterable[np.ndarray]) -> bool:
    return any(np.linalg.norm(place_mm - other_mm) < _SAME_MM for other_mm in others_mm)


def _moved(candidates: Iterable[Candidate], place_mm: np.ndarray, body_mm: np.ndarray | None) -> list[Candidate]:
    """Candidates with those of a place, and those at its body, at the body; without them, where there is none."""
    moved, places_mm = [], [place_mm] if body_mm is None else [place_mm, body_mm]
    for candidate in candidates:
        if not _is_near(candidate.place_mm, places_mm):
            moved.append(candidate)
        elif body_mm is not None:
            moved.append(candidate._replace(place_mm=body_mm))
    return moved


def _joined(column: Iterable[Vertebra], bodies_mm: dict[int, np.ndarray]) -> list[Confirmed]:
    """Each vertebra with the nearest body that a surer one doesn't have."""
    left, joined = dict(bodies_mm), {}
    column = list(column)
    for one in sorted(column, key=lambda one: -one.confidence):
        nearest = min(left, key=lambda number: float(np.linalg.norm(left[number] - one.centre_mm)), default=0)
        if nearest and _is_near(one.centre_mm, [left[nearest]]):
            confidence = one.confidence if one.confidence > _UNNAMED_SCORE else 0.0
            joined[one.label] = Confirmed(Vertebra(one.label, left.pop(nearest), confidence), nearest)
        elif one.confidence:
            joined[one.label] = Confirmed(one, 0)
    return [joined[one.label] for one in column if one.label in joined]
