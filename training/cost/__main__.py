"""A table of what each architecture costs: python -m training.cost [--measure]."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from networks import ARCHITECTURES
from utils.constants import HEATMAP_SHAPE, SEGMENTATION_SHAPE
from utils.misc import OneLineParser, command

if TYPE_CHECKING:
    from prediction.checkpoints import NetworkSpec

COUNTED = ("parameters", "GFLOP at 64×64×128", "GFLOP at 128³", "GiB: fp32", "checkpointing", "16 bit", "both")
MEASURED = ("CPU: GiB", "time", "CPU, checkpointing: GiB", "time", "CUDA, {memory_gb:g} GiB: GiB", "s")


@command
def main() -> None:
    """Print counted costs or, with ``--measure``, measured costs of training steps at 128×128×128."""
    parser = OneLineParser(
        description="Print what architectures cost: parameters, operations of a forward pass, memory of a training "
        "step at 128×128×128 with one patch; or measure such steps on this machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = sorted(ARCHITECTURES)
    parser.add_argument("--model", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--measure", action="store_true", help="run steps here instead; minutes each on a CPU")
    parser.add_argument("--memory_gb", type=float, default=4, help="GiB to stay under where CUDA is measured")
    arguments = parser.parse_args()
    from prediction.checkpoints import NetworkSpec

    specs = [NetworkSpec(name, 1, 1, SEGMENTATION_SHAPE) for name in arguments.model]
    if arguments.measure:
        columns = [column.format(memory_gb=arguments.memory_gb) for column in MEASURED]
        unit = NetworkSpec("UNet", 1, 1, SEGMENTATION_SHAPE)
        print_table(columns, measured_rows(specs, unit, arguments.memory_gb))
    else:
        print_table(COUNTED, (counted_row(spec) for spec in specs))


def counted_row(spec: NetworkSpec) -> list[str]:
    """The columns of ``COUNTED``; nothing is run."""
    import torch

    from prediction.device import Device
    from training.cost.measure import LOSS, count_flops, count_parameters
    from training.cost.memory import GIB, training_bytes
    from training.steps.step_plan import StepPlan

    ways = [
        StepPlan(Device(torch.device("cpu"), precision), checkpointing)
        for precision in ("fp32", "bf16")
        for checkpointing in (False, True)
    ]
    network = spec.build()
    return [
        spec.name,
        f"{count_parameters(spec) / 1e6:.2f} M",
        f"{count_flops(replace(spec, input_shape=HEATMAP_SHAPE)) / 1e9:.1f}",
        f"{count_flops(spec) / 1e9:.1f}",
        *(f"{training_bytes(network, spec, LOSS, way) / GIB:.2f}" for way in ways),
    ]


def measured_rows(specs: list[NetworkSpec], unit: NetworkSpec, memory_gb: float) -> Iterator[list[str]]:
    """The columns of ``MEASURED``: fp32 on a CPU, where times are multiples of ``unit``'s; on CUDA what fits."""
    import torch

    from prediction.device import Device
    from training.cost.measure import LOSS, measure_step
    from training.cost.memory import GIB, fit_memory
    from training.steps.step_plan import StepPlan

    cpu, cuda = (StepPlan(Device(torch.device(device), "fp32")) for device in ("cpu", "cuda"))
    unit_seconds = measure_step(unit, cpu).seconds
    for spec in specs:
        row = [spec.name]
        for checkpointing in (False, True):
            step = measure_step(spec, replace(cpu, checkpointing=checkpointing))
            row += [f"{step.peak_bytes / GIB:.2f}", f"{step.seconds / unit_seconds:.3g} × {unit.name}"]
        if torch.cuda.is_available():
            way, _ = fit_memory(spec.build(), spec, LOSS, cuda, memory_gb)
            step = measure_step(spec, way, memory_gb)
            row += [f"{step.peak_bytes / GIB:.2f}", f"{step.seconds:.3g}"]
        yield row + ["not measured"] * (1 + len(MEASURED) - len(row))


def print_table(columns: Iterable[str], rows: Iterable[list[str]]) -> None:
    """Print a Markdown table, each row as soon as it is known."""
    header = ["architecture", *columns]
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
