import numpy as np
import pytest

from prediction.names.column import (
    Candidate,
    Steps,
    Vertebra,
    _worth,
    fill_in,
    find_candidates,
    join_candidates,
    missed_levels,
    name_vertebrae,
)
from verse_utils.labels import ANATOMICAL_ORDER, L6, T13

STEPS = Steps.learn([])


def spine(labels, sideways_mm=0.0, first_mm=900.0):
    """Centres of a spine with the usual distances, bent to a side in the middle: label -> (3,) in mm."""
    centres, place_mm = {}, np.array([5.0, -30.0, first_mm])
    for number, label in enumerate(labels):
        lean = sideways_mm / 100 * np.cos(np.pi * number / max(len(labels) - 1, 1))
        if number:
            direction = np.array([lean, 0.1, -1.0])
            place_mm = place_mm + STEPS.expected(label)[0] * direction / np.linalg.norm(direction)
        centres[label] = place_mm
    return centres


def candidates_of(centres, score=0.9, names=None):
    """One clear candidate for each vertebra; ``names`` are what the heatmaps call some of them."""
    return [Candidate((names or {}).get(label, label), place, score) for label, place in centres.items()]


def names(vertebrae):
    return [vertebra.label for vertebra in vertebrae]


WHOLE = (*range(1, 25),)


@pytest.mark.parametrize("labels", [WHOLE, (19, 20, 21), (7,), (1, 2), (24,), (*range(15, 20), T13, 20, 21)])
@pytest.mark.parametrize("sideways_mm", [0, 120])
def test_clear_candidates_are_taken_as_they_are(labels, sideways_mm):
    """A whole spine, three vertebrae, one alone; straight, and bent sideways by more than it goes down."""
    centres = spine(labels, sideways_mm)
    found = name_vertebrae(candidates_of(centres), STEPS)
    assert names(found) == list(labels)
    for vertebra in found:
        np.testing.assert_allclose(vertebra.centre_mm, centres[vertebra.label])
        assert vertebra.confidence == pytest.approx(0.9)


def test_nothing_is_nothing():
    assert name_vertebrae([], STEPS) == [] and missed_levels([]) == []


def test_candidates_within_5_mm_are_one_place():
    """T6 and T7 of 4 mm apart are one place, nearer to the stronger; L1 lies 5 mm from it."""
    one, other, apart = (np.array([5.0, -30.0, z]) for z in (900.0, 896.0, 905.0))
    places_mm, scores = join_candidates([Candidate(14, other, 0.2), Candidate(13, one, 0.6), Candidate(20, apart, 0.3)])
    np.testing.assert_allclose(places_mm, [[5, -30, 899], apart])
    columns = [ANATOMICAL_ORDER.index(label) for label in (13, 14, 20)]
    np.testing.assert_allclose(scores[:, columns], [[0.6, 0.2, 0], [0, 0, 0.3]])
    assert scores.sum() == pytest.approx(1.1)


def test_a_place_is_worth_less_where_its_name_is_in_doubt():
    """Its score, as a share of the strongest place's, times (4 + log of the name's share)."""
    expected = [[4 + np.log(0.75), 4 + np.log(0.25)], [0.5 * 4, 0.5 * (4 + np.log(0.02))]]
    np.testing.assert_allclose(_worth(np.array([[0.3, 0.1], [0.2, 0.0]]), np.zeros(2, bool)), expected)


def test_names_are_found_where_all_heatmaps_are_low_and_places_are_vague():
    rng = np.random.default_rng(0)
    vague = [
        Candidate(label + shift, centre + rng.normal(0, 4, 3), score)
        for label, centre in spine(WHOLE).items()
        for shift, score in ((-1, 0.06), (0, 0.12), (1, 0.06))
        if label + shift in WHOLE
    ]
    assert names(name_vertebrae(vague, STEPS)) == list(WHOLE)


def test_noise_is_left_out():
    centres = spine(WHOLE)
    rng = np.random.default_rng(0)
    noise = [
        Candidate(
            int(rng.choice(WHOLE)), np.array([5, -30, 600]) + rng.uniform(-150, 150, 3), float(rng.uniform(0.05, 0.5))
        )
        for _ in range(30)
    ]
    found = name_vertebrae([*noise, *candidates_of(centres)], STEPS)
    assert names(found) == list(WHOLE)
    for vertebra in found:
        assert np.linalg.norm(vertebra.centre_mm - centres[vertebra.label]) < 4


@pytest.mark.parametrize("gone", [(14,), (10, 11)])
def test_levels_that_no_heatmap_shows_are_missed_alone(gone):
    centres = spine(WHOLE)
    found = name_vertebrae(candidates_of({k: v for k, v in centres.items() if k not in gone}), STEPS)
    assert names(found) == [label for label in WHOLE if label not in gone]
    assert missed_levels(found) == list(gone)


def test_a_name_in_two_places_goes_to_the_one_that_fits():
    """T6 twice, the second time where T7 is: the neighbours outvote it."""
    found = name_vertebrae(candidates_of(spine(WHOLE), names={14: 13}), STEPS)
    assert names(found) == list(WHOLE)
    doubled = [*candidates_of(spine(WHOLE)), Candidate(13, spine(WHOLE)[13] + [0, 0, -12], 0.6)]
    assert names(name_vertebrae(doubled, STEPS)) == list(WHOLE)


def test_names_that_are_off_by_one_in_the_middle_are_outvoted():
    """T4 to T7 are called T5 to T8; the ends of the column are clear."""
    centres = spine(WHOLE)
    wrong = {label: label + 1 for label in range(11, 15)}
    assert names(name_vertebrae(candidates_of(centres, names=wrong), STEPS)) == list(WHOLE)


def test_two_names_in_one_place():
    """Each heatmap of T1 to T12 also shows the vertebra above, a little less."""
    centres = spine(range(8, 20))
    blurred = [Candidate(label + 1, place, 0.4) for label, place in centres.items() if label < 19]
    found = name_vertebrae([*candidates_of(centres, 0.5), *blurred], STEPS)
    assert names(found) == [*range(8, 20)]
    assert found[0].confidence == pytest.approx(0.5)


@pytest.mark.parametrize(
    "labels", [(*range(8, 19), *range(20, 25)), (*range(8, 20), T13, *range(20, 25)), (*range(18, 25), L6)]
)
def test_rare_levels_where_all_heatmaps_say_so(labels):
    found = name_vertebrae(candidates_of(spine(labels)), STEPS)
    assert names(found) == list(labels)


@pytest.mark.parametrize(("label", "weak"), [(T13, 0.3), (L6, 0.3)])
def test_a_weak_sign_of_a_rare_level_is_noise(label, weak):
    """Where T13 or L6 hardly shows, halfway between two vertebrae or below L5."""
    centres = spine((*range(15, 20), 20, 21, 22, 23, 24))
    beside = centres[24] + [60, 0, -20] if label == L6 else (centres[19] + centres[20]) / 2
    assert names(name_vertebrae([*candidates_of(centres), Candidate(label, beside, weak)], STEPS)) == list(centres)


def test_l4_may_be_the_last_and_the_order_is_never_violated():
    assert names(name_vertebrae(candidates_of(spine(range(15, 24))), STEPS)) == [*range(15, 24)]
    upside_down = {label: place * [1, 1, -1] for label, place in spine(range(15, 24)).items()}
    found = names(name_vertebrae(candidates_of(upside_down), STEPS))
    assert found == sorted(found, key=ANATOMICAL_ORDER.index)


def test_maxima_to_a_fraction_of_a_voxel():
    """Two Gaussians of T13, and one of C1 at the edge, on a turned grid of 4 mm."""
    heatmaps = np.zeros((26, 12, 14, 30), np.float32)
    grid = np.stack(np.indices(heatmaps.shape[1:]), axis=-1)
    for label, centre, height in ((T13, (5.3, 6.8, 20.4), 0.8), (T13, (5, 6, 9), 0.3), (1, (6.2, 7.1, 29), 0.9)):
        channel = heatmaps[ANATOMICAL_ORDER.index(label)]
        channel += height * np.exp(-np.square(grid - np.array(centre)).sum(-1) / (2 * 1.3**2))
    affine = np.array([[0, -4.0, 0, 10], [4.0, 0, 0, 20], [0, 0, 4.0, -30], [0, 0, 0, 1]])
    found = {(c.label, round(c.score, 1)): c.place_mm for c in find_candidates(heatmaps, affine)}
    assert set(found) == {(T13, 0.7), (T13, 0.3), (1, 0.9)}
    expected = affine[:3, :3] @ [5.3, 6.8, 20.4] + affine[:3, 3]
    np.testing.assert_allclose(found[T13, 0.7], expected, atol=0.05)
    plateau = np.zeros((26, 4, 4, 4))
    plateau[3, 1:3, 1, 1] = 0.5
    assert len(find_candidates(plateau, np.eye(4))) == 1


def test_steps_are_learnt_and_kept():
    spines = [spine((7, 8, 9)), {label: 1.2 * place for label, place in spine((7, 8, 9)).items()}]
    steps = Steps.learn([*spines, {8: np.zeros(3), 10: np.array([0, 0, -500.0])}])
    assert steps.expected(8)[0] == pytest.approx(1.1 * STEPS.expected(8)[0])
    assert steps.expected(10) == STEPS.expected(10)  # T3 was seen, but not with T2
    again = Steps.from_json(steps.as_json())
    assert again.expected(8) == pytest.approx(steps.expected(8), abs=0.01)
    assert Steps.from_json(None).of == STEPS.of


def test_missed_levels_and_one_beyond_each_end_are_filled_in():
    """T6 at 100 mm and T9 at 28 mm: T7 and T8 evenly between, T5 and T10 a step farther."""
    found = [Vertebra(label, np.array([1.0, 2.0, z]), 0.9) for label, z in ((13, 100.0), (16, 28.0))]
    filled = fill_in(found, STEPS)
    assert names(filled) == [12, 13, 14, 15, 16, 17]
    heights_mm = [100 + STEPS.expected(13)[0], 100, 76, 52, 28, 28 - STEPS.expected(17)[0]]
    np.testing.assert_allclose([one.centre_mm for one in filled], [(1, 2, z) for z in heights_mm])
    assert [one.confidence for one in filled] == [0, 0.9, 0, 0, 0.9, 0]
    assert names(fill_in([Vertebra(19, np.zeros(3), 1), Vertebra(T13, np.array([0, 0, -28.0]), 1)], STEPS))[-1] == 20


def upright(*labels, step_mm=30.0):
    return [Vertebra(label, np.array([0.0, 0.0, -step_mm * number]), 0.9) for number, label in enumerate(labels)]


def test_missed_levels_lie_between_their_neighbours_and_cut_ones_beyond():
    filled = fill_in([upright(19)[0], Vertebra(22, np.array([0.0, 30.0, -100.0]), 0.8)], STEPS)
    assert [one.label for one in filled] == [18, 19, 20, 21, 22, 23]
    assert [one.confidence > 0 for one in filled] == [False, True, False, False, True, False]
    np.testing.assert_allclose(filled[3].centre_mm, [0, 20, -200 / 3])
    step = filled[5].centre_mm - filled[4].centre_mm
    assert np.linalg.norm(step) == pytest.approx(STEPS.expected(23)[0])
    np.testing.assert_allclose(step / np.linalg.norm(step), np.array([0, 30, -100]) / np.hypot(30, 100))


def test_nothing_is_filled_in_where_nothing_can_be():
    assert [one.label for one in fill_in(upright(1, 2), STEPS)] == [1, 2, 3]  # nothing above C1
    assert [one.label for one in fill_in(upright(23, 24), STEPS)] == [22, 23, 24, L6]
    assert [one.label for one in fill_in(upright(24, L6), STEPS)] == [23, 24, L6]  # nothing below L6
    assert [one.label for one in fill_in(upright(19, T13), STEPS)] == [18, 19, T13, 20]
    eleven_ribs = fill_in(upright(18, 20), STEPS)  # T11 and L1 as near as neighbours
    assert [one.label for one in eleven_ribs] == [17, 18, 20, 21]
    assert [one.label for one in fill_in(upright(12), STEPS)] == [12]
    assert fill_in([], STEPS) == []
