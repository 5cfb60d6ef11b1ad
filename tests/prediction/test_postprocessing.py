import numpy as np
import pytest
import scipy.ndimage
import torch

from prediction.postprocessing import describe_components, keep_components, without_dropped_components
from utils.geometry.components import ConnectedComponents

MASK = np.zeros((12, 10, 8), bool)
MASK[1:5, 1:5, 1:5] = MASK[7:9, 1:5, 1:5] = MASK[11, 9, 7] = True  # components of 64, 32 and 1 voxels


# Voxels of 5 × 5 × 5.5 mm: 5 cm³ are 36.4 of them.
SPACING_MM = (5.0, 5.0, 5.5)


LARGEST = MASK.copy()
LARGEST[5:] = False


@pytest.mark.parametrize(("postprocess", "kept"), [("blobs", LARGEST), ("largest", LARGEST), ("none", MASK)])
def test_dropped_components_of_one_channel_become_background(postprocess, kept):
    probabilities = torch.from_numpy(np.where(MASK, 0.9, 0.2))[None]
    cleaned = without_dropped_components(probabilities, SPACING_MM, postprocess)
    np.testing.assert_array_equal(cleaned[0].numpy() > 0.5, kept)
    untouched = ~torch.from_numpy(MASK)
    assert torch.equal(cleaned[0][untouched], probabilities[0][untouched])


def test_a_component_of_several_classes_is_one():
    """Two classes of 32 voxels that touch are a component of 64; the other one, of 32, becomes background."""
    classes = torch.from_numpy(MASK.astype(np.int64))
    classes[3:5][classes[3:5] > 0] = 2
    probabilities = torch.nn.functional.one_hot(classes, 3).movedim(-1, 0).float()
    cleaned = without_dropped_components(probabilities, SPACING_MM, "blobs")
    expected = torch.where(torch.from_numpy(LARGEST), classes, 0)
    assert torch.equal(cleaned.argmax(dim=0), expected)
    torch.testing.assert_close(cleaned.sum(dim=0), torch.ones(MASK.shape))


def test_5_cm3_are_40_voxels_of_5_mm():
    mask = np.zeros((12, 10, 8), bool)
    mask[0:2, 0:4, 2:7] = mask[5:7, 0:4, 2:7] = True
    mask[6, 3, 6] = False  # 40 and 39 voxels
    connected, slabs = ConnectedComponents(), [slice(0, 4), slice(4, 8)]
    components = np.concatenate([connected.add(mask[..., planes]) for planes in slabs], axis=2)
    probability = np.where(mask, 0.9, 0.2)
    keep_components(connected.wholes(), "blobs", [5.0] * 3, slabs, components, [probability])
    mask[5:] = False
    np.testing.assert_array_equal(probability > 0.5, mask)
    np.testing.assert_array_equal(components > 0, mask)


# A column of 10 mm voxels, from above at X = 15, Y = 15: first and last X, Y and Z of each piece.
SPINE = {"L1 to L3": ((13, 17), (12, 18), (20, 30)), "T9": ((13, 17), (11, 17), (36, 39))}
OTHERS = {
    "hip joint": ((22, 26), (13, 17), (10, 14)),
    "sternum": ((13, 17), (25, 27), (28, 36)),
    "rib": ((20, 24), (12, 14), (24, 26)),
    "skull": ((11, 19), (10, 20), (50, 53)),  # 110 mm above what is left of the spine
}


def column_mask(pieces) -> np.ndarray:
    mask = np.zeros((30, 30, 60), bool)
    for sides in pieces:
        mask[tuple(slice(*side) for side in sides)] = True
    return mask


def kept_of(mask: np.ndarray, spacing_mm=(10.0, 10.0, 10.0)) -> np.ndarray:
    probabilities = torch.from_numpy(np.where(mask, 0.9, 0.2))[None]
    return without_dropped_components(probabilities, spacing_mm, "column")[0].numpy() > 0.5


@pytest.mark.parametrize("other", OTHERS)
def test_what_lies_beside_the_column_goes(other):
    """A vertebra was missed between two parts of the spine: both stay, whatever else was found."""
    spine = column_mask(SPINE.values())
    np.testing.assert_array_equal(kept_of(spine | column_mask([OTHERS[other]])), spine)


def test_the_column_is_that_with_the_most_voxels():
    """Not the one that the largest component belongs to: here, 288 cm³ of pelvis against 240 and 72 cm³ of spine."""
    spine = column_mask(SPINE.values())
    np.testing.assert_array_equal(kept_of(spine | column_mask([((22, 28), (11, 17), (2, 10))])), spine)


def test_a_column_may_lean():
    """By 45° to the front, as in a kyphosis, with a vertebra missing after each."""
    steps = [((13, 17), (1 + 6 * n, 5 + 6 * n), (5 + 6 * n, 8 + 6 * n)) for n in range(5)]
    mask = column_mask(steps)
    np.testing.assert_array_equal(kept_of(mask), mask)
    sideways = mask.transpose(1, 0, 2).copy()  # no scoliosis leans so far
    assert 0 < kept_of(sideways).sum() < mask.sum()


def test_the_column_of_nothing_is_nothing():
    assert not kept_of(np.zeros((4, 4, 4), bool)).any()
    assert not kept_of(column_mask([((3, 4), (3, 4), (3, 7))])).any()  # 4 cm³


def test_vertebrae_whose_processes_hang_beside_the_next_body_are_one_column():
    """Each a component of its own, as where discs and joints are thick: their heights overlap by half."""
    mask = np.zeros((30, 30, 60), bool)
    for z in (6, 14, 22, 38):  # one is missing
        mask[12:18, 14:18, z + 4 : z + 8] = True  # the body, and from it, down and back, the process
        for step in range(6):
            mask[14:16, 12 - step : 16 - step, z + 4 - step : z + 6 - step] = True
    assert scipy.ndimage.label(mask)[1] == 4
    np.testing.assert_array_equal(kept_of(mask, (5.0, 5.0, 5.0)), mask)


AFFINE = np.array([[2.0, 0, 0, -10], [0, 2, 0, 20], [0, 0, 2, 100], [0, 0, 0, 1]])


@pytest.mark.parametrize("classes", [1, 3])
def test_components_over_several_slabs(classes):
    """A bar through all slabs, and above it a cube of one; background is 0.2 sure."""
    foreground = np.full((8, 8, 12), 0.2, np.float32)
    foreground[1, 1, 0:8] = 0.6
    foreground[1, 1, 4] = 1.0
    foreground[4:6, 4:6, 9:11] = 0.9
    probabilities = [foreground] if classes == 1 else [1 - foreground, foreground / 4, foreground * 3 / 4]
    slabs = [slice(0, 5), slice(5, 10), slice(10, 12)]
    connected = ConnectedComponents()
    components = np.concatenate([connected.add(foreground[..., planes] > 0.5) for planes in slabs], axis=2)
    cube, bar = describe_components(connected.wholes(), slabs, components, probabilities, AFFINE)
    assert cube == {"volume_ml": 0.06, "centre_mm": [-1.0, 29.0, 119.0], "confidence": 0.9}
    assert bar == {"volume_ml": 0.06, "centre_mm": [-8.0, 22.0, 107.0], "confidence": 0.65}
    components[1, 1] = 0  # as where the bar was dropped
    assert describe_components(connected.wholes(), slabs, components, probabilities, AFFINE) == [cube]
    assert describe_components(connected.wholes(), slabs, components * 0, probabilities, AFFINE) == []
