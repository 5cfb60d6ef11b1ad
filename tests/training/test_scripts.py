import pytest
import torch

from networks import ARCHITECTURES, build_network
from training.scripts import expect_background


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
