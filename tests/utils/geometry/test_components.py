import numpy as np
import pytest
import scipy.ndimage

from utils.geometry.components import ConnectedComponents

MASK = np.zeros((12, 10, 8), bool)
MASK[1:5, 1:5, 1:5] = True  # 64 voxels
MASK[7:9, 1:5, 1:5] = True  # 32
MASK[11, 9, 7] = True  # 1
MASK[5, 5, 5] = True  # touches the largest by a corner only


def large_components(mask, **which):
    connected = ConnectedComponents()
    components = connected.add(mask)
    wholes = connected.wholes()
    return wholes.large(**which)[wholes.whole_of][components]


def test_components_below_a_size_go():
    assert large_components(MASK).sum() == large_components(MASK, least_vox=0).sum() == MASK.sum() == 98
    assert large_components(MASK, least_vox=2).sum() == 96
    assert large_components(MASK, least_vox=32).sum() == 96
    assert large_components(MASK, least_vox=33).sum() == 64
    assert not large_components(MASK, least_vox=65).any()


def test_components_below_a_share_of_the_largest_go():
    assert large_components(MASK, least_share=0.5).sum() == 96
    assert large_components(MASK, least_share=0.51).sum() == 64


def test_nothing_stays_nothing():
    assert not large_components(np.zeros((3, 3, 3), bool), least_share=0.1).any()


@pytest.mark.parametrize("thickness", [1, 3, 100])
def test_components_in_slabs_are_those_of_the_whole(thickness):
    mask = np.random.default_rng(0).random((14, 12, 20)) < 0.3  # they wind up and down
    labels, _ = scipy.ndimage.label(mask)
    sizes = np.bincount(labels[mask])[labels] * mask  # of each voxel's component
    connected = ConnectedComponents()
    components = [connected.add(mask[..., z : z + thickness]) for z in range(0, 20, thickness)]
    asked = {1: {}, 5: {"least_vox": 5}, sizes.max() / 2: {"least_share": 0.5}, sizes.max(): {"least_share": 1.0}}
    for least_vox, which in asked.items():
        wholes = connected.wholes()
        kept = np.concatenate([wholes.large(**which)[wholes.whole_of][part] for part in components], axis=2)
        np.testing.assert_array_equal(kept, sizes >= least_vox)
    assert (sizes > 0).sum() > (sizes >= 5).sum() > 0


def test_the_first_component_goes_on_in_the_next_slab():
    connected = ConnectedComponents()
    assert [connected.add(np.ones((1, 1, 1), bool)).item() for _ in range(3)] == [1, 2, 3]
    assert connected.wholes().sizes_vox.tolist() == [0, 3]


@pytest.mark.parametrize("thickness", [1, 3, 100])
def test_a_component_has_a_centre_for_each_section_of_its_height(thickness):
    mask = np.zeros((9, 8, 10), bool)
    mask[1:4, 2:4, 1:9] = True
    mask[3:7, 2:4, 5] = True  # with an arm in one plane
    mask[7, 6, 9] = True
    connected = ConnectedComponents()
    components = np.concatenate([connected.add(mask[..., z : z + thickness]) for z in range(0, 10, thickness)], axis=2)
    wholes = connected.wholes()
    number = int(wholes.whole_of[components[2, 2, 3]])
    assert wholes.sizes_vox[number] == 3 * 2 * 8 + 3 * 2
    np.testing.assert_allclose(
        wholes.centres(number, 4), [[2, 2.5, 2.5], [(24 * 2 + 6 * 5) / 30, 2.5, (24 * 6.5 + 30) / 30]]
    )
    whole = np.argwhere(wholes.whole_of[components] == number).mean(axis=0)
    np.testing.assert_allclose(wholes.centres(number, 20), [whole])
    dot = int(wholes.whole_of[components[7, 6, 9]])
    np.testing.assert_allclose(wholes.centres(dot, 4), [[7, 6, 9]])
