"""Make the networks that come with the project: of runs, the weights in 16 bit.

python -m prediction.pretrained --segmentation_model RUN --heatmap_model RUN --single_model RUN --names_model RUN
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from prediction.checkpoints import find_checkpoint, load_checkpoint_of, save_checkpoint
from prediction.options import Options
from prediction.pretrained import FOLDER, PRETRAINED, pretrained_checkpoint
from utils.files.run_folder import PLACE_AND_MACHINE, RUNS_FOLDER
from utils.misc import OneLineParser, command
from utils.tasks import HEATMAP, SEGMENTATION, Task
from verse_utils.errors import UserError

# Argument -> task and Options.labels that a network is for, and the --labels that it was trained with.
_NETWORKS = {
    "--heatmap_model": (HEATMAP, "segmenter", "binary"),
    "--segmentation_model": (SEGMENTATION, "segmenter", "binary"),
    "--names_model": (HEATMAP, "vertebrae", "vertebrae"),
    "--single_model": (SEGMENTATION, "vertebrae", "single"),
}


def make_pretrained(task: Task, run: Path, runs: Path, output: Path, labels: str = Options.labels) -> Path:
    """Write the best network of a run without what only its training needs: weights in float16, no paths.

    Args:
        task: that it must have been trained for.
        run: checkpoint file, run folder or name of a run.
        runs: folder of the runs, for names.
        output: folder to write to.
        labels: of ``Options``, for which it is.

    Returns:
        The file.

    Raises:
        UserError: no checkpoint of the task, one with other labels, or it can't be written.
    """
    content = load_checkpoint_of(task, find_checkpoint(run, runs, task))
    learnt = content["settings"].get("labels", "binary")
    (wanted,) = (trained for of, use, trained in _NETWORKS.values() if (of, use) == (task, labels))
    if learnt != wanted:
        raise UserError(f"{run}: was trained with --labels {learnt}; give a run of --labels {wanted}")
    weights = {name: _in_16_bit(tensor) for name, tensor in content["weights"].items()}
    left_out = {*PLACE_AND_MACHINE, "init_from"}
    settings = {name: value for name, value in content["settings"].items() if name not in left_out}
    path = pretrained_checkpoint(task, labels, output)
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
    for argument, (task, _, trained) in _NETWORKS.items():
        text = f"run of the {task.network_name} of --labels {trained}"
        parser.add_argument(argument, type=Path, metavar="RUN", help=text)
    parser.add_argument("--runs", type=Path, default=RUNS_FOLDER, help="folder in which names of runs are looked up")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the files")
    arguments = parser.parse_args()
    for argument, (task, labels, _) in _NETWORKS.items():
        run = getattr(arguments, argument.removeprefix("--"))
        if run is not None:
            path = make_pretrained(task, run, arguments.runs, arguments.output, labels)
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
