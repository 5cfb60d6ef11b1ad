"""Architectures against what they claim to be: libraries' networks, published sizes, torch's own attention."""

import math

import monai.networks.nets
import monai.networks.nets.mednext
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from networks import build_network
from networks.blocks.norms import norm_single_voxels
from networks.SegFormer3D import _SelfAttention


def randomised(network):
    """Norms and position codes start at 1 and 0, which would hide a wrong order."""
    for parameter in network.parameters():
        if parameter.dim() == 1 or float(parameter.detach().std()) < 0.05:
            nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize("channels", [(16, 32, 64, 128, 256), (4, 8, 16)])
def test_unet_is_monais_without_residual_units(channels):
    torch.manual_seed(0)
    ours = randomised(build_network("UNet", 2, 3, (32, 32, 32), channels=channels))
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


@pytest.mark.parametrize("name", ["MedNeXt", "UNet", "VNet"])
def test_a_single_voxel_at_the_bottom_is_taken(name):
    network = build_network(name, 1, 1, (16, 16, 16))
    network(torch.randn(1, 1, 16, 16, 16)).sum().backward()


@pytest.mark.parametrize("variant", ["S", "B", "M", "L"])
def test_mednext_is_monais(variant):
    sizes = {"kernel_size": 3, "deep_supervision": True}
    with torch.device("meta"):
        ours = build_network("MedNeXt", 1, 2, (16, 16, 16), variant=variant, **sizes).body
        theirs = monai.networks.nets.mednext.create_mednext(variant, 3, 1, 2, **sizes)
    norm_single_voxels(theirs)
    assert str(ours) == str(theirs)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


def test_swin_unetr_is_monais(monkeypatch):
    """Stages that are padded, shifted, or smaller than a window; few windows at a time; outputs and gradients."""
    monkeypatch.setattr("networks.SwinUNetR._SCORES_AT_ONCE", 3 * 343**2 * 20)
    torch.manual_seed(0)
    shape = (32, 32, 64)
    ours = randomised(build_network("SwinUNetR", 1, 2, shape, feature_size=12))
    theirs = monai.networks.nets.SwinUNETR(1, 2, feature_size=12)
    theirs.load_state_dict(ours.body.state_dict())
    with torch.no_grad():  # the second image's windows have the same regions as the first one's
        images = torch.randn(2, 1, 32, 32, 32)
        stages = [network(images) for network in (ours.body.swinViT, theirs.swinViT)]
    torch.testing.assert_close(*stages, atol=1e-4, rtol=0)
    image = torch.randn(1, 1, *shape)
    outputs = [network(image) for network in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=0)
    for output in outputs:
        output.square().mean().backward()
    for parameter, their_parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, their_parameter.grad, atol=1e-4, rtol=1e-3)


def test_unetr_is_monais():
    torch.manual_seed(0)
    sizes = {"feature_size": 4, "hidden_size": 48, "mlp_dim": 96}
    ours = randomised(build_network("UNetR", 1, 2, (32, 32, 64), **sizes))
    theirs = monai.networks.nets.UNETR(1, 2, (32, 32, 64), num_heads=12, **sizes)
    missing, unexpected = theirs.load_state_dict(ours.body.state_dict(), strict=False)
    assert not unexpected and all("norm_cross_attn" in key for key in missing)
    image = torch.randn(1, 1, 32, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-4, rtol=0)


def test_segformer3d_has_the_published_size():
    """4.525 M parameters, and 31.1 GFLOP at 128³ by torch's counter, as the authors' code has."""
    # Without content nothing is computed, and attention is counted, which a CPU computes in one uncounted kernel.
    with torch.device("meta"):
        network = build_network("SegFormer3D", 4, 3, (128, 128, 128))
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(4.525e6, rel=0.03)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 4, 128, 128, 128, device="meta"))
    assert counter.get_total_flops() == pytest.approx(31.1e9, rel=0.03)


def test_swin_unetr_has_the_published_size():
    network = build_network("SwinUNetR", 1, 1, (128, 128, 128), feature_size=48)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(62.2e6, rel=0.001)


@pytest.mark.parametrize(("dim", "heads"), [(32, 1), (160, 5)])
def test_segformer3d_attends_as_torch_does(dim, heads):
    torch.manual_seed(0)
    ours = _SelfAttention(dim, heads, reduction=1)
    theirs = nn.MultiheadAttention(dim, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        features_BXYZC = torch.randn(2, 2, 3, 4, dim)
        tokens_BNC = features_BXYZC.flatten(1, 3)
        expected, _ = theirs(tokens_BNC, tokens_BNC, tokens_BNC)
        torch.testing.assert_close(ours(features_BXYZC).flatten(1, 3), expected, atol=1e-5, rtol=0)


def test_segformer3d_attends_to_a_coarser_grid():
    """A strided convolution that averages: keys and values are those of the blocks' means."""
    torch.manual_seed(0)
    attention = _SelfAttention(4, 2, reduction=2)
    with torch.no_grad():
        attention.reduce.weight.zero_()
        attention.reduce.bias.zero_()
        for channel in range(4):
            attention.reduce.weight[channel, channel] = 1 / 8
        features_BXYZC = torch.randn(1, 2, 4, 2, 4)
        means = features_BXYZC.reshape(1, 1, 2, 2, 2, 1, 2, 4).mean(dim=(2, 4, 6))
        key, value = attention.key_value(nn.functional.layer_norm(means, (4,))).flatten(1, 3).chunk(2, -1)
        query = attention.query(features_BXYZC).flatten(1, 3)
        heads = []
        for head in (slice(0, 2), slice(2, 4)):
            scores = query[..., head] @ key[..., head].transpose(1, 2) / math.sqrt(2)
            heads.append(scores.softmax(-1) @ value[..., head])
        expected = attention.out(torch.cat(heads, -1)).reshape(features_BXYZC.shape)
        torch.testing.assert_close(attention(features_BXYZC), expected, atol=1e-5, rtol=0)


def test_segformer3d_treats_all_axes_alike():
    """A box that is no cube, turned together with the kernels, gives the answer turned."""
    torch.manual_seed(0)
    network = build_network("SegFormer3D", 1, 1, (32, 64, 96), embed_dims=(8, 8, 10, 16), decoder_dim=16).eval()
    turned = build_network("SegFormer3D", 1, 1, (96, 32, 64), embed_dims=(8, 8, 10, 16), decoder_dim=16).eval()
    turn = (0, 1, 4, 2, 3)
    weights = network.state_dict()
    turned.load_state_dict({key: w.permute(turn) if w.dim() == 5 else w for key, w in weights.items()})
    image = torch.randn(1, 1, 32, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(turned(image.permute(turn)), network(image).permute(turn), atol=1e-5, rtol=0)
