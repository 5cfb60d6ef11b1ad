from dataclasses import replace

import pytest
import torch

from metrics.losses import DeepSupervision, DiceCE
from networks.checkpointing import checkpoint_blocks
from prediction.checkpoints import NetworkSpec
from prediction.device import Device
from training.cost import memory
from training.cost.memory import GIB, fit_memory, limit_memory, training_bytes
from training.settings import OPTIMIZERS, TrainingSettings
from training.steps.optimizer import build_optimizer
from training.steps.step_plan import StepPlan
from utils.tasks import SEGMENTATION
from verse_utils.errors import UserError

LOSS = DeepSupervision(DiceCE())
CPU = StepPlan(Device(torch.device("cpu"), "fp32"))
UNET = NetworkSpec("UNet", 1, 1, (64, 64, 64))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("UNet", {"channels": (8, 16, 32)}),
        pytest.param("SegFormer3D", {}, marks=pytest.mark.slow),
        pytest.param("SwinUNetR", {"feature_size": 12}, marks=pytest.mark.slow),
        ("ResEncUNet", {"channels": (8, 16, 32), "blocks": (1, 1, 1), "deep_supervision": True}),
    ],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_without_content_takes_what_a_real_one_takes(name, options, checkpointing):
    shape = (32, 32, 64)
    spec = NetworkSpec(name, 1, 1, shape, options)
    plan = replace(CPU, checkpointing=checkpointing, batch_size=2)
    network = spec.build()
    if checkpointing:
        checkpoint_blocks(network)
    with memory._LiveBytes() as live:
        for tensor in [*network.parameters(), *network.buffers()]:
            live.count(tensor)
        LOSS(network(torch.zeros(2, 1, *shape)), torch.zeros(2, 1, *shape)).backward()
    optimizer = OPTIMIZERS["prodigy"].copies * sum(4 * parameter.numel() for parameter in network.parameters())
    assert training_bytes(spec.build(), spec, LOSS, plan) == pytest.approx(live.peak + optimizer, rel=0.02)


def test_live_bytes_are_counted_by_hand():
    with memory._LiveBytes() as live:
        first = torch.zeros(256)
        second = first + 1  # both live: 2048 bytes
        view = second.view(16, 16)  # no bytes of its own
        del first
        third = view * 2  # in place of the first
        assert live.live == live.peak == 2048
        del second, view, third
    assert live.live == 0 and live.peak == 2048


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_keeps_as_much_as_is_counted(name):
    network = UNET.build()
    settings = TrainingSettings(SEGMENTATION, (), "", optimizer=name, input_shape=UNET.input_shape, loss="DiceCE")
    optimizer = build_optimizer(network, settings)
    network(torch.randn(1, 1, 64, 64, 64)).sum().backward()
    optimizer.step()
    kept = sum(v.numel() for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor))
    weights = sum(p.numel() for p in network.parameters())
    assert kept == pytest.approx(OPTIMIZERS[name].copies * weights, rel=0.01)
    plain, counted = (training_bytes(network, UNET, LOSS, CPU, each) for each in ("sgd", name))
    assert counted - plain == (OPTIMIZERS[name].copies - 1) * 4 * weights


def test_checkpointing_and_narrow_numbers_take_less():
    spec = NetworkSpec("SegResNet", 1, 1, (64, 64, 64), {"blocks_down": (1, 1, 1), "blocks_up": (1, 1)})
    network = spec.build()
    needed = {
        (precision, checkpointing): training_bytes(
            network, spec, LOSS, StepPlan(Device(CPU.device.torch_device, precision), checkpointing)
        )
        for precision in ("fp32", "bf16")
        for checkpointing in (False, True)
    }
    assert needed["fp32", True] < 0.8 * needed["fp32", False]
    assert needed["bf16", False] < 0.8 * needed["fp32", False]
    assert needed["bf16", True] == min(needed.values())


def test_counting_draws_no_random_numbers():
    network = UNET.build()
    before = torch.get_rng_state()
    training_bytes(network, UNET, LOSS, CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fastest", ["fp32", "bf16"])
def test_the_fastest_way_that_fits_is_taken(monkeypatch, fastest):
    """Sizes are made up here: a GiB a patch, twice that in fp32, thrice that without checkpointing."""
    monkeypatch.setattr(memory, "fastest_precision", lambda device: fastest)

    def bytes_of(network, spec, loss, way, optimizer):
        return GIB * way.batch_size * (2 if way.device.precision == "fp32" else 1) * (1 if way.checkpointing else 3)

    monkeypatch.setattr(memory, "training_bytes", bytes_of)
    monkeypatch.setattr(memory, "gib_at_most", lambda counted, device: counted / GIB)
    asked = replace(CPU, batch_size=4, accumulate=2)

    def found(memory_gb):
        way, gib = fit_memory(UNET.build(), UNET, LOSS, asked, memory_gb)
        assert gib <= memory_gb
        return way.device.precision, way.checkpointing, way.batch_size, way.accumulate

    assert found(24) == ("fp32", False, 4, 2)
    assert found(6) == ("fp32", False, 1, 8)
    assert found(3) == (("fp32", True, 1, 8) if fastest == "fp32" else ("bf16", False, 1, 8))
    assert found(1) == ("bf16", True, 1, 8)
    with pytest.raises(UserError, match=r"--memory_gb 0\.5: UNet .* needs 1\.0 GiB even with bf16 and checkpointing"):
        fit_memory(UNET.build(), UNET, LOSS, asked, 0.5)


def test_a_batch_that_is_normed_together_stays_together(monkeypatch):
    monkeypatch.setattr(memory, "training_bytes", lambda network, spec, loss, way, optimizer: GIB * way.batch_size)
    spec = NetworkSpec("SegFormer3D", 1, 1, (32, 32, 32), {"embed_dims": (8, 8, 10, 16), "decoder_dim": 16})
    with pytest.raises(UserError, match="a smaller --input_shape or --batch_size, another --model"):
        fit_memory(spec.build(), spec, LOSS, replace(CPU, batch_size=4), 2)


def test_what_was_asked_for_is_kept():
    asked = StepPlan(Device(torch.device("cpu"), "bf16"), checkpointing=True)
    assert fit_memory(UNET.build(), UNET, LOSS, asked, 4)[0] == asked


@pytest.mark.parametrize(
    "name", ["UNet", "AttentionUNet3D", "SegFormer3D", pytest.param("SwinUNetR", marks=pytest.mark.slow)]
)
def test_four_gib_hold_the_four_at_128(name, monkeypatch):
    """On a GPU that computes in 16 bit, by count and a tenth more; SwinUNetR with the paper's feature size."""
    monkeypatch.setattr(memory, "fastest_precision", lambda device: "fp16")
    cuda = StepPlan(Device(torch.device("cuda"), "fp32"))
    spec = NetworkSpec(name, 1, 1, (128, 128, 128))
    way, gib = fit_memory(spec.build(), spec, LOSS, cuda, 4)
    assert gib <= 4
    assert way == (StepPlan(Device(torch.device("cuda"), "fp16"), checkpointing=True) if name == "SwinUNetR" else cuda)


@pytest.mark.parametrize(
    ("memory_gb", "error", "words"),
    [
        (None, torch.OutOfMemoryError("CUDA out of memory"), "add --memory_gb"),
        (4.0, torch.OutOfMemoryError("CUDA out of memory"), "lower --memory_gb"),
        (None, RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "add --memory_gb"),
        (None, MemoryError("Unable to allocate 7.45 TiB"), "add --memory_gb"),
    ],
)
def test_too_little_memory_is_said_in_a_line(memory_gb, error, words):
    complaint = f"UNet .* memory on cpu was not enough; {words}"
    with pytest.raises(UserError, match=complaint), limit_memory(UNET, CPU.device.torch_device, memory_gb):
        raise error
    with pytest.raises(RuntimeError, match="a bug"), limit_memory(UNET, CPU.device.torch_device, memory_gb):
        raise RuntimeError("a bug")
