import numpy as np

from utils.geometry.resampling import linear_weights, nearest_weights

# Along three voxels; the outer ones end at -0.5 and 2.5.
POSITIONS = np.array([-0.6, -0.4, 0.25, 1.5, 2.4, 2.6])


def test_linear_weights_by_hand():
    expected = [[0, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_allclose(linear_weights(POSITIONS, 3).toarray(), expected)
    np.testing.assert_array_equal(linear_weights(np.array([-1.0, 0, 0.4, 1]), 1).toarray(), [[0], [1], [1], [0]])


def test_nearest_weights_by_hand():
    expected = [[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_array_equal(nearest_weights(POSITIONS, 3).toarray(), expected)
