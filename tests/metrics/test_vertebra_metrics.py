import numpy as np
import pytest

from metrics.vertebra_metrics import count_findings, dice_of_vertebrae, find_vertebrae

SHAPE = (10, 10, 40)
# L1, T13 and T12 from low to high: each 4 × 5 × 5 = 100 voxels, two slices apart.
PLACES = {20: slice(2, 7), 28: slice(9, 14), 19: slice(16, 21)}


def column(*labels):
    mask = np.zeros(SHAPE, np.uint8)
    for label in labels or PLACES:
        mask[3:7, 2:7, PLACES[label]] = label
    return mask


TARGET = column()


def test_separate_vertebrae_are_found_and_nothing_else():
    findings, false_components = find_vertebrae(TARGET > 0, TARGET)
    assert list(findings) == [19, 28, 20] and false_components == 0  # from head to foot
    assert all((f.recall, f.found, f.split, f.merged) == (1, True, False, False) for f in findings.values())


@pytest.mark.parametrize(("rows", "found"), [(2, False), (3, True), (5, True)])
def test_half_of_the_voxels_make_a_find(rows, found):
    prediction = column(28) > 0
    prediction[:, 2 + rows :] = False
    findings, _ = find_vertebrae(prediction, TARGET)
    assert (findings[28].recall, findings[28].found) == (pytest.approx(rows / 5), found)
    assert not findings[19].found and findings[19].recall == 0
    assert count_findings(prediction, TARGET)["missed"] == 3 - found


def test_exactly_half_is_found():
    prediction = column(28) > 0
    prediction[5:] = False
    assert find_vertebrae(prediction, TARGET)[0][28].found


def test_a_gap_splits_and_a_crumb_does_not():
    prediction = column(28) > 0
    prediction[5] = False  # 50 and 25 voxels
    assert find_vertebrae(prediction, TARGET)[0][28].split
    prediction[6, 3:] = False  # 50 and 5
    finding = find_vertebrae(prediction, TARGET)[0][28]
    assert finding.found and not finding.split
    prediction[6, 3] = column(28)[6, 3] > 0  # 50 and 10
    assert find_vertebrae(prediction, TARGET)[0][28].split


def test_one_voxel_merges_neighbours():
    prediction = TARGET > 0
    prediction[4, 4, 7:9] = True
    findings, _ = find_vertebrae(prediction, TARGET)
    assert [findings[label].merged for label in (19, 28, 20)] == [False, True, True]
    counts = count_findings(prediction, TARGET)
    assert counts == {"vertebrae": 3, "found": 3, "missed": 0, "split": 0, "merged": 2, "false_components": 0}


def test_a_small_leak_into_a_neighbour_does_not_merge():
    prediction = column(20) > 0
    prediction[4, 4, 7:14] = True  # five of T13's hundred voxels
    findings, false_components = find_vertebrae(prediction, TARGET)
    assert findings[20].found and not findings[20].merged and false_components == 0
    prediction[4, 5, 9:14] = True  # ten
    assert find_vertebrae(prediction, TARGET)[0][20].merged


def test_false_components():
    prediction = TARGET > 0
    prediction[0, 0, 30:35] = True
    prediction[8, 8, 0] = True
    assert find_vertebrae(prediction, TARGET)[1] == 2
    crumb = np.zeros(SHAPE, bool)
    crumb[3, 2, 9:13] = True  # inside T13, too little to cover it
    assert find_vertebrae(crumb, TARGET)[1] == 0


def test_nothing_found_and_nothing_there():
    nothing = np.zeros(SHAPE, np.uint8)
    assert count_findings(nothing > 0, TARGET)["missed"] == 3
    assert count_findings(nothing > 0, nothing)["vertebrae"] == 0
    assert find_vertebrae(TARGET > 0, nothing) == ({}, 3)


def test_dice_of_each_label_by_hand():
    prediction = column(20, 28)
    prediction[5:7][prediction[5:7] == 28] = 20  # half of T13 is called L1
    prediction[0, 0, 0] = 1  # a C1 that isn't there
    assert dice_of_vertebrae(prediction, TARGET) == {
        19: 0,
        28: pytest.approx(2 * 50 / (50 + 100)),
        20: pytest.approx(2 * 100 / (150 + 100)),
    }
    assert list(dice_of_vertebrae(prediction, TARGET)) == [19, 28, 20]
