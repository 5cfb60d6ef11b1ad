import numpy as np
import pytest

from utils.geometry.boxes import Box, mask_box


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_a_box_holds_the_mask_and_no_more(dtype):
    mask = np.zeros((6, 7, 8), dtype)
    mask[1, 2, 7] = mask[2, 2, 3] = mask[4, 4, 0] = 1
    box = mask_box(mask)
    assert box.slices == (slice(1, 5), slice(2, 5), slice(0, 8)) and box.volume_vox == 4 * 3 * 8
    where = np.argwhere(mask)
    assert (box.start == where.min(axis=0)).all() and (box.stop == where.max(axis=0) + 1).all()


def test_an_empty_mask_has_none():
    assert mask_box(np.zeros((3, 4, 5), bool)) is None


def test_a_box_that_ends_before_it_starts_is_empty():
    assert Box(np.array([3, 0, 0]), np.array([2, 5, 5])).volume_vox == 0
