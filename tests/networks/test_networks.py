"""Contract of every architecture of the registry, and UNet against its counterpart in MONAI."""

import monai.networks.nets
import pytest
import torch

from networks import ARCHITECTURES, build_network
from training.checkpoints import NetworkSpec, load_weights, save_checkpoint

SHAPES = [(32, 32, 32), (32, 32, 64)]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("out_channels", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_contract(name, shape, out_channels, batch_size, tmp_path):
    torch.manual_seed(0)
    network = build_network(name, 1, out_channels, shape)
    image = torch.randn(batch_size, 1, *shape)
    logits = network(image)
    assert logits.shape == (batch_size, out_channels, *shape)
    logits.square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
    spec = NetworkSpec(name, 1, out_channels, shape)
    save_checkpoint(tmp_path / "a.pt", spec, network, {})
    other = build_network(name, 1, out_channels, shape)
    load_weights(tmp_path / "a.pt", spec, other)
    network.eval(), other.eval()
    with torch.no_grad():
        torch.testing.assert_close(other(image), network(image))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_not_activated(name):
    torch.manual_seed(0)
    network = build_network(name, 1, 1, (32, 32, 32))
    logits = network(torch.randn(1, 1, 32, 32, 32) * 3)
    assert logits.min() < 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_bad_shape_names_axis_size_and_divisor(name):
    with pytest.raises(ValueError, match=r"axis Y .*32×33×64 .*33 voxels.*multiple of 16"):
        build_network(name, 1, 1, (32, 33, 64))
    network = build_network(name, 1, 1, (32, 32, 32))
    with pytest.raises(ValueError, match="axis Z"):
        network(torch.zeros(1, 1, 32, 32, 40))


def test_wrong_plans_are_refused():
    with pytest.raises(ValueError, match=r"no architecture 'unet'; there are .*UNet"):
        build_network("unet", 1, 1, (32, 32, 32))
    with pytest.raises(ValueError, match="depth"):
        build_network("UNet", 1, 1, (32, 32, 32), depth=3)
    with pytest.raises(ValueError, match="two or more"):
        build_network("UNet", 1, 1, (32, 32, 32), channels=(4,))
    with pytest.raises(ValueError, match="must be positive"):
        build_network("UNet", 1, 0, (32, 32, 32))


@pytest.mark.parametrize("channels", [(16, 32, 64, 128, 256), (4, 8, 16)])
def test_unet_is_monais_without_residual_units(channels):
    torch.manual_seed(0)
    ours = build_network("UNet", 2, 3, (32, 32, 32), channels=channels)
    theirs = monai.networks.nets.UNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=3,
        channels=channels,
        strides=[2] * (len(channels) - 1),
        num_res_units=0,
        act=("leakyrelu", {"negative_slope": 0.01}),
        norm=("instance", {"affine": True}),
    )
    for parameter in ours.parameters():
        if parameter.dim() == 1:  # norms start at 1 and 0, which would hide a wrong order
            torch.nn.init.normal_(parameter)
    weights, their_weights = ours.state_dict(), theirs.state_dict()
    assert [v.shape for v in weights.values()] == [v.shape for v in their_weights.values()]
    theirs.load_state_dict(dict(zip(their_weights, weights.values(), strict=True)))
    image = torch.randn(2, 2, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-4, rtol=0)


def test_attention_gates_scale_the_skips():
    """With its gates open, AttentionUNet3D is UNet."""
    torch.manual_seed(0)
    gated = build_network("AttentionUNet3D", 1, 1, (32, 32, 32))
    plain = build_network("UNet", 1, 1, (32, 32, 32))
    plain.load_state_dict({key: value for key, value in gated.state_dict().items() if "gate" not in key})
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert (gated(image) - plain(image)).abs().max() > 1e-3
        for gate in gated.gate:
            gate.weight.weight.zero_()
            gate.weight.bias.fill_(50.0)
        torch.testing.assert_close(gated(image), plain(image))
