"""Contract of every architecture of the registry."""

import pytest
import torch

from networks import ARCHITECTURES, build_network
from networks.checkpointing import checkpoint_blocks
from prediction.checkpoints import NetworkSpec, load_weights, save_checkpoint
from training.scripts import expect_background

SHAPES = [(32, 32, 32), (32, 32, 64), (64, 64, 128)]
# Thin versions that have every part of the default ones; VNet comes in no thinner one.
THIN = {
    "AttentionUNet3D": {"channels": (4, 8, 8, 8, 8)},
    "MedNeXt": {"filters": 4},
    "ResEncUNet": {"channels": (4, 8, 8, 8, 8), "blocks": (1, 1, 1, 1, 1)},
    "SegFormer3D": {"embed_dims": (8, 8, 10, 16), "decoder_dim": 16},
    "SegResNet": {"init_filters": 8},
    "SwinUNetR": {"feature_size": 12, "window_size": 4},
    "UNet": {"channels": (4, 8, 8, 8, 8)},
    "UNetR": {"feature_size": 4, "hidden_size": 48, "mlp_dim": 48},
    "VNet": {},
}


def small_shape(name):
    """The smallest shape with axes of two lengths; test_references.py has it for SwinUNetR, the slowest."""
    return {"SegFormer3D": (32, 32, 64), "SwinUNetR": (32, 32, 32)}.get(name, (16, 16, 32))


def check_contract(name, shape, out_channels, batch_size, options, tmp_path):
    """Shape of the logits, finite gradients, the same ones with checkpointing, weights through a checkpoint file."""
    torch.manual_seed(0)
    network = build_network(name, 1, out_channels, shape, **options)
    with torch.no_grad():  # parameters that start at 0 or 1 would hide a wrong order
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    spec = NetworkSpec(name, 1, out_channels, shape, options)
    save_checkpoint(tmp_path / "a.pt", spec, network.state_dict(), {"task": "segmentation"})
    other = build_network(name, 1, out_channels, shape, **options)
    load_weights(tmp_path / "a.pt", spec, other)
    checkpoint_blocks(other)

    image = torch.randn(batch_size, 1, *shape)
    for each in (network, other):
        torch.manual_seed(1)  # dropout
        logits = each(image)
        assert logits.shape == (batch_size, out_channels, *shape)
        assert logits.min() < 0 or logits.max() > 1  # no activation
        logits.square().mean().backward()
    for (key, parameter), twin in zip(network.named_parameters(), other.parameters(), strict=True):
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        torch.testing.assert_close(twin.grad, parameter.grad, atol=1e-4, rtol=1e-4)
    for (key, buffer), twin in zip(network.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(twin, buffer, msg=key)  # running statistics, once a step
    network.eval(), other.eval()
    with torch.no_grad():
        torch.testing.assert_close(other(image), network(image))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_contract(name, tmp_path):
    """Other shapes and numbers of outputs and images are seen at full width, among the slow tests."""
    check_contract(name, small_shape(name), 3 if THIN[name] else 1, 1, THIN[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("out_channels", "batch_size"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_contract_at_full_width(name, shape, out_channels, batch_size, tmp_path):
    check_contract(name, shape, out_channels, batch_size, {}, tmp_path)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_of_a_batch_are_apart_except_with_batch_norm(name):
    """In training, without dropout."""
    torch.manual_seed(0)
    network = build_network(name, 1, 1, small_shape(name), **THIN[name])
    for module in network.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
    images = torch.randn(2, 1, *small_shape(name)) * torch.tensor([1.0, 4.0]).reshape(2, 1, 1, 1, 1)
    with torch.no_grad():
        together, apart = network(images), torch.cat([network(image[None]) for image in images])
    assert torch.allclose(together, apart, atol=1e-4) is not network.norms_by_batch()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_fresh_network_answers_background(name):
    torch.manual_seed(0)
    network = build_network(name, 1, 1, small_shape(name), **THIN[name])
    expect_background(network, 1)
    with torch.no_grad():
        assert torch.sigmoid(network(torch.randn(1, 1, *small_shape(name)))).mean() < 0.05


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_bad_shape_names_axis_size_and_divisor(name):
    with pytest.raises(ValueError, match=r"axis Y .*32×33×64 .*33 voxels.*multiple of \d+$"):
        build_network(name, 1, 1, (32, 33, 64), **THIN[name])
    network = build_network(name, 1, 1, (32, 32, 32), **THIN[name])
    with pytest.raises(ValueError, match="axis Z"):
        network(torch.zeros(1, 1, 32, 32, 33))


def test_unetr_takes_only_the_shape_it_was_built_for():
    network = build_network("UNetR", 1, 1, (32, 32, 32), **THIN["UNetR"])
    with pytest.raises(ValueError, match=r"\(32, 32, 64\) is not \(32, 32, 32\)"):
        network(torch.zeros(1, 1, 32, 32, 64))


@pytest.mark.parametrize("shape", [(8, 24, 40), (40, 32, 24)], ids=str)
def test_a_network_takes_another_shape_than_its_first(shape):
    network = build_network("SegResNet", 1, 1, (16, 16, 16), init_filters=8).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *shape)).shape[2:] == shape


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {}, r"no architecture 'unet'; there are .*UNet"),
        ("UNet", {"depth": 3}, r"no option 'depth'; the options of UNet are channels=\(16, 32"),
        ("UNet", {"channels": (4,)}, "two or more"),
        ("UNet", {"channels": 8}, r"channels=8 is not of the kind of its default \(16, 32"),
        ("UNet", {"channels": (8, "x")}, "not of the kind"),
        ("SwinUNetR", {"feature_size": 24.5}, "not of the kind"),
        ("SwinUNetR", {"feature_size": 20}, "divisible by 12"),
        ("SwinUNetR", {"use_v2": 1}, "not of the kind"),
        ("SegFormer3D", {"num_heads": (1, 2, 3, 8)}, r"num_heads \(1, 2, 3, 8\) must divide"),
        ("SegFormer3D", {"depths": (1, 1)}, "4 values each"),
        ("MedNeXt", {"variant": "XL"}, "XL"),
        ("MedNeXt", {"filters": 0}, "filters 0 positive"),
        ("SegResNet", {"blocks_up": (1, 1)}, "one level fewer"),
        ("SegResNet", {"init_filters": 12}, "divisible by num_groups"),
        ("ResEncUNet", {"blocks": (1, 1)}, "equally many"),
        ("UNetR", {"num_heads": 7}, "divisible"),
        ("VNet", {"dropout": True}, "not of the kind"),
        ("SwinUNetR", {"num_heads": (3, 6, 12)}, "can't be built with"),
    ],
)
def test_wrong_plans_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_network(name, 1, 1, (32, 32, 32), **options)


def test_channels_must_be_positive():
    with pytest.raises(ValueError, match="must be positive"):
        build_network("UNet", 1, 0, (32, 32, 32))


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("MedNeXt", (16, 16, 32), {"filters": 4}),
        ("ResEncUNet", (32, 32, 32), {"channels": (4, 8, 8, 8, 8, 8), "blocks": (1, 1, 1, 1, 1, 1)}),
    ],
)
def test_deep_supervision_gives_coarser_logits_in_training_alone(name, shape, options):
    network = build_network(name, 1, 2, shape, deep_supervision=True, **options)
    image = torch.randn(1, 1, *shape)
    levels = network(image)
    assert [level.shape[4] for level in levels] == [32, 16, 8, 4, 2][: len(levels)] and len(levels) >= 3
    assert len(list(network.heads())) == len(levels)
    sum(level.square().mean() for level in levels).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    with torch.no_grad():
        assert network(image).shape == (1, 2, *shape)


@pytest.mark.parametrize(("classes", "slabs"), [(27, 7), (2, 1)])
def test_logits_are_the_same_in_slabs(classes, slabs):
    """Of many classes, 52 planes are six slabs of eight and one of four."""
    torch.manual_seed(0)
    network = build_network("UNet", 1, classes, (16, 16, 52), channels=(4, 8)).eval()
    image = torch.randn(1, 1, 16, 16, 52)
    with torch.inference_mode():
        in_slabs = list(network.logits_in_slabs(image))
        torch.testing.assert_close(torch.cat(in_slabs, dim=-1), network(image), rtol=1e-5, atol=1e-6)
    assert len(in_slabs) == slabs
