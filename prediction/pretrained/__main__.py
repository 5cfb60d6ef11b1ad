"""Make the networks that come with the project: of runs, the weights in 16 bit.

python -m prediction.pretrained --segmentation_model RUN --heatmap_model RUN --output FOLDER

Of several runs that went on from the same weights, the mean of their weights: --segmentation_model RUN RUN.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from prediction.checkpoints import find_checkpoint, load_checkpoint_of, save_checkpoint
from prediction.options import Options
from prediction.pretrained import PRETRAINED, pretrained_checkpoint
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


def make_pretrained(task: Task, chosen: Sequence[Path], runs: Path, output: Path, labels: str = Options.labels) -> Path:
    """Write the best network of a run, or the mean of several, without what only training needs: float16, no paths.

    The mean of the weights of networks that were trained on from the same weights is often better than each of them
    (Wortsman et al. 2022, "Model soups", arXiv:2203.05482), at the cost of one.

    Args:
        task: that they must have been trained for.
        chosen: one or more checkpoint files, run folders or names of runs. Settings are those of the last.
        runs: folder of the runs, for names.
        output: folder to write to.
        labels: of ``Options``, for which it is.

    Returns:
        The file.

    Raises:
        UserError: no checkpoint of the task, one with other labels, one with another network or input than the last, or
            it can't be written.
    """
    (wanted,) = (trained for of, use, trained in _NETWORKS.values() if (of, use) == (task, labels))
    contents = [load_checkpoint_of(task, find_checkpoint(run, runs, task)) for run in chosen]
    last = contents[-1]
    for run, content in zip(chosen, contents, strict=True):
        learnt = content["settings"].get("labels", "binary")
        if learnt != wanted:
            raise UserError(f"{run}: was trained with --labels {learnt}; give a run of --labels {wanted}")
        if (content["network"], content["input"]) != (last["network"], last["input"]):
            raise UserError(
                f"{run}: has another network or input than {chosen[-1]}; give runs that went on from the same weights"
            )
    weights = {name: _mean_in_16_bit([content["weights"][name] for content in contents]) for name in last["weights"]}
    left_out = {*PLACE_AND_MACHINE, "init_from"}
    settings = {name: value for name, value in last["settings"].items() if name not in left_out}
    path = pretrained_checkpoint(task, labels, output)
    settings["model_name"] = PRETRAINED
    save_checkpoint(path, last["network"], weights, settings, input=last["input"])
    return path


def _mean_in_16_bit(tensors: list[Tensor]) -> Tensor:
    """What isn't floating point, as counts of batches, is the last one's."""
    return torch.stack(tensors).mean(dim=0).half() if tensors[-1].is_floating_point() else tensors[-1]


@command
def main() -> None:
    """Write the files and print their sizes."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument, (task, _, trained) in _NETWORKS.items():
        text = f"run of the {task.network_name} of --labels {trained}; of several, the mean of their weights"
        parser.add_argument(argument, type=Path, nargs="+", metavar="RUN", help=text)
    parser.add_argument("--runs", type=Path, default=RUNS_FOLDER, help="folder in which names of runs are looked up")
    parser.add_argument("--output", type=Path, required=True, help="folder of the files")
    arguments = parser.parse_args()
    chosen = {argument: getattr(arguments, argument.removeprefix("--")) for argument in _NETWORKS}
    if not any(chosen.values()):
        parser.error(f"name a run: {' or '.join(_NETWORKS)}")
    for argument, (task, labels, _) in _NETWORKS.items():
        if chosen[argument]:
            path = make_pretrained(task, chosen[argument], arguments.runs, arguments.output, labels)
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
