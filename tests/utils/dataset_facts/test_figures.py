from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.patches import StepPatch

from utils.dataset_facts.case_facts import scan_facts
from utils.dataset_facts.figures import draw_grids, draw_intensities, draw_vertebrae
from utils.visualize import save_figure
from verse_utils.cases import find_cases


@pytest.fixture(scope="module")
def cases(phantom_root):
    return [scan_facts(case) for case in find_cases(phantom_root, 19)]


def points(ax) -> np.ndarray:
    clouds = [cloud.get_offsets() for cloud in ax.collections if isinstance(cloud, PathCollection)]
    return np.concatenate(clouds)


def test_each_scan_is_a_point_of_each_axis(cases):
    spacing_ax, view_ax, orientation_ax = draw_grids(cases).axes
    for ax, name in ((spacing_ax, "spacing_mm"), (view_ax, "field_of_view_mm")):
        places, values = points(ax).T
        for axis in range(3):
            drawn = values[np.rint(places) == axis]
            assert sorted(drawn) == pytest.approx(sorted(getattr(case, name)[axis] for case in cases))
        assert "mm" in ax.get_ylabel()
    assert sum(bar.get_width() for bar in orientation_ax.patches) == len(cases)


def test_each_vertebra_is_counted_and_is_a_point(cases):
    count_ax, volume_ax = draw_vertebrae(cases).axes
    volumes = [ml for case in cases for ml in case.volume_ml.values()]
    assert sum(bar.get_height() for bar in count_ax.patches) == len(volumes)
    assert sorted(points(volume_ax)[:, 1]) == pytest.approx(sorted(volumes))
    levels = [label.get_text() for label in volume_ax.get_xticklabels()]
    heights = {level: sum(bar.get_height() for bar in count_ax.patches if round(bar.get_x() + 0.4) == place)
               for place, level in enumerate(levels)}  # fmt: skip
    assert heights == {level: sum(level in case.volume_ml for case in cases) for level in levels}


def test_the_shares_of_a_split_are_a_hundred_percent(cases):
    for ax in draw_intensities(cases).axes:
        steps = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
        assert len(steps) == 3
        assert all(step.get_data().values.sum() == pytest.approx(100) for step in steps)


def test_scans_without_vertebrae_and_of_one_split_are_drawn(cases, tmp_path):
    empty = [replace(cases[0], volume_ml={}, hu_in_bone=None)]
    for draw in (draw_grids, draw_intensities, draw_vertebrae):
        save_figure(draw(empty), tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 5000
