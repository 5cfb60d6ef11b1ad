import copy

import pytest
import torch
from torch import nn

from networks import build_network
from networks.checkpointing import checkpoint_blocks
from networks.network import Network


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv3d(1, 1, 1)
        self.norm = nn.BatchNorm3d(1)
        self.calls = 0

    def forward(self, features):
        self.calls += 1
        return self.norm(self.convolution(features)).sin()


class TwoBlocks(Network):
    block_types = (Counted,)

    def __init__(self):
        super().__init__((4, 4, 4), 1)
        self.blocks = nn.Sequential(Counted(), Counted())

    def heads(self):
        return []

    def compute_logits(self, image_BCXYZ):
        return self.blocks(image_BCXYZ)


@pytest.mark.parametrize(("checkpointing", "calls"), [(False, 1), (True, 2)])
def test_blocks_run_twice_and_count_a_batch_once(checkpointing, calls):
    network = TwoBlocks()
    if checkpointing:
        checkpoint_blocks(network)
    network(torch.randn(1, 1, 4, 4, 4)).sum().backward()
    assert [block.calls for block in network.blocks] == [calls, calls]
    assert network.blocks[0].norm.num_batches_tracked == 1
    assert network.blocks[0].norm.momentum == 0.1


@pytest.mark.parametrize("build", [TwoBlocks, lambda: build_network("UNet", 1, 1, (4, 4, 4), channels=(2, 4))])
def test_a_compiled_network_learns_the_same(build):
    """By the compiler's first stage, which needs no C++ compiler; with batch norms and with instance norms."""
    torch.manual_seed(0)
    plain, network = build(), build()
    network.load_state_dict(plain.state_dict())
    checkpoint_blocks(network)
    network.compile(backend="aot_eager")
    image = torch.randn(2, 1, 4, 4, 4)
    for each in (plain, network):
        each(image).square().sum().backward()
    for parameter, twin in zip(plain.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(twin.grad, parameter.grad)
    for (key, buffer), twin in zip(plain.named_buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(twin, buffer, msg=key)  # running statistics, counted once


def test_a_copy_of_a_checkpointed_network_runs_by_itself():
    for network in (TwoBlocks(), build_network("UNet", 1, 1, (4, 4, 4), channels=(2, 4))):
        checkpoint_blocks(network)
        copied = copy.deepcopy(network)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
        image = torch.randn(1, 1, 4, 4, 4)
        assert not copied(image).any() and network(image).any()


def test_nothing_is_run_twice_without_gradients():
    network = TwoBlocks()
    checkpoint_blocks(network)
    with torch.no_grad():
        network(torch.randn(1, 1, 4, 4, 4))
    assert network.blocks[0].calls == 1


def test_statistics_are_restored_where_a_block_fails():
    network = TwoBlocks()
    checkpoint_blocks(network)
    loss = network(torch.randn(1, 1, 4, 4, 4)).sum()

    def fail(*_):
        raise RuntimeError("out of memory")

    network.blocks[0].norm.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        loss.backward()
    assert network.blocks[0].norm.momentum == 0.1


def test_names_of_weights_stay_the_same():
    plain = build_network("UNet", 1, 1, (32, 32, 32))
    network = build_network("UNet", 1, 1, (32, 32, 32))
    checkpoint_blocks(network)
    assert list(network.state_dict()) == list(plain.state_dict())
