"""Slices of a tilted gantry shifted to right angles: places and values by hand."""

import nibabel as nib
import numpy as np
import pytest

from utils.geometry.straightening import Straightening

UNTURNED = np.eye(3)
TURNED = np.array([[0.8, -0.48, 0.36], [0.6, 0.64, -0.48], [0.0, 0.6, 0.8]])


def sheared(degrees_J=0.0, degrees_I=0.0, rotation=UNTURNED, spacing=(0.5, 0.8, 2.5)):
    lean = [spacing[2] * np.tan(np.radians(degrees)) for degrees in (degrees_I, degrees_J)]
    matrix = rotation @ np.array([[spacing[0], 0, lean[0]], [0, spacing[1], lean[1]], [0, 0, spacing[2]]])
    return nib.affines.from_matvec(matrix, [10, -20, 30])


@pytest.mark.parametrize("rotation", [np.eye(3), np.diag([-1.0, -1, 1]), np.diag([1.0, 1, -1]), TURNED], ids=str)
@pytest.mark.parametrize(("degrees_J", "degrees_I"), [(16.5, 0), (-16.5, 0), (0, 20), (7, -30), (0.6, 0)])
def test_every_voxel_stays_within_half_a_voxel_of_its_place(rotation, degrees_J, degrees_I):
    shape, affine = (12, 15, 40), sheared(degrees_J, degrees_I, rotation)
    straightening = Straightening.of(shape, affine)
    axes = straightening.affine[:3, :3]
    np.testing.assert_allclose(axes.T @ axes, np.diag([0.25, 0.64, 6.25]), atol=1e-9)
    indices = np.arange(1, np.prod(shape) + 1).reshape(shape)
    straight = straightening.forward(indices, 0, 0)
    assert straight.shape == straightening.shape
    there, here = np.argwhere(straight), np.argwhere(indices)
    order = np.argsort(straight[tuple(there.T)])
    apart_mm = nib.affines.apply_affine(straightening.affine, there[order]) - nib.affines.apply_affine(affine, here)
    apart_vox = np.abs(apart_mm @ axes / [0.25, 0.64, 6.25])
    assert apart_vox.max(axis=0)[2] < 1e-9 and apart_vox.max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(straightening.undo(straight), indices)


def test_shifts_of_a_small_example():
    """Two columns a slice: of five slices, the middle one stays where it is."""
    straightening = Straightening.of((3, 4, 5), sheared(np.degrees(np.arctan(2 * 0.8 / 2.5))))
    assert straightening.shifts.tolist() == [[0, 0], [0, 2], [0, 4], [0, 6], [0, 8]]
    assert straightening.shape == (3, 12, 5)
    np.testing.assert_allclose(straightening.affine, sheared(), atol=1e-9)
    assert straightening.degrees == pytest.approx(32.62, abs=0.01)
    region = (slice(1, 3), slice(5, 7), slice(1, 4))  # shifted by 2 to 6
    assert straightening.source_region(region) == (slice(1, 3), slice(0, 4), slice(1, 4))


def test_right_angles_need_no_shift():
    for rotation in (np.eye(3), np.diag([-1.0, 1, -1]), TURNED):
        assert Straightening.of((12, 15, 400), sheared(rotation=rotation)) is None
        assert Straightening.of((12, 15, 400), sheared(rotation=rotation).astype(np.float32).astype(float)) is None
    turned_in_plane = sheared()
    turned_in_plane[:3, 1] = [0.2, 0.8, 0]  # no gantry does that
    assert Straightening.of((12, 15, 40), turned_in_plane) is None
