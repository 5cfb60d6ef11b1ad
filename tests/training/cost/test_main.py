from multiprocessing import get_context

import pytest
import torch

from prediction.checkpoints import NetworkSpec
from prediction.device import Device
from training.cost import measure
from training.cost.measure import LOSS, Measured, count_flops, count_parameters, measure_step
from training.cost.memory import GIB, gib_at_most, training_bytes
from training.steps.step_plan import StepPlan


def test_operations_by_hand():
    """Two levels: a strided 3³ convolution, one at half resolution, a transposed one on their skip."""
    spec = NetworkSpec("UNet", 1, 1, (32, 32, 32), {"channels": (4, 8)})
    down, bottom, up = 27 * 1 * 4 * 16**3, 27 * 4 * 8 * 16**3, 27 * 12 * 1 * 16**3
    assert count_flops(spec) == 2 * (down + bottom + up)
    norms = 2 * 4 + 2 * 8
    assert count_parameters(spec) == (27 * 4 + 4) + (27 * 4 * 8 + 8) + (27 * 12 + 1) + norms


def test_the_table_has_a_row_for_each_architecture(run_script, tmp_path):
    result = run_script("training/cost/__main__.py", "--model", "UNet", "AttentionUNet3D", cwd=tmp_path)
    header, line, unet, gated = result.stdout.splitlines()
    assert header.startswith("| architecture | parameters |") and set(line) == {"|", "-"}
    assert unet.startswith("| UNet | 1.98 M | 1.6 | 6.6 |") and gated.startswith("| AttentionUNet3D | 2.01 M |")
    assert len({text.count("|") for text in (header, line, unet, gated)}) == 1


def test_the_table_of_measured_steps_has_times_as_multiples_of_the_unets(run_script, tmp_path, monkeypatch):
    """Steps are made up here: half a GiB less and thrice the time with checkpointing; a gated network takes twice."""

    def measured(spec, plan, memory_gb=None):
        seconds = 2.0 * (2 if spec.name == "AttentionUNet3D" else 1) * (3 if plan.checkpointing else 1)
        return Measured(int(GIB * (1.0 if plan.checkpointing else 1.5)), seconds)

    monkeypatch.setattr("training.cost.measure.measure_step", measured)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    models = ("--model", "UNet", "AttentionUNet3D")
    result = run_script("training/cost/__main__.py", "--measure", *models, cwd=tmp_path)
    header, _, *rows = result.stdout.splitlines()
    assert header.count("|") == 8 and "4 GiB" in header
    assert rows == [
        "| UNet | 1.50 | 1 × UNet | 1.00 | 3 × UNet | not measured | not measured |",
        "| AttentionUNet3D | 1.50 | 2 × UNet | 1.00 | 6 × UNet | not measured | not measured |",
    ]


def test_an_unknown_architecture_is_one_line(run_script, tmp_path, assert_one_line_error):
    assert_one_line_error(run_script("training/cost/__main__.py", "--model", "VGG", cwd=tmp_path), "VGG")


# Python 3.12 warns of forks in a process with threads, as that of the tests is.
@pytest.mark.filterwarnings("ignore:This process")
def test_a_measured_step_stays_under_what_was_told(monkeypatch):
    """In a process that is forked, which need not import everything anew."""
    monkeypatch.setattr(measure, "get_context", lambda _: get_context("fork"))
    spec = NetworkSpec("UNet", 1, 1, (64, 64, 64))
    plan = StepPlan(Device(torch.device("cpu"), "fp32"), checkpointing=True)
    measured = measure_step(spec, plan)
    counted = training_bytes(spec.build(), spec, LOSS, plan)
    assert measured.seconds > 0
    assert 0.5 * counted < measured.peak_bytes < GIB * gib_at_most(counted, plan.device.torch_device)
