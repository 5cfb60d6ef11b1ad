"""One vertebra at a time, with networks whose answers are known."""

import numpy as np
import pytest
import torch

from prediction.names.single import SingleVertebrae, box_of_windows, window_box
from prediction.sliding_window import predict_window
from utils.constants import SHOWN_SIGMA_MM
from utils.intensity import DEFAULT_SCALING

WINDOW = (24, 24, 24)


def ball_around_what_is_shown(radius_mm):
    """A network that finds a ball around the centre that it is shown, whatever the image."""

    def network(windows):
        shown = windows[:, 1:].clamp(min=1e-30)
        distance_mm = torch.sqrt(-2 * torch.log(shown)) * SHOWN_SIGMA_MM
        return radius_mm - distance_mm

    return network


def find(network, centres_vox, shape=(40, 60, 80), image=None, window=WINDOW, mirror=False):
    """Probability and number of each voxel, and the bodies, of vertebrae that are shown one after the other."""
    single = SingleVertebrae(
        network=lambda window_CXYZ: predict_window(lambda windows: [network(windows)], window_CXYZ, mirror),
        image=torch.zeros(1, *shape) if image is None else image,
        air=DEFAULT_SCALING.air,
        window_shape=window,
        spacing_mm=1.0,
        probability=np.zeros(shape, np.float32),
        numbers=np.zeros(shape, np.uint8),
    )
    bodies = [single.find(np.array(centre, float)) for centre in centres_vox]
    return single.probability, single.numbers, bodies


def distance_to(centre, shape=(40, 60, 80)):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.linalg.norm(grid - np.array(centre), axis=-1)


def test_windows_lie_behind_and_below_the_centre():
    box = window_box(np.array([20.2, 40.0, 50.0]), (24, 24, 24), 1.0)
    assert box.start.tolist() == [8, 12, 30] and (box.stop - box.start).tolist() == [24, 24, 24]
    box = window_box(np.array([20.2, 40.0, 50.0]), (24, 24, 24), 2.0)
    assert box.start.tolist() == [8, 20, 34]


def test_the_box_of_windows_lies_within_the_image():
    centres = [np.array([20.0, 40.0, 50.0]), np.array([20.0, 40.0, 30.0])]
    box = box_of_windows(centres, 6, (24, 24, 24), 1.0, (30, 60, 300))
    assert (box.start.tolist(), box.stop.tolist()) == ([0, 0, 0], [30, 60, 300])
    box = box_of_windows(centres, 6, (24, 24, 24), 1.0, (200, 300, 2000))
    assert (box.start.tolist(), box.stop.tolist()) == ([0, 0, 0], [32 + 6 + 30, 36 + 6 + 60, 54 + 6 + 1000])
    box = box_of_windows([np.array([500.0, 3.0, 3.0])], 6, (24, 24, 24), 1.0, (30, 60, 60))
    assert ((box.start >= 0) & (box.stop > box.start) & (box.stop <= (30, 60, 60))).all()
    box = box_of_windows([], 6, (24, 24, 24), 1.0, (30, 60, 60))
    assert (box.start.tolist(), box.stop.tolist()) == ([0, 0, 0], [30, 60, 60])


@pytest.mark.parametrize("mirror", [False, True])
def test_each_vertebra_is_found_where_it_is_shown(mirror):
    centres = [(19.5, 40, 50), (22, 38, 36)]
    probability, numbers, bodies = find(ball_around_what_is_shown(5), centres, window=(48, 60, 48), mirror=mirror)
    first, second = (distance_to(centre) for centre in centres)
    np.testing.assert_array_equal((probability > 0.5) & (numbers == 1), first < 5)
    np.testing.assert_array_equal((probability > 0.5) & (numbers == 2), second < 5)
    for number, (body, centre) in enumerate(zip(bodies, centres, strict=True), start=1):
        assert body.number == number
        np.testing.assert_allclose(body.centre_vox, centre, atol=1)


def test_where_two_are_found_the_surer_one_has_the_voxel():
    probability, numbers, _ = find(ball_around_what_is_shown(9), [(20, 40, 50), (20, 40, 40)], window=(48, 60, 48))
    found = numbers[20, 40, 38:53] * (probability[20, 40, 38:53] > 0.5)
    assert found.tolist() == [2] * 7 + [1] * 8 or found.tolist() == [2] * 8 + [1] * 7


def test_only_the_largest_connected_component_stays():
    image = torch.zeros(1, 40, 60, 80)
    image[0, 15:25, 20:30, 40:50], image[0, 30:32, 20:30, 40:50] = 1, 1
    probability, numbers, _ = find(lambda windows: 20 * windows[:, :1] - 10, [(20, 40, 50)], image=image)
    np.testing.assert_array_equal(probability > 0.5, (image[0].numpy() > 0) & (np.arange(40) < 30)[:, None, None])
    assert set(np.unique(numbers[probability > 0.5])) == {1}


def test_windows_that_reach_beyond_the_image_see_air():
    seen = []

    def network(windows):
        seen.append(windows)
        return ball_around_what_is_shown(4)(windows)

    image = torch.ones(1, 20, 20, 20)
    centres = [(6, 16, 16), (500, 3, 3)]
    probability, _, bodies = find(network, centres, shape=(20, 20, 20), image=image, window=(48, 60, 48))
    assert len(seen) == 1 and bodies[1] is None  # the other lies outside of the image
    image_of_window = seen[0][0, 0]
    assert image_of_window.shape == (48, 60, 48) and set(image_of_window.unique().tolist()) == {-1.0, 1.0}
    np.testing.assert_array_equal(probability > 0.5, distance_to(centres[0], (20, 20, 20)) < 4)


def test_what_is_not_a_number_stays_so():
    probability, _, bodies = find(lambda windows: windows[:, :1] * float("nan"), [(20, 40, 50)])
    assert np.isnan(probability).any() and bodies[0] is not None


def blocks_and_network():
    """Two blocks, of voxels 1 and 2, and a network that finds the one that is better lit by what is shown."""
    blocks = np.zeros((40, 60, 80), np.float32)
    blocks[15:25, 25:45, 20:34], blocks[15:25, 25:45, 40:54] = 1, 2

    def network(windows):
        masks = [windows[:, :1] == number for number in (1, 2)]
        light = [float((windows[:, 1:] * mask).sum()) for mask in masks]
        return 20.0 * masks[int(np.argmax(light))] - 10

    return blocks, network


def test_a_vertebra_that_was_found_before_is_not_found_again():
    blocks, network = blocks_and_network()
    centres = [(20, 35, 47), (20, 35, 27), (20, 35, 40)]
    probability, numbers, bodies = find(network, centres, image=torch.from_numpy(blocks)[None], window=(48, 60, 60))
    np.testing.assert_array_equal(probability > 0.5, blocks > 0)
    np.testing.assert_array_equal(np.where(probability > 0.5, numbers, 0), np.choose(blocks.astype(int), [0, 2, 1]))
    assert [body.number for body in bodies] == [1, 2, 1]


def test_a_body_that_lies_elsewhere_is_shown_again_at_its_centre():
    blocks, network = blocks_and_network()
    shown = []

    def watched(windows):
        shown.append(float(windows[:, 1].max()))
        return network(windows)

    for height, times in ((46.5, 1), (42.0, 2)):
        shown.clear()
        _, _, (body,) = find(watched, [(19.5, 34.5, height)], image=torch.from_numpy(blocks)[None], window=(48, 60, 60))
        assert len(shown) == times
        np.testing.assert_allclose(body.centre_vox, [19.5, 34.5, 46.5], atol=1)


def test_nothing_is_found_where_there_is_nothing():
    probability, _, bodies = find(lambda windows: torch.full_like(windows[:, :1], -5.0), [(20, 40, 50)])
    assert bodies == [None] and not probability.any()


def test_a_fragment_beside_a_vertebra_is_none_unless_the_edge_cuts_it():
    blocks = np.zeros((40, 60, 80), np.float32)
    blocks[10:30, 20:40, 40:60], blocks[15:25, 25:35, 10:18] = 1, 2  # 8000 voxels, and 800

    def network(windows):
        is_upper = float((windows[:, 1:] * (windows[:, :1] == 1)).sum()) > float(
            (windows[:, 1:] * (windows[:, :1] == 2)).sum()
        )
        return 20.0 * (windows[:, :1] == (1 if is_upper else 2)) - 10

    centres = [(19.5, 29.5, 49.5), (19.5, 29.5, 13.5)]
    image = torch.from_numpy(blocks)[None]
    _, numbers, bodies = find(network, centres, image=image, window=(48, 60, 60))
    assert [body and body.number for body in bodies] == [1, None] and 2 not in numbers
    cut = [(x, y, z - 10) for x, y, z in centres]
    bodies = find(network, cut, shape=(40, 60, 70), image=image[..., 10:].contiguous(), window=(48, 60, 60))[2]
    assert [body.number for body in bodies] == [1, 2]


def test_a_fragment_that_is_found_first_is_dropped_when_the_vertebra_is():
    """A rod, and then the block beside it."""
    image = torch.zeros(1, 40, 60, 80)
    image[0, 10:30, 20:40, 40:60], image[0, 18:22, 44:54, 45:60] = 1, 2  # 8000 voxels, and 600
    shown = iter((2, 1))

    def network(windows):
        return 20.0 * (windows[:, :1] == next(shown)) - 10

    centres = [(19.5, 48.5, 52.0), (19.5, 29.5, 49.5)]
    probability, numbers, bodies = find(network, centres, image=image, window=(48, 80, 60))
    assert [body.number for body in bodies] == [1, 2] and [body.fragments for body in bodies] == [(), (1,)]
    np.testing.assert_array_equal((probability > 0.5) & (numbers == 2), image[0] == 1)
    assert not ((probability > 0.5) & (image[0].numpy() == 2)).any()


def test_what_a_vertebra_takes_all_voxels_of_is_a_fragment():
    radii_mm = iter((4, 9))

    def network(windows):
        return ball_around_what_is_shown(next(radii_mm))(windows)

    probability, numbers, bodies = find(network, [(20, 40, 50), (20, 40, 46)], window=(48, 60, 48))
    assert [body.fragments for body in bodies] == [(), (1,)]
    np.testing.assert_array_equal(probability > 0.5, distance_to((20, 40, 46)) < 9)
    assert set(np.unique(numbers[probability > 0.5])) == {2}
