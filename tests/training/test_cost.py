import torch

from training.checkpoints import NetworkSpec
from training.compute import Compute
from training.measure import LOSS, count_flops, count_parameters, measure_step
from training.memory import GIB, gib_at_most, training_bytes


def test_operations_by_hand():
    """Two levels: a strided 3³ convolution, one at half resolution, a transposed one on their skip."""
    spec = NetworkSpec("UNet", 1, 1, (32, 32, 32), {"channels": (4, 8)})
    down, bottom, up = 27 * 1 * 4 * 16**3, 27 * 4 * 8 * 16**3, 27 * 12 * 1 * 16**3
    assert count_flops(spec) == 2 * (down + bottom + up)
    norms = 2 * 4 + 2 * 8
    assert count_parameters(spec) == (27 * 4 + 4) + (27 * 4 * 8 + 8) + (27 * 12 + 1) + norms


def test_the_table_has_a_row_for_each_architecture(run_script, tmp_path):
    result = run_script("training/cost.py", "--model", "UNet", "AttentionUNet3D", cwd=tmp_path)
    header, line, unet, gated = result.stdout.splitlines()
    assert header.startswith("| architecture | parameters |") and set(line) == {"|", "-"}
    assert unet.startswith("| UNet | 1.98 M | 1.6 | 6.6 |") and gated.startswith("| AttentionUNet3D | 2.01 M |")
    assert len({text.count("|") for text in (header, line, unet, gated)}) == 1


def test_an_unknown_architecture_is_one_line(run_script, tmp_path, assert_one_line_error):
    assert_one_line_error(run_script("training/cost.py", "--model", "VGG", cwd=tmp_path), "VGG")


def test_a_measured_step_stays_under_what_was_told():
    spec = NetworkSpec("SegFormer3D", 1, 1, (64, 64, 64))
    compute = Compute(torch.device("cpu"), "fp32", checkpointing=True)
    measured = measure_step(spec, compute)
    counted = training_bytes(spec.build(), spec, LOSS, compute)
    assert measured.seconds > 0
    assert 0.5 * counted < measured.peak_bytes < GIB * gib_at_most(counted, compute.device)
