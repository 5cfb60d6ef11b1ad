import numpy as np

from utils.geometry.mask_facts import mask_facts


def test_facts_of_a_mask_whose_axes_are_turned():
    """Stored as PIR with voxels of 2 × 3 × 4 mm: I runs back, J down, K right."""
    affine = np.array([[0, 0, 4.0, 0], [-2.0, 0, 0, 0], [0, -3.0, 0, 0], [0, 0, 0, 1]])
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[1:4, 2:7, 5:7] = 20
    mask[1, 2, 5] = 21
    assert mask_facts(mask, affine) == {
        "spacing_mm": [2.0, 3.0, 4.0],
        "volume_ml": 0.72,  # 30 voxels of 24 mm³
        "volume_ml_of_label": {"20": 0.7, "21": 0.02},
        "extent_mm": {"Y": 6.0, "Z": 15.0, "X": 8.0},
    }


def test_an_empty_mask_has_no_extent():
    facts = mask_facts(np.zeros((3, 3, 3), np.uint8), np.eye(4))
    assert facts["extent_mm"] is None and facts["volume_ml"] == 0 and facts["volume_ml_of_label"] == {}
