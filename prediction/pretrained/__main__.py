"""Make the networks that come with the project: of runs, the weights in 16 bit.

python -m prediction.pretrained --segmentation_model RUN --heatmap_model RUN [--names_model RUN]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from prediction.checkpoints import find_checkpoint, load_checkpoint_of, save_checkpoint
from prediction.pretrained import FOLDER, PRETRAINED, pretrained_checkpoint, pretrained_names
from utils.files.run_folder import PLACE_AND_MACHINE, RUNS_FOLDER
from utils.misc import OneLineParser, command
from utils.tasks import HEATMAP, TASKS, Task
from verse_utils.errors import UserError


def make_pretrained(task: Task, run: Path, runs: Path, output: Path, names: bool = False) -> Path:
    """Write the best network of a run without what only its training needs: weights in float16, no paths.

    Args:
        task: that it must have been trained for.
        run: checkpoint file, run folder or name of a run.
        runs: folder of the runs, for names.
        output: folder to write to.
        names: whether it must be a localiser that names vertebrae; else it must be none.

    Returns:
        The file.

    Raises:
        UserError: no checkpoint of the task, or it can't be written.
    """
    content = load_checkpoint_of(task, find_checkpoint(run, runs, task))
    if task is HEATMAP and names != (content["settings"].get("labels") == "vertebrae"):
        remedy = (
            "names no vertebrae; train it with --labels vertebrae"
            if names
            else "names vertebrae; give it as --names_model"
        )
        raise UserError(f"{run}: {remedy}")
    weights = {name: _in_16_bit(tensor) for name, tensor in content["weights"].items()}
    left_out = {*PLACE_AND_MACHINE, "init_from"}
    settings = {name: value for name, value in content["settings"].items() if name not in left_out}
    path = pretrained_names(output) if names else pretrained_checkpoint(task, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    settings["model_name"] = PRETRAINED
    save_checkpoint(path, content["network"], weights, settings, input=content["input"])
    return path


def _in_16_bit(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


@command
def main() -> None:
    """Write the files and print their sizes."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for task in TASKS.values():
        text = f"run of the {task.network_name}"
        parser.add_argument(task.model_argument, type=Path, required=True, metavar="RUN", help=text)
    names_help = "run of a localiser that names vertebrae"
    parser.add_argument("--names_model", type=Path, metavar="RUN", help=names_help)
    parser.add_argument("--runs", type=Path, default=RUNS_FOLDER, help="folder in which names of runs are looked up")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the files")
    arguments = parser.parse_args()
    wanted = [(task, getattr(arguments, task.model_argument.removeprefix("--")), False) for task in TASKS.values()]
    if arguments.names_model is not None:
        wanted.append((HEATMAP, arguments.names_model, True))
    for task, run, names in wanted:
        path = make_pretrained(task, run, arguments.runs, arguments.output, names)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
