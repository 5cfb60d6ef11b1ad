import numpy as np
import pytest
import torch

from prediction.postprocessing import keep_components, without_dropped_components
from utils.geometry.components import ConnectedComponents, large_components

MASK = np.zeros((12, 10, 8), bool)
MASK[1:5, 1:5, 1:5] = MASK[7:9, 1:5, 1:5] = MASK[11, 9, 7] = True  # components of 64, 32 and 1 voxels


# Voxels of 5 × 5 × 5.5 mm: 5 cm³ are 36.4 of them.
SPACING_MM = (5.0, 5.0, 5.5)


@pytest.mark.parametrize(("postprocess", "least_vox"), [("blobs", 36.4), ("largest", 64), ("none", 1)])
def test_dropped_components_of_one_channel_become_background(postprocess, least_vox):
    probabilities = torch.from_numpy(np.where(MASK, 0.9, 0.2))[None]
    cleaned = without_dropped_components(probabilities, SPACING_MM, postprocess)
    np.testing.assert_array_equal(cleaned[0].numpy() > 0.5, large_components(MASK, least_vox))
    untouched = ~torch.from_numpy(MASK)
    assert torch.equal(cleaned[0][untouched], probabilities[0][untouched])


def test_a_component_of_several_classes_is_one():
    """Two classes of 32 voxels that touch are a component of 64; the other one, of 32, becomes background."""
    classes = torch.from_numpy(MASK.astype(np.int64))
    classes[3:5][classes[3:5] > 0] = 2
    probabilities = torch.nn.functional.one_hot(classes, 3).movedim(-1, 0).float()
    cleaned = without_dropped_components(probabilities, SPACING_MM, "blobs")
    expected = torch.where(torch.from_numpy(large_components(MASK, 33)), classes, 0)
    assert torch.equal(cleaned.argmax(dim=0), expected)
    torch.testing.assert_close(cleaned.sum(dim=0), torch.ones(MASK.shape))


def test_5_cm3_are_40_voxels_of_5_mm():
    mask = np.zeros((12, 10, 8), bool)
    mask[0:2, 0:4, 2:7] = mask[5:7, 0:4, 2:7] = True
    mask[6, 3, 6] = False  # 40 and 39 voxels
    connected, slabs = ConnectedComponents(), [slice(0, 4), slice(4, 8)]
    components = np.concatenate([connected.add(mask[..., planes]) for planes in slabs], axis=2)
    probability = np.where(mask, 0.9, 0.2)
    keep_components(connected, "blobs", 5.0, slabs, components, [probability])
    mask[5:] = False
    np.testing.assert_array_equal(probability > 0.5, mask)
    np.testing.assert_array_equal(components > 0, mask)
