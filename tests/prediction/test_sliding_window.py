import itertools
import math

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from prediction.sliding_window import Windows, joined, predict_probabilities, predict_slabs, window_starts


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 40, 101])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_windows_cover_every_voxel_and_stay_inside(size, overlap):
    starts = window_starts(size, 8, overlap)
    covered = {voxel for start in starts for voxel in range(start, start + 8)}
    assert covered == set(range(max(size, 8)))
    assert all(b - a <= max(1, int(8 * (1 - overlap))) for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("shape", [(20, 24, 30), (5, 24, 9), (8, 8, 8)])
@pytest.mark.parametrize(("batch_size", "overhang"), [(1, 0), (3, 0), (3, 13)])
def test_a_pointwise_network_gives_what_it_gives_on_the_whole(shape, batch_size, overhang):
    """However many windows see air alone, where the overhang is longer than they are."""
    image = torch.rand(1, *shape) + 0.1
    found = predict_probabilities(lambda x: 3 * x - 1, image, (8, 8, 8), 0.5, batch_size, (overhang,) * 3)
    torch.testing.assert_close(found, torch.sigmoid(3 * image - 1))


@pytest.mark.parametrize("shape", [(30, 20, 70), (16, 16, 90), (5, 40, 33)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_local_network_gives_what_it_gives_on_the_whole(shape, batch_size):
    """Two convolutions see 2 voxels far, less than a quarter of the overlap of 16; windows' rims see zeros instead."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1))
    image = torch.randn(1, *shape)
    before = [max(32 - size, 0) // 2 for size in shape]
    behind = [max(32 - size, 0) - b for size, b in zip(shape, before, strict=True)]
    padding = [width for pair in reversed(list(zip(before, behind, strict=True))) for width in pair]
    with torch.no_grad():
        logits = network(nn.functional.pad(image, padding, value=-1.0)[None])[0]
    inside = (slice(None), *(slice(b, b + size) for b, size in zip(before, shape, strict=True)))
    expected = torch.softmax(logits, dim=0)[inside]
    found = predict_probabilities(network, image, (32, 32, 32), overlap=0.5, batch_size=batch_size)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_windows_rims_count_for_nothing_where_a_neighbour_is():
    """MONAI's stitching lets a little of them through; both are the same where windows' rims see the truth."""
    torch.manual_seed(0)
    network = nn.Conv3d(1, 1, 3, padding=1)
    image = torch.randn(1, 32, 32, 48)
    with torch.no_grad():
        whole = torch.sigmoid(network(image[None])[0])
        theirs = sliding_window_inference(image[None], (16, 16, 16), 2, network, overlap=0.5, mode="gaussian")[0]
    found = predict_probabilities(network, image, (16, 16, 16), overlap=0.5, batch_size=2)
    assert (found - whole).abs().max() < 1e-5 < (torch.sigmoid(theirs) - whole).abs().max()
    pointwise = nn.Conv3d(1, 1, 1)
    with torch.no_grad():
        theirs = sliding_window_inference(image[None], (16, 16, 16), 2, pointwise, overlap=0.5, mode="gaussian")[0]
    torch.testing.assert_close(predict_probabilities(pointwise, image, (16, 16, 16)), torch.sigmoid(theirs))


def test_windows_are_blended_by_a_gaussian_of_an_eighth_of_their_size():
    """Two windows of 8 voxels, so a sigma of 1, which overlap by 4: the first has the logit 0, the second 1."""
    logits = iter([0.0, 1.0])
    found = predict_probabilities(
        lambda window: torch.full_like(window, next(logits)), torch.ones(1, 8, 8, 12), (8, 8, 8)
    )
    # On planes 5 and 6, 1.5 and 2.5 voxels off the windows' middles; planes 4 and 7 are a window's rim.
    share = 1 / (1 + math.exp((2.5**2 - 1.5**2) / 2))
    expected = torch.tensor([*[0.0] * 5, share, 1 - share, *[1.0] * 5])
    torch.testing.assert_close(found[0, 4, 4], torch.sigmoid(expected))


def test_what_is_not_as_dense_as_bone_is_background_unseen():
    seen = []

    def network(windows):
        seen.append(windows)
        return torch.cat([windows * 0, windows * 0 + 3], dim=1)  # everything is class 1

    image = torch.full((1, 8, 8, 40), 0.09)
    image[0, 4, 4, 13] = 0.2  # noise, around which the mean is less dense
    image[..., 29:32] = 0.11
    found = predict_probabilities(network, image, (8, 8, 8))
    assert found[1, ..., 29:32].min() > 0.9
    assert (found[0, ..., 8:20] == 1).all() and (found[1, ..., 8:20] == 0).all()
    assert sum(len(windows) for windows in seen) == 2  # the first, and that with the bone in its middle
    torch.testing.assert_close(found.sum(dim=0), torch.ones(8, 8, 40))


def test_mirroring_averages_with_the_mirrored_answer():
    torch.manual_seed(0)
    network = nn.Conv3d(1, 1, 3, padding=1)
    image = torch.randn(1, 12, 8, 8)
    with torch.no_grad():
        mirrored = network(image[None].flip(2)).flip(2)
        expected = torch.sigmoid((network(image[None]) + mirrored) / 2)[0]
    found = predict_probabilities(network, image, (12, 8, 8), mirror=True)
    torch.testing.assert_close(found, expected)


def test_windows_see_air_beyond_the_ends():
    seen = []

    def network(windows):
        seen.append(windows)
        return windows

    image = torch.ones(1, 8, 8, 20)
    found = predict_probabilities(network, image, (8, 8, 8), overhang_vox=(0, 0, 4))
    assert found.shape == image.shape
    assert (seen[0][0, 0, :, :, :4] == -1).all() and (seen[-1][0, 0, :, :, -4:] == -1).all()


def test_middles_of_windows_cover_the_image_once():
    windows = Windows.cover((40, 8, 50), (16, 16, 16), overlap=0.5, overhang_vox=(0, 0, 4))
    seen = torch.zeros(40, 8, 50, dtype=torch.int)

    def see(middle):
        seen[middle.slices] += 1
        return True

    assert windows.where(see).wanted.all()
    assert (seen == 1).all()


def test_windows_that_are_left_out_change_nothing_where_all_are_looked_at():
    """A network that depends on its window, so that windows in other places would show."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.Conv3d(4, 1, 3, padding=1))
    image = torch.randn(1, 60, 40, 90)
    windows = Windows.cover(image.shape[1:], (16, 16, 16), overhang_vox=(0, 0, 4))
    whole = joined(predict_slabs(network, image, windows), 90)

    spine = (20, 10, 30), (36, 30, 60)
    some = windows.where(lambda middle: (middle.start < spine[1]).all() and (middle.stop > spine[0]).all())
    assert 0 < some.wanted.sum() < windows.wanted.sum() / 3
    some_in_box, box = some.in_box()
    assert all(a <= b - 4 for a, b in zip(box.start, spine[0], strict=True)) and box.stop.tolist() != [60, 40, 90]
    part = image[(slice(None), *box.slices)]
    found = joined(predict_slabs(network, part, some_in_box), part.shape[3])
    assert found.shape == part.shape
    # Inside the middles that touch the spine, by as much as a window that is left out reaches into them: a quarter.
    inside = tuple(slice(a + 4, b - 4) for a, b in zip(*spine, strict=True))
    there = tuple(slice(s.start - a, s.stop - a) for s, a in zip(inside, box.start, strict=True))
    torch.testing.assert_close(found[(0, *there)], whole[(0, *inside)], atol=1e-6, rtol=0)
