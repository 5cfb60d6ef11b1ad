import logging
import shutil
import warnings

import pytest
import torch

from networks import build_network
from networks.checkpointing import checkpoint_blocks
from prediction import device
from prediction.device import Device, compile_network, fastest_precision, find_device
from verse_utils.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx2": True}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"bf16": True}, "bf16")],
)
def test_a_cpu_is_asked_whether_it_has_bf16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fastest_precision(CPU) == expected
    assert find_device("cpu", "auto") == Device(CPU, expected)


@pytest.mark.parametrize(("capability", "expected"), [((6, 1), "fp32"), ((7, 5), "fp16"), ((8, 6), "bf16")])
def test_a_gpu_is_asked_for_its_generation(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fastest_precision(CUDA) == expected


def test_emulated_bf16_is_warned_of(monkeypatch):
    monkeypatch.setattr(device, "fastest_precision", lambda device: "fp32")
    with pytest.warns(UserWarning, match="emulates"):
        assert find_device("cpu", "bf16").precision == "bf16"
    monkeypatch.setattr(device, "fastest_precision", lambda device: "bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_device("cpu", "bf16")


def test_what_cannot_be_had_is_refused():
    with pytest.raises(UserError, match="--precision fp16"):
        find_device("cpu", "fp16")
    for name in ("tpu", "meta"):
        with pytest.raises(UserError, match=f"--device {name}"):
            find_device(name, "fp32")


def test_autocast_does_what_it_says():
    weight = torch.ones(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with Device(CPU, precision).autocast():
            assert (weight @ weight).dtype == dtype


def test_no_compiler_is_said_in_a_line(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    network = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"^--compile: .* for cpu \(.*\); install a C\+\+ compiler, or"):
        compile_network(network, Device(CPU, "fp32"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_network_computes_the_same_under_the_same_names(checkpointing):
    torch.manual_seed(0)
    plain, compiled = (build_network("UNet", 1, 1, (16, 16, 16), channels=(2, 4)) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    if checkpointing:
        checkpoint_blocks(compiled)
    compile_network(compiled, Device(CPU, "fp32"))
    image = torch.randn(1, 1, 16, 16, 16)
    logits = [network(image) for network in (plain, compiled)]
    torch.testing.assert_close(*logits)
    for each in logits:
        each.square().mean().backward()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for parameter, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6)
