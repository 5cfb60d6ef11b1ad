"""Names that the segmenter confirms, where what it finds is known."""

import numpy as np
import pytest

from prediction.names.column import Candidate, Steps
from prediction.names.confirmed import FoundBody, confirm

STEPS = Steps.learn([])
T10, T11, T12, L1, L2, L3, L4, L5, L6 = range(17, 26)


def upright(*labels):
    """Bodies one step below the other: label -> (3,) in mm."""
    places, height = {}, 0.0
    for label in labels:
        height -= STEPS.expected(label)[0]
        places[label] = np.array([0.0, 0.0, height])
    return places


def finder(bodies_mm, reach_mm=16.0):
    """A segmenter that finds the nearest body within reach; and all places that it was shown."""
    shown, numbers = [], {}

    def find(place_mm):
        shown.append(place_mm)
        label = min(bodies_mm, key=lambda one: np.linalg.norm(bodies_mm[one] - place_mm))
        if np.linalg.norm(bodies_mm[label] - place_mm) > reach_mm:
            return None
        return FoundBody(bodies_mm[label], numbers.setdefault(label, len(numbers) + 1))

    return find, shown


def nowhere(place_mm):
    return False


def everywhere(place_mm):
    return True


def candidates_at(places_mm, score=0.6, off_mm=(1.0, 2.0, 3.0)):
    return [Candidate(label, place_mm + off_mm, score) for label, place_mm in places_mm.items()]


def names_of(confirmed):
    return [one.vertebra.label for one in confirmed]


def test_centres_are_those_of_the_bodies():
    bodies_mm = upright(T12, L1, L2, L3, L4, L5)
    find, shown = finder(bodies_mm)
    confirmed = confirm(candidates_at(bodies_mm), STEPS, find, nowhere)
    assert names_of(confirmed) == [T12, L1, L2, L3, L4, L5]
    for vertebra, number in confirmed:
        np.testing.assert_array_equal(vertebra.centre_mm, bodies_mm[vertebra.label])
        assert number and vertebra.confidence == pytest.approx(0.6)
    assert len(shown) == 8  # and the places above and below, where there is nothing


def test_a_place_between_two_bodies_is_no_vertebra_and_those_above_are_named_anew():
    """The heatmaps squeeze a level between two bodies, so that all above it are off by one."""
    bodies_mm = upright(T12, L1, L2, L3, L4, L5)
    wrong = {T11: bodies_mm[T12], T12: bodies_mm[L1], L1: bodies_mm[L2], L2: bodies_mm[L3]}
    squeezed = {L3: (bodies_mm[L3] + bodies_mm[L4]) / 2}
    candidates = candidates_at(squeezed | {L4: bodies_mm[L4], L5: bodies_mm[L5]}, off_mm=0.0)
    candidates += candidates_at(wrong, 0.3, off_mm=0.0)
    candidates += [Candidate(label + 1, place_mm, 0.2) for label, place_mm in wrong.items()]
    find, _ = finder(bodies_mm, reach_mm=20.0)
    assert names_of(confirm(candidates, STEPS, find, nowhere)) == [T12, L1, L2, L3, L4, L5]


def test_levels_that_the_heatmaps_miss_are_sought_up_to_the_ends():
    bodies_mm = upright(T10, T11, T12, L1, L2, L3, L4, L5)
    seen = {label: bodies_mm[label] for label in (T12, L2)}
    find, _ = finder(bodies_mm)
    confirmed = confirm(candidates_at(seen), STEPS, find, nowhere)
    assert names_of(confirmed) == [T10, T11, T12, L1, L2, L3, L4, L5]
    assert [one.vertebra.label for one in confirmed if one.vertebra.confidence] == [T12, L2]


def test_a_place_without_a_vertebra_gets_no_name():
    bodies_mm = upright(T12, L1, L2, L3)
    find, _ = finder({label: bodies_mm[label] for label in (T12, L1, L2)})
    confirmed = confirm(candidates_at(bodies_mm), STEPS, find, nowhere)
    assert names_of(confirmed) == [T12, L1, L2] and all(one.number for one in confirmed)


def test_a_vertebra_that_is_shown_alone_is_named_alone():
    find, shown = finder(upright(L3))
    confirmed = confirm(candidates_at(upright(L3)), STEPS, find, nowhere)
    assert names_of(confirmed) == [L3] and len(shown) >= 1
    assert confirm([], STEPS, find, nowhere) == []


def test_the_spine_ends_at_l5_where_the_scan_shows_that_nothing_follows():
    """Two of three names are one too high; only the end of the spine tells it."""
    bodies_mm = upright(L3, L4, L5)
    wrong = {L2: bodies_mm[L3], L3: bodies_mm[L4]}
    candidates = [*candidates_at(wrong, off_mm=0.0), *candidates_at({L5: bodies_mm[L5]}, 0.2, off_mm=0.0)]
    find, _ = finder(bodies_mm)
    assert names_of(confirm(candidates, STEPS, find, nowhere)) == [L2, L3, L4]
    assert names_of(confirm(candidates, STEPS, find, everywhere)) == [L3, L4, L5]


def test_a_vertebra_is_sought_below_l5():
    bodies_mm = upright(L3, L4, L5, L6)
    find, _ = finder(bodies_mm)
    seen = {label: bodies_mm[label] for label in (L3, L4, L5)}
    assert names_of(confirm(candidates_at(seen), STEPS, find, nowhere)) == [L3, L4, L5, L6]


def test_what_turns_out_to_be_a_fragment_has_no_name():
    """A piece between L2 and L3 is found first, and is none once L3 is found."""
    bodies_mm = upright(L1, L2, L3, L4)
    piece_mm = (bodies_mm[L2] + bodies_mm[L3]) / 2 + [0.0, 20.0, 0.0]
    find, shown = finder(bodies_mm)

    def with_piece(place_mm):
        if np.linalg.norm(place_mm - piece_mm) < 8:
            shown.append(place_mm)
            return FoundBody(piece_mm, 99)
        found = find(place_mm)
        return found and found._replace(fragments=(99,) if len(shown) > 1 else ())

    candidates = candidates_at({**bodies_mm, L3: piece_mm})
    confirmed = confirm(candidates, STEPS, with_piece, nowhere)
    assert names_of(confirmed) == [L1, L2, L3, L4] and 99 not in [one.number for one in confirmed]
