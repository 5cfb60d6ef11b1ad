import warnings

import pytest
import torch

from training import compute
from training.compute import Compute, fastest_precision, find_compute
from verse_utils.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx2": True}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"bf16": True}, "bf16")],
)
def test_a_cpu_is_asked_whether_it_has_bf16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fastest_precision(CPU) == expected
    assert find_compute("cpu", "auto") == Compute(CPU, expected)


@pytest.mark.parametrize(("capability", "expected"), [((6, 1), "fp32"), ((7, 5), "fp16"), ((8, 6), "bf16")])
def test_a_gpu_is_asked_for_its_generation(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fastest_precision(CUDA) == expected


def test_emulated_bf16_is_warned_of(monkeypatch):
    monkeypatch.setattr(compute, "fastest_precision", lambda device: "fp32")
    with pytest.warns(UserWarning, match="emulates"):
        assert find_compute("cpu", "bf16").precision == "bf16"
    monkeypatch.setattr(compute, "fastest_precision", lambda device: "bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_compute("cpu", "bf16")


def test_what_cannot_be_had_is_refused():
    with pytest.raises(UserError, match="--precision fp16"):
        find_compute("cpu", "fp16")
    with pytest.raises(UserError, match="--device tpu"):
        find_compute("tpu", "fp32")


def test_autocast_does_what_it_says():
    weight = torch.ones(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with Compute(CPU, precision).autocast():
            assert (weight @ weight).dtype == dtype
