import numpy as np
import pytest

from utils.geometry.body_centres import body_centres
from verse_utils.labels import T13


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (4, 4, 4), (2, 2, 3)])
def test_the_centre_is_that_of_the_body_not_of_arch_and_processes(spacing_mm):
    """A body of 40×32×28 mm and behind it a plate of 12 mm that reaches 50 mm back."""
    spacing = np.array(spacing_mm)
    x, y, z = (np.arange(round(size / step)) * step for size, step in zip((80, 120, 60), spacing, strict=True))
    x, y, z = np.meshgrid(x, y, z, indexing="ij")
    body = (abs(x - 40) < 20) & (abs(y - 90) < 16) & (abs(z - 30) < 14)
    arch = (abs(x - 40) < 6) & (y > 24) & (y < 76) & (abs(z - 30) < 8)
    mask = (20 * (body | arch)).astype(np.uint8)
    (centre,) = body_centres(mask, spacing).values()
    np.testing.assert_allclose(centre * spacing, (40, 90, 30), atol=3.5)
    behind = np.argwhere(mask).mean(axis=0) * spacing
    assert behind[1] < 83


def test_labels_come_from_head_to_foot_and_a_cut_one_has_a_centre_too():
    mask = np.zeros((6, 7, 9), np.int16)
    mask[2:4, 2:5, 0], mask[2:4, 2:5, 3:5], mask[2:4, 2:5, 6:8], mask[0, 0, 8] = 20, T13, 19, 26
    centres = body_centres(mask, (4.0, 4.0, 6.0))
    assert list(centres) == [19, T13, 20]  # the sacrum is none
    np.testing.assert_allclose(centres[20], (2.5, 3, 0), atol=1e-6)
    assert body_centres(np.zeros((3, 3, 3), np.uint8), (1, 1, 1)) == {}
