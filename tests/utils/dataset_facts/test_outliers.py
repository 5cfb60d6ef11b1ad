from dataclasses import replace

import pytest

from utils.dataset_facts.case_facts import CaseFacts, HuFacts
from utils.dataset_facts.outliers import find_outliers

HU = HuFacts(voxels=100, min=-1000, p1=-900, median=100, mean=100.0, p99=900, max=1200, histogram=[])
CASE = CaseFacts(
    case_id="sub-0",
    patient="sub-0",
    split="training",
    has_centroids=True,
    orientation="LAS",
    size_vox=[100, 100, 100],
    spacing_mm=[1.0, 1.0, 2.0],
    field_of_view_mm=[100.0, 100.0, 200.0],
    volume_ml={"T11": 20.0, "T12": 21.0, "L1": 22.0},
    hu_in_bone=HU,
    hu_outside=HU,
)


def cases(*spacings_z_mm: float) -> list[CaseFacts]:
    return [
        replace(CASE, case_id=f"sub-{number}", spacing_mm=[1.0, 1.0, mm]) for number, mm in enumerate(spacings_z_mm)
    ]


def named(facts) -> list[tuple[str, str]]:
    return [(outlier.case_id, outlier.quantity) for outlier in find_outliers(facts)[0]]


def test_beyond_one_and_a_half_interquartile_ranges():
    # Of 1, 2, 3, 4 and x > 4 the quartiles are 2 and 4, so that the fences are -1 and 7.
    assert named(cases(1, 2, 3, 4, 7)) == []
    (outlier,), _ = find_outliers(cases(1, 2, 3, 4, 7.1))
    assert (outlier.case_id, outlier.split, outlier.quantity, outlier.value) == (
        "sub-4",
        "training",
        "spacing_mm Z",
        7.1,
    )
    assert "7.1: over 7, 1.5 interquartile ranges" in outlier.reason and "5 values" in outlier.reason
    # Of x < 6, 6, 7, 8, 9 the quartiles are 6 and 8, the fences 3 and 11.
    assert named(cases(6, 7, 8, 9, 3)) == []
    assert named(cases(6, 7, 8, 9, 2.9)) == [("sub-4", "spacing_mm Z")]


def test_where_most_share_one_value_a_tenth_off_is_no_outlier():
    assert named(cases(10, 10, 10, 10, 11)) == []
    assert named(cases(10, 10, 10, 10, 11.1)) == [("sub-4", "spacing_mm Z")]


def test_few_values_have_no_quartiles():
    outliers, not_judged = find_outliers(cases(1, 2, 3, 90))
    assert not outliers
    assert {"spacing_mm Z", "field_of_view_mm X", "volume_ml T12"} <= set(not_judged)
    assert find_outliers(cases(1, 2, 3, 3, 3))[1] == []


def test_a_volume_is_judged_among_those_of_its_level():
    facts = [replace(CASE, case_id=f"sub-{n}", volume_ml={"L1": 30.0 + n, "L2": 60.0 + n}) for n in range(6)]
    facts[0] = replace(facts[0], volume_ml={"L1": 62.0, "L2": 61.0})
    assert named(facts) == [("sub-0", "volume_ml L1")]


@pytest.mark.parametrize(
    ("change", "quantity", "words"),
    [
        ({"hu_in_bone": replace(HU, min=0), "hu_outside": replace(HU, min=-499)}, "hu min", "least HU is -499"),
        ({"not_hu": "least value is 0, but fat has -100 HU"}, "hu", "not HU: least value is 0"),
        ({"hu_in_bone": replace(HU, max=200)}, "hu_in_bone max", "greatest HU in bone is 200"),
        ({"hu_in_bone": None, "volume_ml": {}}, "volume_ml", "no vertebra is labelled"),
        ({"volume_ml": {"T10": 1.0, "L1": 1.0}}, "levels", "T11, T12 missing between T10 and L1"),
        ({"volume_ml": {"C7": 1.0, "T2": 1.0, "T3": 1.0}}, "levels", "T1 missing between C7 and T2"),
    ],
)
def test_what_is_unusual_in_itself_needs_no_others(change, quantity, words):
    (outlier,), _ = find_outliers([replace(CASE, **change)])
    assert outlier.quantity == quantity and words in outlier.reason


@pytest.mark.parametrize(
    "change",
    [
        {"hu_in_bone": replace(HU, min=0), "hu_outside": replace(HU, min=-500)},
        {"hu_in_bone": replace(HU, max=201)},
        {"volume_ml": dict.fromkeys(["T11", "T12", "L1"], 1.0)},
        {"volume_ml": dict.fromkeys(["T12", "T13", "L1"], 1.0)},
        {"hu_outside": None},
    ],
)
def test_what_is_usual_is_not_named(change):
    assert find_outliers([replace(CASE, **change)])[0] == []
