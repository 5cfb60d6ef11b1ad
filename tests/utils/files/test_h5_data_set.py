"""Several H5 files as one data set: no scan twice, no patient in two splits."""

import warnings

import numpy as np
import pytest

from preprocessing import IsotropicSettings, preprocess
from utils.files.h5_cases import StoredCase, case_file, write_case
from utils.files.h5_data_set import H5DataSet
from utils.files.h5_packing import pack_cases
from utils.geometry.working_grid import WorkingGrid
from utils.tasks import SEGMENTATION
from verse_utils.errors import UserError
from verse_utils.names import SPLITS


@pytest.fixture(scope="module")
def parts(phantom_root, tmp_path_factory):
    """The cases of ``segmentation_h5`` in two files, both with the first training scan."""

    def make(*exclude):
        folder = tmp_path_factory.mktemp("part")
        return preprocess(phantom_root, 19, IsotropicSettings(6.0), folder, 1, exclude, pictures=False)

    return make("sub-phantom101*", "sub-phantom300*"), make("sub-phantom200*")


def places(store):
    return [(split, case_id) for split in SPLITS for case_id in store.case_ids(split)]


def test_parts_are_the_whole(parts, segmentation_h5):
    with pytest.warns(UserWarning, match=r"1 of its scans are here or in another --data_path again"):
        joined = H5DataSet(parts, SEGMENTATION)
    whole = H5DataSet([segmentation_h5])
    assert places(joined) == places(whole) and len(places(joined)) == 4
    assert joined.fingerprint() == whole.fingerprint() != H5DataSet(parts[:1]).fingerprint()
    for place in places(whole):
        for mine, its in zip(joined.read(*place), whole.read(*place), strict=True):
            np.testing.assert_array_equal(mine, its)
        assert joined.case(*place).patient == whole.case(*place).patient
        np.testing.assert_array_equal(joined.foreground_vox(*place), whole.foreground_vox(*place))


@pytest.fixture
def make_h5(tmp_path):
    """Write an H5: (name, (id, patient, split, data set, number in its voxels) …, settings) -> its path."""

    def make(name, *cases, settings=None):
        path, settings = tmp_path / f"{name}.h5", settings or {"spacing_mm": 1.0}
        grid = WorkingGrid.isotropic((4, 4, 4), np.eye(4), 1.0)
        for case_id, patient, split, data_set, number in cases:
            stored = StoredCase(case_id, patient, split, grid, data_set, "CC0")
            image_hu, label = np.full((4, 4, 4), number, np.int16), np.full((4, 4, 4), 20, np.uint8)
            file = case_file(path, split, case_id)
            write_case(file, stored, image_hu, label, settings, {"ct": f"{number}"}, {"image": "ct"})
        pack_cases(path, SEGMENTATION, settings, [(split, case_id) for case_id, _, split, _, _ in cases])
        return path

    return make


def numbers(store):
    return {place: (store.case(*place).patient, int(store.read(*place)[0].max())) for place in places(store)}


def test_the_file_that_is_named_first_decides(make_h5):
    """Another scan of its patient follows; a name that stands for somebody else gets the file's before it."""
    first = make_h5("first", ("a", "a", "training", "mine", 1), ("b", "b", "test", "mine", 2))
    second = make_h5(
        "second",
        ("a_2", "a", "test", "mine", 3),
        ("b", "b", "training", "hers", 4),
        ("copy", "z", "training", "hers", 1),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joined = H5DataSet([first, second])
        other_way = H5DataSet([second, first])
    assert numbers(joined) == {
        ("training", "a"): ("a", 1),
        ("training", "a_2"): ("a", 3),
        ("training", "second_b"): ("second_b", 4),
        ("test", "b"): ("b", 2),
    }
    assert joined.case("training", "second_b").split == "training"
    assert ("test", "a_2") in numbers(other_way) and ("test", "a") not in numbers(other_way)


def test_a_scan_in_two_splits_is_refused(make_h5):
    first = make_h5("first", ("a", "a", "test", "mine", 1))
    second = make_h5("second", ("b", "b", "training", "hers", 1))
    with pytest.raises(UserError, match=r"second\.h5: training/b: is in training, and .*first\.h5: test/a, the same"):
        H5DataSet([first, second])


def test_other_settings_are_refused_by_name(make_h5):
    first = make_h5("first", ("a", "a", "training", "mine", 1))
    second = make_h5("second", ("b", "b", "training", "mine", 2), settings={"spacing_mm": 2.0})
    with pytest.raises(
        UserError, match=r"second\.h5: made with spacing_mm 2\.0, but .*first\.h5 with 1\.0; give files"
    ):
        H5DataSet([first, second])
