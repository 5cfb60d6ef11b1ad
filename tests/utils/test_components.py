import numpy as np
import pytest
import torch

from utils.components import Blobs, large_components, without_small_blobs

MASK = np.zeros((12, 10, 8), bool)
MASK[1:5, 1:5, 1:5] = True  # 64 voxels
MASK[7:9, 1:5, 1:5] = True  # 32
MASK[11, 9, 7] = True  # 1
MASK[5, 5, 5] = True  # touches the largest by a corner only


def test_components_below_a_size_go():
    assert large_components(MASK).sum() == MASK.sum() == 98
    assert large_components(MASK, least_vox=2).sum() == 96
    assert large_components(MASK, least_vox=32).sum() == 96
    assert large_components(MASK, least_vox=33).sum() == 64
    assert not large_components(MASK, least_vox=65).any()


def test_components_below_a_share_of_the_largest_go():
    assert large_components(MASK, least_share=0.5).sum() == 96
    assert large_components(MASK, least_share=0.51).sum() == 64


def test_nothing_stays_nothing():
    assert not large_components(np.zeros((3, 3, 3), bool), least_share=0.1).any()


def test_small_blobs_of_one_channel_become_background():
    probabilities = torch.from_numpy(np.where(MASK, 0.9, 0.2))[None]
    cleaned = without_small_blobs(probabilities, (1.0, 2.0, 2.0), least_mm3=4 * 33)
    np.testing.assert_array_equal(cleaned[0].numpy() > 0.5, large_components(MASK, 33))
    untouched = ~torch.from_numpy(MASK)
    assert torch.equal(cleaned[0][untouched], probabilities[0][untouched])


def test_a_blob_of_several_classes_is_one():
    """Two classes of 32 voxels that touch are a blob of 64; the other blob of 32 becomes background."""
    classes = torch.from_numpy(MASK.astype(np.int64))
    classes[3:5][classes[3:5] > 0] = 2
    probabilities = torch.nn.functional.one_hot(classes, 3).movedim(-1, 0).float()
    cleaned = without_small_blobs(probabilities, (1.0, 1.0, 1.0), least_mm3=33)
    expected = torch.where(torch.from_numpy(large_components(MASK, 33)), classes, 0)
    assert torch.equal(cleaned.argmax(dim=0), expected)
    torch.testing.assert_close(cleaned.sum(dim=0), torch.ones(MASK.shape))


@pytest.mark.parametrize("thickness", [1, 3, 100])
def test_blobs_in_slabs_are_those_of_the_whole(thickness):
    mask = np.random.default_rng(0).random((14, 12, 20)) < 0.3  # blobs that wind up and down
    blobs = Blobs()
    components = [blobs.add(mask[..., z : z + thickness]) for z in range(0, 20, thickness)]
    for which in ({}, {"least_vox": 5}, {"least_share": 0.5}, {"least_share": 1.0}):
        kept = np.concatenate([blobs.large(**which)[part] for part in components], axis=2)
        np.testing.assert_array_equal(kept, large_components(mask, **which))
    assert not large_components(mask, least_vox=5)[mask].all()
