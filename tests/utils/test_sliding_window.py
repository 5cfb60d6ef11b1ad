import itertools

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from utils.sliding_window import predict_probabilities, window_starts


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 40, 101])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_windows_cover_every_voxel_and_stay_inside(size, overlap):
    starts = window_starts(size, 8, overlap)
    covered = {voxel for start in starts for voxel in range(start, start + 8)}
    assert covered == set(range(max(size, 8)))
    assert all(b - a <= max(1, int(8 * (1 - overlap))) for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("shape", [(20, 24, 30), (5, 24, 9), (8, 8, 8)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_pointwise_network_gives_what_it_gives_on_the_whole(shape, batch_size):
    image = torch.randn(1, *shape)
    found = predict_probabilities(lambda x: 3 * x - 1, image, (8, 8, 8), batch_size=batch_size)
    torch.testing.assert_close(found, torch.sigmoid(3 * image - 1))


def test_a_local_network_gives_what_it_gives_on_the_whole_inside():
    torch.manual_seed(0)
    network = nn.Conv3d(1, 3, 3, padding=1)
    image = torch.randn(1, 30, 20, 26)
    with torch.no_grad():
        expected = torch.softmax(network(image[None])[0], dim=0)
    # Windows' rims see zeros where the whole sees its neighbours; the Gaussian leaves little of that.
    found = predict_probabilities(network, image, (16, 16, 16), overlap=0.75)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.sum(dim=0), torch.ones(30, 20, 26))
    assert (found - expected).abs().mean() < 0.02


def test_it_agrees_with_monai():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 1, 3, padding=1))
    image = torch.randn(1, 32, 32, 48)
    with torch.no_grad():
        theirs = sliding_window_inference(image[None], (16, 16, 16), 2, network, overlap=0.5, mode="gaussian")[0]
    found = predict_probabilities(network, image, (16, 16, 16), overlap=0.5, batch_size=2)
    torch.testing.assert_close(found, torch.sigmoid(theirs), atol=2e-3, rtol=0)


def test_windows_see_air_beyond_the_ends():
    seen = []

    def network(windows):
        seen.append(windows)
        return windows

    image = torch.zeros(1, 8, 8, 20)
    found = predict_probabilities(network, image, (8, 8, 8), overhang_vox=(0, 0, 4))
    assert found.shape == image.shape
    assert (seen[0][0, 0, :, :, :4] == -1).all() and (seen[-1][0, 0, :, :, -4:] == -1).all()
