import numpy as np

from verse_utils.labels import ANATOMICAL_ORDER, LABEL_SCHEMES, VERTEBRA_NAMES


def test_what_masks_hold_for_each_class():
    assert LABEL_SCHEMES["binary"].mask_values == (0, 1)
    assert LABEL_SCHEMES["regions"].mask_values == (0, 1, 2, 3)
    assert LABEL_SCHEMES["vertebrae"].mask_values == (0, *range(1, 20), 28, *range(20, 26))


def test_every_vertebra_has_one_class_of_its_own_name():
    regions = LABEL_SCHEMES["regions"]
    for label in ANATOMICAL_ORDER:
        assert LABEL_SCHEMES["binary"].class_of[label] == 1
        region = {"C": "cervical", "T": "thoracic", "L": "lumbar"}[VERTEBRA_NAMES[label][0]]
        assert regions.class_names[regions.class_of[label] - 1] == region
        vertebrae = LABEL_SCHEMES["vertebrae"]
        assert vertebrae.class_names[vertebrae.class_of[label] - 1] == VERTEBRA_NAMES[label]
    assert {scheme.class_count for scheme in LABEL_SCHEMES.values()} == {2, 4, 27}


def test_sacrum_and_unknown_labels_are_background():
    mask = np.array([[0, 1, 8], [28, 25, 26], [27, 99, 24]], np.uint8)
    np.testing.assert_array_equal(LABEL_SCHEMES["regions"].to_classes(mask), [[0, 1, 2], [2, 3, 0], [0, 0, 3]])
    assert LABEL_SCHEMES["binary"].to_classes(mask).dtype == np.uint8
