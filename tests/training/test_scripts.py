from types import SimpleNamespace

import pytest
import torch
import torchio as tio

from networks import ARCHITECTURES, build_network
from training.scripts import _subject_to_show, expect_background


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_fresh_network_answers_background(name):
    torch.manual_seed(0)
    image = torch.randn(1, 1, 32, 32, 32)
    network = build_network(name, 1, 1, (32, 32, 32))
    expect_background(network, 1)
    with torch.no_grad():
        assert torch.sigmoid(network(image)).mean() < 0.05


def test_classes_start_alike():
    network = build_network("UNet", 1, 3, (32, 32, 32))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    expect_background(network, 3)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_picture_of_an_epoch_shows_the_patch_with_most_bone():
    def patch(voxels):
        label = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
        label.view(-1)[:voxels] = 20
        return tio.Subject(label=tio.LabelMap(tensor=label), voxels=voxels)

    patches = [patch(voxels) for voxels in (0, 3, 30, 5)]
    assert _subject_to_show(SimpleNamespace(target_key="label"), patches)["voxels"] == 30
