import numpy as np

from prediction.probabilities import class_indices, of_background, of_foreground

ONE = np.array([0.2, 0.5, 0.51], np.float32).reshape(1, 3, 1, 1)
THREE = np.array([[0.6, 0.3, 0.1], [0.3, 0.4, 0.2], [0.1, 0.3, 0.7]], np.float32).reshape(3, 3, 1, 1)


def test_each_voxel_gets_its_likeliest_class():
    assert class_indices(ONE).ravel().tolist() == [0, 0, 1]
    assert class_indices(THREE).ravel().tolist() == [0, 1, 2]
    assert class_indices(ONE).dtype == class_indices(THREE).dtype == np.uint8


def test_foreground_is_what_background_is_not():
    np.testing.assert_allclose(of_foreground(ONE), ONE[0])
    np.testing.assert_allclose(of_foreground(THREE), 1 - THREE[0], atol=1e-6)


def test_certain_background_is_class_0():
    assert of_background(1) == [0] and of_background(3) == [1, 0, 0]
