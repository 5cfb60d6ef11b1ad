from collections import Counter

import pytest

from verse_utils.splits import Fold, split_patients, validation_patients

SHARES = {"validation": 0.15, "test": 0.15}


def test_shares_of_patients_in_any_order():
    patients = [f"p{number}" for number in range(100)]
    split_of = split_patients(patients, SHARES)
    assert Counter(split_of.values()) == {"training": 70, "validation": 15, "test": 15}
    assert split_patients([*reversed(patients), *patients], SHARES) == split_of
    assert split_patients(patients, SHARES, seed=1) != split_of


def test_a_patient_more_changes_few():
    patients = [f"p{number}" for number in range(100)]
    before, after = split_patients(patients, SHARES), split_patients([*patients, "new"], SHARES)
    assert sum(before[patient] != after[patient] for patient in patients) <= 3


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, {}),
        (1, {"training": 1}),
        (2, {"training": 1, "validation": 1}),
        (3, {"training": 1, "validation": 1, "test": 1}),
        (7, {"training": 5, "validation": 1, "test": 1}),
    ],
)
def test_each_split_has_a_patient_where_there_are_enough(count, expected):
    assert Counter(split_patients(map(str, range(count)), SHARES).values()) == expected


def test_shares_may_be_all_or_nothing():
    assert Counter(split_patients("abcd", {"validation": 0.0}).values()) == {"training": 4}
    assert Counter(split_patients("abcd", {"validation": 1.0}).values()) == {"training": 1, "validation": 3}
    for shares in ({"validation": -0.1}, {"validation": 0.6, "test": 0.6}):
        with pytest.raises(ValueError, match="shares"):
            split_patients("abcd", shares)


def test_each_patient_is_validated_on_in_one_fold():
    patients = [f"p{number}" for number in range(23)]
    folds = [validation_patients(patients, Fold(number, 5)) for number in range(1, 6)]
    assert sorted(patient for fold in folds for patient in fold) == sorted(patients)
    assert sorted(map(len, folds)) == [4, 4, 5, 5, 5]
    assert [validation_patients(reversed(patients * 2), Fold(number, 5)) for number in range(1, 6)] == folds
    # Published folds must stay what they are.
    assert sorted(folds[1]) == ["p1", "p11", "p12", "p14", "p15"]


def test_folds_are_read_from_text():
    assert Fold.parse("2/5") == Fold(2, 5) and str(Fold(2, 5)) == "2/5"
    for text in ("0/5", "6/5", "1/1", "2", "a/b", "2/5/6", "-1/5", ""):
        with pytest.raises(ValueError):
            Fold.parse(text)


def test_more_folds_than_patients():
    with pytest.raises(ValueError, match="2 patients can't be split into 3 folds"):
        validation_patients(["a", "b", "a"], Fold(1, 3))
