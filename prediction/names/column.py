"""From heatmaps of single vertebrae to one spine: which of the candidates are vertebrae, and what they are called.

1. ``find_candidates``: every local maximum of every heatmap, to a fraction of a voxel.
2. ``join_candidates``: maxima of several heatmaps in one place are one place with several possible names.
3. ``name_vertebrae``: the best sequence of places and names from head to foot, by dynamic programming (Viterbi). It
   weighs what the heatmaps say against distances between neighbours and against the order of the names. A network that
   is off by one in the middle of the chest is outvoted by the neighbours whose names it knows.

Positions are mm in RAS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from verse_utils.labels import ANATOMICAL_ORDER, L6, T13, VERTEBRA_NAMES

C1, L5 = 1, 24

# Least value of a heatmap at a candidate, and how many of them each heatmap may have. Two maxima nearer than this are
# one place; the least distance between neighbours is three times that.
LEAST_SCORE = 0.05
_MOST_CANDIDATES = 12
_SAME_PLACE_MM = 5.0
# The usual spine, from head to foot, and levels that may follow one another otherwise, at a penalty: (label, the one
# before). Without T12 (eleven ribs), with T13 and with L6 each is found in some percent of people. A spine may end
# anywhere, so L4 above the sacrum needs no rule.
_USUAL = tuple(label for label in ANATOMICAL_ORDER if label not in (L6, T13))
_RARE = ((20, 18), (T13, 19), (L6, 24))
_RARE_PENALTY = 2.0
# For each vertebra that the heatmaps don't show between two that they do; so many of them at most.
_MISSED_PENALTY = 2.5
_MOST_MISSED = 3
# A place is worth its score, as a share of the strongest place's, times (_BONUS + log of the share of it that the name
# has, at least _LEAST_SHARE). Where a network is unsure everywhere, all heatmaps are low.
_BONUS, _LEAST_SHARE = 4.0, 0.02
# And so much more where the segmenter found a body: the sequence is hardly to leave it out.
_BODY_BONUS = 4.0
# What it costs that the spine begins below C1 or ends above L5 where the scan shows that no vertebra goes before, or
# follows: a place without vertebra lies so far above or below, and not farther.
_END_PENALTY = 7.0
_NEIGHBOUR_MM = 12.0, 45.0
# Standard deviation of a place, of which a step has two. This, _SAME_PLACE_MM, the bonus and the strongest place were
# chosen on heatmaps of 34 phantoms: identification rates of 0.91, and of 0.68 with no deviation, 8 mm, a bonus of 3 and
# scores as they are.
_PLACE_MM = 4.0
# Share of a step between neighbours that leads downwards, at least: a bent spine's is more, its mirror image's less.
_LEAST_DROP = 0.25
# Distance of each vertebra to the one above, in mm, where no training case shows it: about an adult's; and the least
# deviation that is assumed, as a share.
_USUAL_STEP_MM = (
    *(0.0, 15.0, 18.0, 17.0, 17.0, 17.0, 18.0),  # C1 to C7
    *(20.0, 21.0, 22.0, 22.0, 23.0, 23.0, 24.0, 25.0, 26.0, 27.0, 28.0, 30.0),  # T1 to T12
    *(32.0, 34.0, 36.0, 37.0, 36.0),  # L1 to L5
)
_LEAST_DEVIATION = 0.15
# Share of the usual distance that levels between two others need at least.
_ROOM = 0.75


class Candidate(NamedTuple):
    """A local maximum of a vertebra's heatmap: its label, where it is (3,) in mm, and the value there."""

    label: int
    place_mm: np.ndarray
    score: float


@dataclass(frozen=True)
class Vertebra:
    """A named vertebra.

    Attributes:
        label: VerSe's.
        centre_mm: (3,) in RAS.
        confidence: value of the heatmap of this name there, in [0, 1].
    """

    label: int
    centre_mm: np.ndarray
    confidence: float

    @property
    def name(self) -> str:
        """As people say it, such as L1."""
        return VERTEBRA_NAMES[self.label]


@dataclass(frozen=True)
class Steps:
    """Distances between the centres of neighbours: mean and standard deviation in mm.

    Attributes:
        of: label -> (mean, deviation) of the distance to the vertebra above it.
    """

    of: Mapping[int, tuple[float, float]]

    @classmethod
    def learn(cls, spines: Iterable[Mapping[int, np.ndarray]]) -> Steps:
        """From the centres of training cases, label -> (3,) in mm; levels that these don't show have usual values."""
        seen: dict[int, list[float]] = {label: [] for label in ANATOMICAL_ORDER}
        for spine in spines:
            for above, below in pairwise(label for label in ANATOMICAL_ORDER if label in spine):
                if _usual_before(below) == above:
                    seen[below].append(float(np.linalg.norm(spine[above] - spine[below])))
        return cls({label: _mean_and_deviation(label, steps_mm) for label, steps_mm in seen.items()})

    @classmethod
    def from_json(cls, stored: Mapping[str, tuple[float, float]] | None) -> Steps:
        """Of ``as_json``; the usual values where nothing was stored."""
        if stored is None:
            return cls.learn([])
        labels = {name: label for label, name in VERTEBRA_NAMES.items()}
        return cls({labels[name]: (mean, deviation) for name, (mean, deviation) in stored.items()})

    def as_json(self) -> dict[str, list[float]]:
        """Name -> mean and deviation, as checkpoints hold it."""
        return {VERTEBRA_NAMES[label]: [round(value, 2) for value in values] for label, values in self.of.items()}

    def expected(self, label: int) -> tuple[float, float]:
        """Mean and deviation of the distance to the vertebra above."""
        return self.of[label]


def _mean_and_deviation(label: int, steps_mm: list[float]) -> tuple[float, float]:
    level = {L6: 24, T13: 19}.get(label, label)
    mean = float(np.mean(steps_mm)) if steps_mm else _USUAL_STEP_MM[_USUAL.index(level)]
    return mean, max(float(np.std(steps_mm)) if steps_mm else 0.0, _LEAST_DEVIATION * mean)


def _usual_before(label: int) -> int | None:
    rare = {T13: 19, L6: 24}
    if label in rare:
        return rare[label]
    place = _USUAL.index(label)
    return _USUAL[place - 1] if place else None


def find_candidates(heatmaps_KXYZ: np.ndarray, affine: np.ndarray) -> list[Candidate]:
    """Every local maximum of each heatmap that is at least ``LEAST_SCORE``.

    Args:
        heatmaps_KXYZ: (26, X, Y, Z) in [0, 1], in ``ANATOMICAL_ORDER``.
        affine: (4, 4), voxel indices to RAS mm.
    """
    candidates = []
    for label, heatmap in zip(ANATOMICAL_ORDER, heatmaps_KXYZ, strict=True):
        voxels, around = _maxima(heatmap.astype(np.float32))
        strongest = np.argsort(-around[:, 13], kind="stable")[:_MOST_CANDIDATES]
        for voxel, values in zip(voxels[strongest], around[strongest], strict=True):
            place_vox = voxel + _vertex(values.reshape(3, 3, 3))
            candidates.append(Candidate(label, affine[:3, :3] @ place_vox + affine[:3, 3], float(values[13])))
    return candidates


def _maxima(heatmap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (N, 3) of a heatmap's local maxima, and the values (N, 27) around and in each of them."""
    padded = np.pad(heatmap, 1)
    voxels = np.argwhere(heatmap >= LEAST_SCORE)
    _, y_size, z_size = padded.shape
    around_vox = np.array([(x * y_size + y) * z_size + z for x in range(3) for y in range(3) for z in range(3)])
    first = (voxels[:, 0] * y_size + voxels[:, 1]) * z_size + voxels[:, 2]
    values = padded.reshape(-1)[first[:, None] + around_vox]
    middle = values[:, 13:14]
    # Of equal neighbours, the first is the maximum.
    are_maxima = (values[:, :13] < middle).all(axis=1) & (values[:, 14:] <= middle).all(axis=1)
    return voxels[are_maxima], values[are_maxima]


def _vertex(around: np.ndarray) -> np.ndarray:
    """Where a Gaussian through a maximum and its neighbours (3, 3, 3) has its centre: (3,) voxels from the middle."""
    logs = np.log(np.maximum(around, 1e-6))
    shifts = np.zeros(3)
    for axis in range(3):
        before, middle, behind = np.moveaxis(logs, axis, 0)[:, 1, 1]
        curvature = before - 2 * middle + behind
        shifts[axis] = np.clip((before - behind) / (2 * curvature), -0.5, 0.5) if curvature < 0 else 0
    return shifts


def join_candidates(candidates: Iterable[Candidate]) -> tuple[np.ndarray, np.ndarray]:
    """Places of candidates, those within ``_SAME_PLACE_MM`` of a stronger one joined with it.

    Returns:
        Places (N, 3) in mm, the mean of their candidates weighted by their scores; and scores (N, 26) of each name in
        ``ANATOMICAL_ORDER``.
    """
    groups: list[list[Candidate]] = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.score):
        strongest_mm = np.array([group[0].place_mm for group in groups]).reshape(-1, 3)
        near = np.flatnonzero(np.linalg.norm(strongest_mm - candidate.place_mm, axis=1) < _SAME_PLACE_MM)
        if len(near):
            groups[near[0]].append(candidate)
        else:
            groups.append([candidate])
    places_mm, scores = np.zeros((len(groups), 3)), np.zeros((len(groups), len(ANATOMICAL_ORDER)))
    for place_mm, score, group in zip(places_mm, scores, groups, strict=True):
        weights = np.array([candidate.score for candidate in group])
        place_mm[:] = weights @ np.array([candidate.place_mm for candidate in group]) / weights.sum()
        for candidate in group:
            column = ANATOMICAL_ORDER.index(candidate.label)
            score[column] = max(score[column], candidate.score)
    return places_mm, scores


def name_vertebrae(
    candidates: Iterable[Candidate],
    steps: Steps,
    bodies_mm: Sequence[np.ndarray] = (),
    empty_mm: Sequence[np.ndarray] = (),
) -> list[Vertebra]:
    """The best sequence of vertebrae from head to foot; empty where there is no candidate.

    Each candidate is a vertebra or noise. A place in the sequence has one name, and each name one place. Places that
    the sequence leaves out cost nothing but what they are worth, a step counts by its distance (a Gaussian), and levels
    that are missed or unusual cost a penalty.

    Args:
        candidates: of the heatmaps.
        steps: distances between neighbours.
        bodies_mm: (3,) each, candidates' places that certainly are vertebrae: worth more than others.
        empty_mm: (3,) each, places that certainly are none: beside one, hardly another vertebra than C1 is the first
            and than L5 or L6 the last.
    """
    places_mm, scores = join_candidates(candidates)
    if not len(places_mm):
        return []
    to_bodies_mm = np.linalg.norm(places_mm[:, None] - np.reshape(bodies_mm, (-1, 3)), axis=2)
    worth = _worth(scores, (to_bodies_mm < 0.1).any(axis=1))  # apart from rounding, they are the same
    is_top, is_bottom = _at_ends(places_mm, empty_mm)
    best: dict[int, np.ndarray] = {}  # label -> (N,) worth of the best sequence that ends with it in each place
    origin: dict[int, list[tuple[int, int] | None]] = {}  # and the label and place before
    for column, label in enumerate(ANATOMICAL_ORDER):
        best[label] = worth[:, column] - _END_PENALTY * (is_top & (label != C1))
        origin[label] = [None] * len(places_mm)
        for before, penalty, mean_mm, deviation_mm, least_mm in _ways_to(label, steps):
            gains = best[before][:, None] - penalty - _cost_of_steps(places_mm, mean_mm, deviation_mm, least_mm)
            place_before = gains.argmax(axis=0)
            reached = worth[:, column] + gains.max(axis=0)
            for better in np.flatnonzero(reached > best[label]).tolist():
                best[label][better] = reached[better]
                origin[label][better] = before, int(place_before[better])
    for label in set(ANATOMICAL_ORDER) - {L5, L6}:
        best[label] = best[label] - _END_PENALTY * is_bottom
    label = max(best, key=lambda label: best[label].max())
    end: tuple[int, int] | None = (label, int(best[label].argmax()))
    vertebrae = []
    while end is not None:
        label, place = end
        confidence = min(float(scores[place, ANATOMICAL_ORDER.index(label)]), 1.0)
        vertebrae.append(Vertebra(label, places_mm[place], confidence))
        end = origin[label][place]
    return vertebrae[::-1]


def _at_ends(places_mm: np.ndarray, empty_mm: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Whether there is an empty place where a vertebra above, or below, would lie: (N,) bool each."""
    step_mm = np.reshape(empty_mm, (1, -1, 3)) - places_mm[:, None]
    is_neighbour = (np.linalg.norm(step_mm, axis=2) < _NEIGHBOUR_MM[1]) & (np.abs(step_mm[..., 2]) > _NEIGHBOUR_MM[0])
    return (is_neighbour & (step_mm[..., 2] > 0)).any(axis=1), (is_neighbour & (step_mm[..., 2] < 0)).any(axis=1)


def _worth(scores: np.ndarray, is_body: np.ndarray) -> np.ndarray:
    """What it is worth to take a place for a vertebra of a name: (N, 26); of (N,) bool some certainly are vertebrae."""
    strength = scores.sum(axis=1, keepdims=True)
    share = scores / strength
    certainty = np.where(is_body[:, None], 1, strength / strength.max())
    worth: np.ndarray = certainty * (_BONUS + np.log(np.maximum(share, _LEAST_SHARE))) + _BODY_BONUS * is_body[:, None]
    return worth


def _ways_to(label: int, steps: Steps) -> list[tuple[int, float, float, float, float]]:
    """The labels that may come before one: each with its penalty, and mean, deviation and least distance in mm."""
    ways = [(above, _RARE_PENALTY, *steps.expected(label), 0.0) for below, above in _RARE if below == label]
    # What leads to L1 leads to it from T13 too, which itself was paid for.
    if label == 20:
        ways.append((T13, 0.0, *steps.expected(label), 0.0))
    if label not in _USUAL:
        return ways
    place = _USUAL.index(label)
    mean_mm, variance = 0.0, 0.0
    for missed, above in enumerate(reversed(_USUAL[max(place - 1 - _MOST_MISSED, 0) : place])):
        mean, deviation = steps.expected(_USUAL[place - missed])
        mean_mm, variance = mean_mm + mean, variance + deviation**2
        least_mm = _ROOM * mean_mm if missed else 0.0
        ways.append((above, missed * _MISSED_PENALTY, mean_mm, variance**0.5, least_mm))
    return ways


def _cost_of_steps(places_mm: np.ndarray, mean_mm: float, deviation_mm: float, least_mm: float) -> np.ndarray:
    """Cost of a step from each place to each other: (N, N); infinite where it is too short or not downwards."""
    step_mm = places_mm[None] - places_mm[:, None]
    length_mm = np.linalg.norm(step_mm, axis=2)
    variance = deviation_mm**2 + 2 * _PLACE_MM**2
    cost: np.ndarray = np.square(length_mm - mean_mm) / (2 * variance)
    cost[(-step_mm[..., 2] <= _LEAST_DROP * length_mm) | (length_mm < least_mm)] = np.inf
    return cost


def confidence_at(vertebrae: Sequence[Vertebra], heatmaps_KXYZ: np.ndarray, affine: np.ndarray) -> float:
    """How sure a localiser is that there are vertebrae, whichever: the mean of the heatmaps' sum at them; 0 of none.

    Args:
        vertebrae: that the heatmaps show.
        heatmaps_KXYZ: (26, X, Y, Z) in [0, 1].
        affine: (4, 4), voxel indices to RAS mm.
    """
    if not vertebrae:
        return 0.0
    to_voxels = np.linalg.inv(affine)
    places_vox = np.array([vertebra.centre_mm for vertebra in vertebrae]) @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    x, y, z = np.clip(np.rint(places_vox).astype(int), 0, np.array(heatmaps_KXYZ.shape[1:]) - 1).T
    return float(heatmaps_KXYZ[:, x, y, z].sum(axis=0, dtype=np.float64).mean())


def missed_levels(vertebrae: Iterable[Vertebra]) -> list[int]:
    """Labels between the first and the last vertebra that the usual spine has and the sequence lacks."""
    labels = [vertebra.label for vertebra in vertebrae if vertebra.label in _USUAL]
    if not labels:
        return []
    return [label for label in _USUAL[_USUAL.index(labels[0]) : _USUAL.index(labels[-1])] if label not in labels]


def fill_in(vertebrae: Sequence[Vertebra], steps: Steps) -> list[Vertebra]:
    """A sequence with those that the heatmaps don't show, but whose neighbours tell where they would be.

    Missed levels lie evenly between their neighbours; one more above the first and below the last vertebra, in the
    direction of the last step, may be one that the scan's end cuts. Their confidence is 0. A single vertebra is
    returned alone.
    """
    filled = list(vertebrae[:1])
    for above, below in pairwise(vertebrae):
        missed = missed_levels([above, below])
        expected_mm = sum(steps.expected(label)[0] for label in (*missed, below.label))
        if np.linalg.norm(below.centre_mm - above.centre_mm) < _ROOM * expected_mm:
            missed = []  # T11 just above L1: eleven ribs
        for number, label in enumerate(missed, start=1):
            share = number / (len(missed) + 1)
            filled.append(Vertebra(label, (1 - share) * above.centre_mm + share * below.centre_mm, 0.0))
        filled.append(below)
    if len(vertebrae) > 1:
        first, last = _usual_before(filled[0].label), _behind(filled[-1].label)
        if last is not None:
            filled.append(_beyond(last, filled[-2], filled[-1], steps.expected(last)[0]))
        if first is not None:
            filled.insert(0, _beyond(first, filled[1], filled[0], steps.expected(filled[0].label)[0]))
    return filled


def _behind(label: int) -> int | None:
    """The vertebra below another one, L6 below L5; None below L6."""
    below = {T13: 20, L5: L6, L6: None}
    return below[label] if label in below else _USUAL[_USUAL.index(label) + 1]


def _beyond(label: int, before: Vertebra, end: Vertebra, step_mm: float) -> Vertebra:
    """The vertebra that follows two others at a distance, in the direction of their step."""
    direction = end.centre_mm - before.centre_mm
    return Vertebra(label, end.centre_mm + step_mm * direction / np.linalg.norm(direction), 0.0)
