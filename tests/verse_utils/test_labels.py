import json

import numpy as np
import pytest

from verse_utils.errors import UserError
from verse_utils.labels import ANATOMICAL_ORDER, LABEL_SCHEMES, VERTEBRA_NAMES, label_scheme, read_labels


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


def test_a_table_of_classes_is_kept_without_its_file(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('{"upper lumbar": ["L1", 21], "Kreuzbein": [26],\n "T13-L6": ["T13", "L6"]}', encoding="utf-8")
    kept = read_labels(str(path))
    assert read_labels(kept) == kept == '{"upper lumbar": [20, 21], "Kreuzbein": [26], "T13-L6": [28, 25]}'
    scheme = label_scheme(kept)
    assert scheme.class_names == ("upper lumbar", "Kreuzbein", "T13-L6") and scheme.mask_values == (0, 1, 2, 3)
    assert scheme.to_classes(np.array([0, 19, 20, 21, 22, 25, 26, 27, 28], np.uint8)).tolist() == [
        0,
        0,
        1,
        1,
        0,
        3,
        2,
        0,
        3,
    ]
    assert label_scheme(read_labels("regions")) is LABEL_SCHEMES["regions"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([], "no classes"),
        ({}, "no classes"),
        ({"a": []}, "no list of vertebrae"),
        ({"a": "L1"}, "no list of vertebrae"),
        ({"a": ["L7"]}, "'L7' is no vertebra of VerSe"),
        ({"a": [0]}, "0 is no vertebra"),
        ({"a": [True]}, "True is no vertebra"),
        ({"a": [1.5]}, "1.5 is no vertebra"),
        ({"a": [[1]]}, "is no vertebra"),
        ({"a": ["L1"], "b": [20]}, "20 is in a class twice, or in two"),
        ({"a": [20, 20]}, "20 is in a class twice"),
        ({"a_b": ["L1"]}, "class 'a_b': a name has letters"),
        ({"": ["L1"]}, "class '': a name has letters"),
    ],
)
def test_what_is_no_table_of_classes_is_told(tmp_path, table, words):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(UserError, match=rf"classes\.json: no table of classes \(.*{words}.*its form is"):
        read_labels(str(path))


def test_a_class_that_is_there_twice_is_told(tmp_path):
    (tmp_path / "classes.json").write_text('{"a": ["L1"], "b": ["L2"], "a": ["L3"]}', encoding="utf-8")
    with pytest.raises(UserError, match="class a is there twice"):
        read_labels(str(tmp_path / "classes.json"))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_told(tmp_path, content):
    (tmp_path / "classes.json").write_bytes(content)
    with pytest.raises(UserError, match="no table of classes"):
        read_labels(str(tmp_path / "classes.json"))
    with pytest.raises(UserError, match="neither binary, regions, single, vertebrae nor a file"):
        read_labels(str(tmp_path))
