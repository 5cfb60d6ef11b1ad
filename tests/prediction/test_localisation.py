"""Where a localiser that names vertebrae finds the spine; one with a single heatmap is tested on whole scans."""

from types import SimpleNamespace

import numpy as np
import torch

from prediction.localisation import locate_spine
from utils.geometry.boxes import Box
from utils.geometry.working_grid import WorkingGrid
from verse_utils.labels import ANATOMICAL_ORDER

SHAPE = (16, 16, 32)


def localiser(centres_vox, confidence=None):
    """One whose heatmaps are Gaussians at these voxels of its view, whatever it is shown."""
    grid = np.stack(np.indices(SHAPE), axis=-1)
    heatmaps = np.zeros((27, *SHAPE))
    for label, centre in centres_vox.items():
        heatmaps[1 + ANATOMICAL_ORDER.index(label)] = np.exp(-np.square(grid - np.array(centre)).sum(-1) / 2)
    heatmaps[0] = 1 - heatmaps.sum(axis=0)
    return SimpleNamespace(
        spec=SimpleNamespace(input_shape=SHAPE),
        scaling=SimpleNamespace(air_hu=-1000),
        scaled=lambda view_hu: view_hu[None],
        predict_window=lambda _, dtype: torch.from_numpy(heatmaps).to(dtype),
        names_vertebrae=True,
        steps_mm=None,
        confidence=confidence,
    )


def scan(affine, shape):
    return SimpleNamespace(shape=shape, affine=affine, slabs=lambda: iter([(0, np.zeros(shape, np.int16))]))


def may_be_anywhere(spine):
    corner = Box(np.zeros(3, int), np.ones(3, int))
    return spine.may_touch(spine.view, corner)


def test_names_lie_in_the_scans_own_space_and_the_spine_around_them():
    """A scan whose axes are stored backward: voxels of 10 mm; L1 to L3 are 32 mm apart."""
    affine = np.diag([-10.0, -10.0, 10.0, 1.0])
    affine[:3, 3] = 70, 60, -500
    shape = (16, 16, 32)
    view = WorkingGrid.view(shape, affine, SHAPE)
    centres = {20: (7, 8, 21.5), 21: (7.2, 8, 18.2), 22: (7, 8.3, 14.8)}
    spine = locate_spine(scan(affine, shape), localiser(centres), margin_mm=10)
    assert [vertebra.name for vertebra in spine.vertebrae] == ["L1", "L2", "L3"]
    for vertebra in spine.vertebrae:
        expected = view.affine[:3, :3] @ centres[vertebra.label] + view.affine[:3, 3]
        np.testing.assert_allclose(vertebra.centre_mm, expected, atol=1)
    inside = np.argwhere(spine.mask)
    assert spine.mask[7, 8, 21] and 50 <= 10 * (inside[:, 2].max() - 21.5) <= 70
    behind, before = 8 - inside[:, 1].min(), inside[:, 1].max() - 8  # the processes lie behind the bodies
    assert 70 <= 10 * behind <= 90 and 30 <= 10 * before <= 50 and inside[:, 2].min() > 7


def test_without_any_vertebra_the_spine_may_be_anywhere():
    spine = locate_spine(scan(np.eye(4), (16, 16, 32)), localiser({}), margin_mm=10)
    assert may_be_anywhere(spine) and spine.vertebrae == [] and spine.confidence == 0
    assert spine.doubt == "no spine found by the localiser"


def test_names_in_doubt_stay_but_the_whole_scan_is_searched():
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    centres = {20: (7, 8, 21.5), 21: (7.2, 8, 18.2), 22: (7, 8.3, 14.8)}
    sure = locate_spine(scan(affine, (16, 16, 32)), localiser(centres), margin_mm=10)
    assert 0.7 < sure.confidence < 1 and not may_be_anywhere(sure) and sure.doubt == ""
    spine = locate_spine(scan(affine, (16, 16, 32)), localiser(centres, 2.1 * sure.confidence), margin_mm=10)
    assert may_be_anywhere(spine) and "unsure" in spine.doubt
    assert [one.label for one in spine.vertebrae] == [one.label for one in sure.vertebrae] == [20, 21, 22]
