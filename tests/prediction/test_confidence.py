"""Volume, centre and confidence of connected components, by numbers that can be counted."""

import numpy as np
import pytest

from prediction.confidence import describe_components
from utils.geometry.components import ConnectedComponents

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
