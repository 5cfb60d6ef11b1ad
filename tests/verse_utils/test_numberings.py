import numpy as np
import pytest

from verse_utils.labels import ANATOMICAL_ORDER, VERTEBRA_NAMES
from verse_utils.numberings import NUMBERINGS, UNKNOWN, vertebra_label


@pytest.mark.parametrize(
    ("numbering", "number", "name"),
    [  # as the tables are published
        ("totalsegmentator", 27, "L5"),
        ("totalsegmentator", 31, "L1"),
        ("totalsegmentator", 32, "T12"),
        ("totalsegmentator", 43, "T1"),
        ("totalsegmentator", 44, "C7"),
        ("totalsegmentator", 50, "C1"),
        ("totalsegmentator_v1", 18, "L5"),
        ("totalsegmentator_v1", 23, "T12"),
        ("totalsegmentator_v1", 35, "C7"),
        ("totalsegmentator_v1", 41, "C1"),
        ("spineps", 1, "C1"),
        ("spineps", 25, "L6"),
        ("spineps", 28, "T13"),
        ("verse", 8, "T1"),
        ("verse", 28, "T13"),
    ],
)
def test_numbers_of_vertebrae(numbering, number, name):
    assert VERTEBRA_NAMES[NUMBERINGS[numbering].table()[number]] == name


def test_what_is_no_vertebra_is_background():
    assert not NUMBERINGS["totalsegmentator"].table()[[0, 25, 26, 51, 117]].any()  # sacrum, S1, heart, cartilage
    assert not NUMBERINGS["totalsegmentator_v1"].table()[[0, 17, 42, 92, 104]].any()
    assert not NUMBERINGS["spineps"].table()[[26, 27, 29, 60, 61, 100, 119, 224]].any()
    assert not NUMBERINGS["verse"].table()[[0, 26, 27]].any()


def test_other_numbers_mean_nothing():
    for name, number in (("verse", 29), ("totalsegmentator", 118), ("totalsegmentator_v1", 105), ("spineps", 41)):
        assert NUMBERINGS[name].table()[number] == UNKNOWN


def test_each_vertebra_has_one_number():
    for name in ("totalsegmentator", "totalsegmentator_v1"):
        labels = [label for label in NUMBERINGS[name].label_of.values() if label]
        assert sorted(labels) == list(range(1, 25))
    assert sorted(filter(None, NUMBERINGS["spineps"].label_of.values())) == sorted(ANATOMICAL_ORDER)


def test_tables_that_fit_a_mask():
    def fitting(*numbers):
        return [name for name, numbering in NUMBERINGS.items() if numbering.fits(numbers)]

    assert fitting(20, 21, 22) == ["verse", "totalsegmentator_v1", "spineps"]
    assert fitting(27, 28) == ["verse", "totalsegmentator", "totalsegmentator_v1", "spineps"]
    assert fitting(29, 31, 110) == ["totalsegmentator"]
    assert fitting(20, 60, 120) == ["spineps"]
    assert fitting(255) == ["binary"]
    assert fitting(1) == ["verse", "spineps", "binary"]
    assert fitting(5, 200) == []


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("L1", 20),
        ("vertebrae_C7", 7),
        ("Th12", 19),
        ("vertebra T13", 28),
        ("t1", 8),
        ("vertebrae_L6", 25),
        ("L_3", 22),
        ("C2 vertebra", 2),
    ],
)
def test_names_of_vertebrae(name, label):
    assert vertebra_label(name) == label


@pytest.mark.parametrize("name", ["S1", "vertebrae_S1", "C8", "T14", "L7", "T0", "disc_L1", "rib_left_1", "Lh1"])
def test_other_names(name):
    assert vertebra_label(name) is None


def test_tables_are_of_every_number():
    for numbering in NUMBERINGS.values():
        assert numbering.table().shape == (256,) and numbering.table().dtype == np.uint8
