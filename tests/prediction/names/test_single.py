"""One vertebra at a time, with networks whose answers are known."""

import numpy as np
import pytest
import torch

from prediction.names.single import predict_single_vertebrae, window_box
from utils.constants import SHOWN_SIGMA_MM

WINDOW = (24, 24, 24)


def ball_around_what_is_shown(radius_mm):
    """A network that finds a ball around the centre that it is shown, whatever the image."""

    def network(windows):
        shown = windows[:, 1:].clamp(min=1e-30)
        distance_mm = torch.sqrt(-2 * torch.log(shown)) * SHOWN_SIGMA_MM
        return radius_mm - distance_mm

    return network


def find(network, centres_vox, shape=(40, 60, 80), image=None, **options):
    image = torch.zeros(1, *shape) if image is None else image
    probability, labels = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    centres = {label: np.array(centre, float) for label, centre in centres_vox.items()}
    window = options.pop("window", WINDOW)
    predict_single_vertebrae(network, image, window, centres, 1.0, probability, labels, **options)
    return probability, labels


def distance_to(centre, shape=(40, 60, 80)):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.linalg.norm(grid - np.array(centre), axis=-1)


def test_windows_lie_behind_and_below_the_centre():
    box = window_box(np.array([20.2, 40.0, 50.0]), (24, 24, 24), 1.0)
    assert box.start.tolist() == [8, 12, 30] and (box.stop - box.start).tolist() == [24, 24, 24]
    box = window_box(np.array([20.2, 40.0, 50.0]), (24, 24, 24), 2.0)
    assert box.start.tolist() == [8, 20, 34]


@pytest.mark.parametrize("mirror", [False, True])
def test_each_vertebra_is_found_where_it_is_shown(mirror):
    centres = {20: (19.5, 40, 50), 21: (22, 38, 36)}
    probability, labels = find(ball_around_what_is_shown(5), centres, window=(48, 60, 48), mirror=mirror)
    near = {label: distance_to(centre) for label, centre in centres.items()}
    np.testing.assert_array_equal((probability > 0.5) & (labels == 20), (near[20] < 5) & (near[20] < near[21]))
    np.testing.assert_array_equal((probability > 0.5) & (labels == 21), (near[21] < 5) & (near[21] < near[20]))


def test_where_two_are_found_the_surer_one_has_the_voxel():
    probability, labels = find(ball_around_what_is_shown(9), {20: (20, 40, 50), 21: (20, 40, 40)}, window=(48, 60, 48))
    found = labels[20, 40, 38:53] * (probability[20, 40, 38:53] > 0.5)
    assert found.tolist() == [21] * 7 + [20] * 8 or found.tolist() == [21] * 8 + [20] * 7


def test_only_the_largest_connected_component_stays():
    image = torch.zeros(1, 40, 60, 80)
    image[0, 15:25, 20:30, 40:50], image[0, 30:32, 20:30, 40:50] = 1, 1
    probability, labels = find(lambda windows: 20 * windows[:, :1] - 10, {20: (20, 40, 50)}, image=image)
    np.testing.assert_array_equal(probability > 0.5, (image[0].numpy() > 0) & (np.arange(40) < 30)[:, None, None])
    assert set(np.unique(labels[probability > 0.5])) == {20}


def test_windows_that_reach_beyond_the_image_see_air():
    seen = []

    def network(windows):
        seen.append(windows)
        return ball_around_what_is_shown(4)(windows)

    image = torch.ones(1, 20, 20, 20)
    probability, labels = find(
        network, {1: (3, 17, 18), 2: (500, 3, 3)}, shape=(20, 20, 20), image=image, window=(48, 60, 48)
    )
    assert len(seen) == 1  # the other lies outside of the image
    image_of_window = seen[0][0, 0]
    assert image_of_window.shape == (48, 60, 48) and set(image_of_window.unique().tolist()) == {-1.0, 1.0}
    np.testing.assert_array_equal(probability > 0.5, distance_to((3, 17, 18), (20, 20, 20)) < 4)
    assert set(np.unique(labels[probability > 0.5])) == {1}


def test_what_is_not_a_number_stays_so():
    probability, _ = find(lambda windows: windows[:, :1] * float("nan"), {20: (20, 40, 50)})
    assert np.isnan(probability).any()
