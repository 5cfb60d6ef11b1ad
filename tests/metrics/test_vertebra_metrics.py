import nibabel as nib
import numpy as np
import pytest

from metrics.vertebra_metrics import (
    FINDING_METRICS,
    NAME_METRICS,
    count_findings,
    count_names,
    dice_of_vertebrae,
    find_vertebrae,
    identify,
    mask_centroids,
)
from verse_utils.centroids import Centroids

SHAPE = (10, 10, 40)
# L1, T13 and T12 from low to high: each 4 × 5 × 5 = 100 voxels, two slices apart.
PLACES = {20: slice(2, 7), 28: slice(9, 14), 19: slice(16, 21)}


def column(*labels):
    mask = np.zeros(SHAPE, np.uint8)
    for label in labels or PLACES:
        mask[3:7, 2:7, PLACES[label]] = label
    return mask


REFERENCE = column()


def test_separate_vertebrae_are_found_and_nothing_else():
    findings, false_components = find_vertebrae(REFERENCE > 0, REFERENCE)
    assert list(findings) == [19, 28, 20] and false_components == 0  # from head to foot
    assert all((f.recall, f.found, f.split, f.merged) == (1, True, False, False) for f in findings.values())


@pytest.mark.parametrize(("rows", "found"), [(2, False), (3, True), (5, True)])
def test_half_of_the_voxels_make_a_find(rows, found):
    prediction = column(28) > 0
    prediction[:, 2 + rows :] = False
    findings, _ = find_vertebrae(prediction, REFERENCE)
    assert (findings[28].recall, findings[28].found) == (pytest.approx(rows / 5), found)
    assert not findings[19].found and findings[19].recall == 0
    assert count_findings(prediction, REFERENCE)["missed"] == 3 - found


def test_exactly_half_is_found():
    prediction = column(28) > 0
    prediction[5:] = False
    assert find_vertebrae(prediction, REFERENCE)[0][28].found


def test_a_gap_splits_and_a_crumb_does_not():
    prediction = column(28) > 0
    prediction[5] = False  # 50 and 25 voxels
    assert find_vertebrae(prediction, REFERENCE)[0][28].split
    prediction[6, 3:] = False  # 50 and 5
    finding = find_vertebrae(prediction, REFERENCE)[0][28]
    assert finding.found and not finding.split
    prediction[6, 3] = column(28)[6, 3] > 0  # 50 and 10
    assert find_vertebrae(prediction, REFERENCE)[0][28].split


def test_one_voxel_merges_neighbours():
    prediction = REFERENCE > 0
    prediction[4, 4, 7:9] = True
    findings, _ = find_vertebrae(prediction, REFERENCE)
    assert [findings[label].merged for label in (19, 28, 20)] == [False, True, True]
    counts = count_findings(prediction, REFERENCE)
    assert counts == {"vertebrae": 3, "found": 3, "missed": 0, "split": 0, "merged": 2, "false_components": 0}


def test_a_small_leak_into_a_neighbour_does_not_merge():
    prediction = column(20) > 0
    prediction[4, 4, 7:14] = True  # five of T13's hundred voxels
    findings, false_components = find_vertebrae(prediction, REFERENCE)
    assert findings[20].found and not findings[20].merged and false_components == 0
    prediction[4, 5, 9:14] = True  # ten
    assert find_vertebrae(prediction, REFERENCE)[0][20].merged


def test_false_components():
    prediction = REFERENCE > 0
    prediction[0, 0, 30:35] = True
    prediction[8, 8, 0] = True
    assert find_vertebrae(prediction, REFERENCE)[1] == 2
    leak = np.zeros(SHAPE, bool)
    leak[2:4, 5, 2:7] = True  # five voxels in L1, too few to cover it, and five outside
    assert find_vertebrae(leak, REFERENCE)[1] == 0
    leak[2, 5, 7] = True  # a sixth outside
    assert find_vertebrae(leak, REFERENCE)[1] == 1


def test_c1_counts_although_its_label_is_next_to_the_background():
    c1 = (column(20) > 0).astype(np.uint8)
    findings, false_components = find_vertebrae(c1 > 0, c1)
    assert (findings[1].recall, false_components) == (1, 0) and dice_of_vertebrae(c1, c1) == {1: 1}


def test_nothing_found_and_nothing_there():
    nothing = np.zeros(SHAPE, np.uint8)
    assert count_findings(nothing > 0, REFERENCE)["missed"] == 3
    assert count_findings(nothing > 0, nothing)["vertebrae"] == 0
    assert find_vertebrae(REFERENCE > 0, nothing) == ({}, 3)


def test_dice_of_each_label_by_hand():
    prediction = column(20, 28)
    prediction[5:7][prediction[5:7] == 28] = 20  # half of T13 is called L1
    prediction[0, 0, 0] = 1  # a C1 that isn't there
    assert dice_of_vertebrae(prediction, REFERENCE) == {
        19: 0,
        28: pytest.approx(2 * 50 / (50 + 100)),
        20: pytest.approx(2 * 100 / (150 + 100)),
    }
    assert list(dice_of_vertebrae(prediction, REFERENCE)) == [19, 28, 20]


def test_counts_over_the_vertebrae_of_a_case():
    """L1 is called L2. T13 lies four slices too low: nearer to L1's place than to its own, but no other is nearer."""
    prediction = column(20)
    prediction[prediction == 20] = 21
    prediction[3:7, 2:7, 5:10] = 28
    counts = count_names(prediction, REFERENCE, np.diag([1, 1, 2, 1]))
    assert counts == {
        "vertebrae": 3,
        "vertebra_dice_sum": pytest.approx(2 * 20 / (100 + 100)),
        "identified": 1,
        "localised": 1,
        "localisation_error_sum_mm": pytest.approx(4 * 2),
    }


def test_metrics_over_all_vertebrae_name_columns_that_are_counted():
    counted = {
        FINDING_METRICS: count_findings(REFERENCE > 0, REFERENCE),
        NAME_METRICS: count_names(REFERENCE, REFERENCE, np.eye(4)),
    }
    for metrics, counts in counted.items():
        for metric in metrics:
            whole = {"cases": 1, **counts}[metric.whole]
            assert counts[metric.part] / whole == metric.best, metric.name
            assert metric.unit == ("mm" if metric.name.endswith("_mm") else "1")
            assert metric.title[0].isupper() and metric.explanation[0].isupper()


# T11, T12, T13, L1 and L2, 25 mm apart.
CENTRES_MM = {label: np.array([0.0, 0.0, -25.0 * place]) for place, label in enumerate((18, 19, 28, 20, 21))}


def shifted(by_mm):
    return {label: place + by_mm for label, place in CENTRES_MM.items()}


def swapped(first, second):
    return CENTRES_MM | {first: CENTRES_MM[second], second: CENTRES_MM[first]}


def without(*labels):
    return {label: place for label, place in CENTRES_MM.items() if label not in labels}


def by_definition(predicted, reference):
    """Sekuboyina et al. 2021, word for word: (identified labels, mean error or None)."""
    hits, errors = set(), []
    for label, place in reference.items():
        if predicted:
            nearest = sorted(predicted, key=lambda other: np.sqrt(((predicted[other] - place) ** 2).sum()))[0]
            if nearest == label and np.sqrt(((predicted[nearest] - place) ** 2).sum()) <= 20:
                hits.add(label)
        if label in predicted:
            errors.append(np.sqrt(((predicted[label] - place) ** 2).sum()))
    return hits, np.mean(errors) if errors else None


@pytest.mark.parametrize(
    ("predicted", "hits", "error_mm"),
    [
        (CENTRES_MM, 5, 0),
        (shifted([0, 19, 0]), 5, 19),
        (shifted([0, 20, 0]), 5, 20),
        (shifted([0, 21, 0]), 0, 21),
        (shifted([0, 0, -13]), 1, 13),  # T11's place has no neighbour above that comes nearer
        (shifted([0, 0, -25]), 0, 25),  # every vertebra has the name of the one above
        (swapped(19, 28), 3, 10),
        (without(20), 4, 0),
        (without(*CENTRES_MM), 0, None),
        # A false label near by changes nothing, unless it is nearer than the right one.
        (CENTRES_MM | {22: CENTRES_MM[21] + [0, 0, -1]}, 5, 0),
        (CENTRES_MM | {22: CENTRES_MM[21], 21: CENTRES_MM[21] + [0, 0, -1]}, 4, 0.2),
    ],
)
def test_identification_by_hand(predicted, hits, error_mm):
    found = identify(predicted, CENTRES_MM)
    assert list(found.identified) == [18, 19, 28, 20, 21]  # anatomical order
    assert sum(found.identified.values()) == hits
    assert by_definition(predicted, CENTRES_MM)[0] == {label for label, hit in found.identified.items() if hit}
    assert (np.mean(list(found.error_mm.values())) if found.error_mm else None) == pytest.approx(error_mm)


def test_identification_of_random_cases_by_its_definition():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        predicted = {label: place + rng.normal(0, 9, 3) for label, place in CENTRES_MM.items() if rng.random() < 0.8}
        if rng.random() < 0.5 and {19, 28} <= set(predicted):
            predicted[19], predicted[28] = predicted[28], predicted[19]
        found = identify(predicted, CENTRES_MM)
        hits, error_mm = by_definition(predicted, CENTRES_MM)
        assert {label for label, hit in found.identified.items() if hit} == hits, seed
        mean_mm = np.mean(list(found.error_mm.values())) if found.error_mm else None
        assert mean_mm == pytest.approx(error_mm), seed


def test_centroids_of_a_mask_in_mm_and_a_list_of_the_same_place():
    affine = nib.affines.from_matvec(np.diag([-2.0, 3.0, 4.0]), [10, -20, 30])
    mask = np.zeros((8, 9, 10), np.uint8)
    mask[2:5, 4:5, 1:3] = 28
    mask[7, 8, 9] = 1
    found = mask_centroids(mask, affine)
    assert list(found) == [1, 28]
    np.testing.assert_allclose(found[28], [10 - 2 * 3, -20 + 3 * 4, 30 + 4 * 1.5])
    listed = Centroids(("L", "A", "S"), {1: np.array([7.0, 8.0, 9.0])}).to_world(affine, mask.shape)
    assert identify(found, listed).error_mm == {1: pytest.approx(0)}
    assert mask_centroids(np.zeros_like(mask), affine) == {}
