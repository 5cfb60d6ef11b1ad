import nibabel as nib
import numpy as np
import pytest

from metrics.identification import identify, mask_centroids
from verse_utils.centroids import Centroids

# T11, T12, T13, L1 and L2, 25 mm apart.
TRUE = {label: np.array([0.0, 0.0, -25.0 * place]) for place, label in enumerate((18, 19, 28, 20, 21))}


def shifted(by_mm):
    return {label: place + by_mm for label, place in TRUE.items()}


def swapped(first, second):
    return TRUE | {first: TRUE[second], second: TRUE[first]}


def without(*labels):
    return {label: place for label, place in TRUE.items() if label not in labels}


def by_definition(predicted, true):
    """Sekuboyina et al. 2021, word for word: (identified labels, mean error or None)."""
    hits, errors = set(), []
    for label, place in true.items():
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
        (TRUE, 5, 0),
        (shifted([0, 19, 0]), 5, 19),
        (shifted([0, 20, 0]), 5, 20),
        (shifted([0, 21, 0]), 0, 21),
        (shifted([0, 0, -13]), 1, 13),  # T11's place has no neighbour above that comes nearer
        (shifted([0, 0, -25]), 0, 25),  # every vertebra called by the name of the one above
        (swapped(19, 28), 3, 10),
        (without(20), 4, 0),
        (without(*TRUE), 0, None),
        (TRUE | {22: TRUE[21] + [0, 0, -1]}, 5, 0),  # a false label near by takes nothing from the right one
        (TRUE | {22: TRUE[21], 21: TRUE[21] + [0, 0, -1]}, 4, 0.2),  # but nearer than the right one it does
    ],
)
def test_made_cases(predicted, hits, error_mm):
    found = identify(predicted, TRUE)
    assert list(found.identified) == [18, 19, 28, 20, 21]  # anatomical order
    assert sum(found.identified.values()) == hits
    assert by_definition(predicted, TRUE)[0] == {label for label, hit in found.identified.items() if hit}
    assert (np.mean(list(found.error_mm.values())) if found.error_mm else None) == pytest.approx(error_mm)


@pytest.mark.parametrize("seed", range(20))
def test_random_cases_against_the_definition(seed):
    rng = np.random.default_rng(seed)
    predicted = {label: place + rng.normal(0, 9, 3) for label, place in TRUE.items() if rng.random() < 0.8}
    if rng.random() < 0.5 and {19, 28} <= set(predicted):
        predicted[19], predicted[28] = predicted[28], predicted[19]
    found = identify(predicted, TRUE)
    hits, error_mm = by_definition(predicted, TRUE)
    assert {label for label, hit in found.identified.items() if hit} == hits
    assert (np.mean(list(found.error_mm.values())) if found.error_mm else None) == pytest.approx(error_mm)


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
