"""The command line that the settings of a training run are read from."""

from __future__ import annotations

import argparse
import ast
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from networks import ARCHITECTURES
from prediction.options import POSTPROCESSING
from prediction.pretrained import PRETRAINED
from training.config_file import parse_with_settings, read_settings
from training.settings import HEATMAP_LOSSES, OPTIMIZERS, TEST_OPTIONS, TrainingSettings
from utils.constants import AUGMENTATIONS, HEATMAP_SIGMA_VOX
from utils.files.run_folder import PLACE_AND_MACHINE, RunFolder, find_run_folder
from utils.misc import OneLineParser, parse_bool
from utils.preprocessing_settings import is_h5
from utils.tasks import HEATMAP, Task
from verse_utils.editions import add_edition_argument
from verse_utils.errors import UserError, one_line
from verse_utils.labels import LABEL_SCHEMES, read_labels
from verse_utils.splits import Fold

PRECISIONS = ("fp32", "bf16", "fp16", "auto")
SCHEDULES = ("cosine", "poly", "constant")


def parse_arguments(task: Task, argv: list[str] | None = None) -> TrainingSettings:
    """Read the command line of a task's training script.

    If they are not given, the localiser's ``--input_shape`` is read from the H5, and ``--lr`` and ``--weight_decay``
    are those of the optimizer. With ``--config`` or ``--test_only``, what is not given is that of another run, or of
    the run that is tested; with ``--init_from``, architecture and options are those of the network there.

    Raises:
        UserError: a value is wrong, or the H5 or the other settings can't be read.

    Warns:
        UserWarning: a learning rate that the optimizer is not used with.
    """
    values = vars(_parse(task, sys.argv[1:] if argv is None else argv))
    values["model_args"] = _parse_model_args(values["model_args"])
    values["data_path"] = tuple(values["data_path"])
    values["input_shape"] = tuple(values["input_shape"] or _view_shape(task, values["data_path"][0]))
    for name in ("lr", "weight_decay"):
        if values[name] is None:
            values[name] = getattr(OPTIMIZERS[values["optimizer"]], name)
    if values["loss"] is None:
        values["loss"] = HEATMAP_LOSSES[values["labels"]]
    settings = TrainingSettings(task=task, **values)
    _check(settings)
    return settings


def _parse(task: Task, argv: Sequence[str]) -> argparse.Namespace:
    """The values of a command line; those that it doesn't give are taken from a run's settings, if it names one."""
    parser = build_parser(task)
    values = parser.parse_args(argv)
    config = values.config
    options = {name: getattr(TrainingSettings, name) for name in TEST_OPTIONS}
    given = [name for name, default in options.items() if getattr(values, name, default) != default]
    if values.test_only:
        if config is not None:
            raise UserError("--test_only takes the settings of the run itself; leave --config out")
        config = RunFolder(values.output / values.model_name).config
    elif given:
        raise UserError(f"--{given[0]}: only with --test_only")
    elif config is not None and (folder := find_run_folder(config, values.output)):
        config = folder.config
    if config is not None:
        names = [part.name for part in fields(TrainingSettings)]
        settings = read_settings(config, task, names)
        left_out = {*PLACE_AND_MACHINE, *TEST_OPTIONS}
        if task is HEATMAP and is_h5(values.data_path[0]):
            left_out.add("input_shape")  # that of the H5's views
        taken = {name: value for name, value in settings.items() if name not in left_out}
        values = parse_with_settings(parser, argv, taken, config)
    elif values.init_from is not None:
        values = parse_with_settings(parser, argv, _network_settings(values, task), values.init_from)
    del values.config
    return values


def _network_settings(values: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Architecture and options of the network that training starts from, or of the run that goes on."""
    run = RunFolder(values.output / values.model_name)
    if run.has_last_checkpoint and not values.restart:
        settings = read_settings(run.config, task, [part.name for part in fields(TrainingSettings)])
        return {name: settings[name] for name in ("model", "model_args") if name in settings}
    from prediction.checkpoints import find_checkpoint, load_checkpoint  # torch would slow down --help

    spec = load_checkpoint(find_checkpoint(values.init_from, values.output, task))["network"]
    return {"model": spec.name, "model_args": spec.options}


def build_parser(task: Task) -> argparse.ArgumentParser:
    """The parser of a task's training script; every default is that of ``TrainingSettings`` or of the task."""
    parser = OneLineParser(
        description=f"Train the {task.network_name}, then test it on whole scans.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_data_and_network(parser, task)
    _add_optimizer(parser)
    _add_target(parser, task)
    _add_step(parser)
    _add_run(parser, task)
    _add_test_arguments(parser, task)
    _add_machine(parser)
    return parser


def _add_data_and_network(parser: argparse.ArgumentParser, task: Task) -> None:
    add, defaults = parser.add_argument, TrainingSettings
    data_help = "one or several H5 files of preprocessing.py, or folders or tables that it takes"
    add("--data_path", type=Path, nargs="+", required=True, help=data_help)
    add("--model_name", required=True, help="name of the run; results go to trained_models/MODEL_NAME")
    add("--epochs", type=int, default=defaults.epochs, help="largest number of epochs")
    add("--batch_size", type=int, default=defaults.batch_size, help="patches in a batch")
    add("--lr", type=float, help="learning rate, with prodigy a factor on the one that it finds" + _told("lr"))
    if task is HEATMAP:
        shape = " ".join(map(str, task.input_shape))
        shape_help = f"voxels of the network's input; if not given, those of the H5, or {shape} for a VerSe folder"
        add("--input_shape", type=int, nargs=3, metavar="N", help=shape_help)
    else:
        add("--input_shape", type=int, nargs=3, default=task.input_shape, metavar="N", help="voxels of a patch")
    add("--model", default=defaults.model, choices=sorted(ARCHITECTURES), help="architecture")
    stopping_help = "epochs without a better validation score after which training stops"
    add("--early_stopping", type=int, default=defaults.early_stopping, help=stopping_help)
    add_edition_argument(parser, "VerSe edition, or both as one data set, if DATA_PATH is a folder")
    no_download_help = "never download VerSe, even if DATA_PATH doesn't exist or is empty"
    _add_flag(parser, "--no_download", defaults.no_download, no_download_help)
    _add_flag(parser, "--use_wandb", defaults.use_wandb, "also log to Weights & Biases")
    add("--model_args", nargs="+", default=[], metavar="KEY=VALUE", help="options of the architecture")


def _add_optimizer(parser: argparse.ArgumentParser) -> None:
    add, defaults = parser.add_argument, TrainingSettings
    add("--optimizer", default=defaults.optimizer, choices=tuple(OPTIMIZERS), help="optimizer")
    add("--weight_decay", type=float, help="decay of the weights" + _told("weight_decay"))
    schedule_help = "how the learning rate falls from the first step to the last"
    add("--schedule", default=defaults.schedule, choices=SCHEDULES, help=schedule_help)
    add("--warmup", type=int, default=defaults.warmup, help="first epochs, in which the learning rate rises")


def _add_target(parser: argparse.ArgumentParser, task: Task) -> None:
    add, defaults = parser.add_argument, TrainingSettings
    if task is HEATMAP:
        names_loss = HEATMAP_LOSSES["vertebrae"]
        add("--loss", choices=task.losses, help=f"loss; if not given, {task.losses[0]}, or {names_loss} for vertebrae")
        labels_help = "target: one heatmap of the spine (binary), or one of each of the vertebrae, which names them"
        add("--labels", default=defaults.labels, choices=tuple(HEATMAP_LOSSES), help=labels_help)
        mode_help = "target: distance to the spine's mask, or gaussians at the vertebrae's centres"
        add("--heatmap_mode", default=defaults.heatmap_mode, choices=tuple(HEATMAP_SIGMA_VOX), help=mode_help)
    else:
        add("--loss", default=task.losses[0], choices=task.losses, help="loss")
        labels_help = f"classes: {', '.join(LABEL_SCHEMES)}, or a JSON file with a table of them"
        add("--labels", type=read_labels, default=defaults.labels, metavar="CLASSES", help=labels_help)
        per_volume_help = "random patches of each scan in an epoch"
        add("--patches_per_volume", type=int, default=defaults.patches_per_volume, help=per_volume_help)
        share_help = "share of the patches that are centred on a foreground voxel"
        add("--bone_share", type=float, default=defaults.bone_share, help=share_help)


def _add_step(parser: argparse.ArgumentParser) -> None:
    """What a step does, and what it takes."""
    add, defaults = parser.add_argument, TrainingSettings
    augmentation_help = "how much training scans are changed at random; strong helps with scans unlike them"
    add("--augmentation", default=defaults.augmentation, choices=AUGMENTATIONS, help=augmentation_help)
    precision_help = "precision of autocast; auto: the fastest on this device"
    add("--precision", default=defaults.precision, choices=PRECISIONS, help=precision_help)
    compile_help = "let torch compile the network: faster steps after a slow start; needs a compiler"
    _add_flag(parser, "--compile", defaults.compile, compile_help)
    checkpointing_help = "activation checkpointing: less memory, a third more time"
    _add_flag(parser, "--checkpointing", defaults.checkpointing, checkpointing_help)
    accumulate_help = "batches whose gradients are summed up for one optimizer step"
    add("--accumulate", type=int, default=defaults.accumulate, help=accumulate_help)
    memory_help = "find settings with which training stays below this many GiB"
    add("--memory_gb", type=float, default=defaults.memory_gb, help=memory_help)
    clip_help = "largest norm of a step's gradient; a longer one is shortened to it (0: never)"
    add("--clip", type=float, default=defaults.clip, help=clip_help)
    ema_help = "decay of the moving average of the weights, which is validated, tested and saved (0: no average)"
    add("--ema", type=float, default=defaults.ema, help=ema_help)


def _add_run(parser: argparse.ArgumentParser, task: Task) -> None:
    """How a run is validated, how it goes on, and where it begins."""
    add, defaults = parser.add_argument, TrainingSettings
    if task is not HEATMAP:
        whole_help = "epochs between validations on whole scans, which choose the best epoch; ten in a run by default"
        add("--full_validation", type=int, default=defaults.full_validation, metavar="K", help=whole_help)
    minutes_help = "minutes between checkpoints within an epoch; 0: after each step"
    add("--checkpoint_minutes", type=float, default=defaults.checkpoint_minutes, help=minutes_help)
    restart_help = "move the run of this name aside, if there is one, and begin anew"
    _add_flag(parser, "--restart", defaults.restart, restart_help)
    init_help = "run or checkpoint whose weights training starts from; architecture and options are taken from it, too"
    add("--init_from", type=Path, default=defaults.init_from, help=init_help)
    fold_help = "2/5: validate on the second fifth of the patients of training and validation, train on the others"
    add("--fold", type=_fold, default=defaults.fold, metavar="K/N", help=fold_help)
    config_help = "run's name, its folder, or its config.json, whose settings are taken where they are not given"
    add("--config", type=Path, help=config_help)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add, defaults = parser.add_argument, TrainingSettings
    add("--seed", type=int, default=defaults.seed, help="the same seed gives the same losses on a CPU")
    add("--workers", type=int, default=defaults.workers, help="processes that prepare patches")
    add("--device", default=defaults.device, help="auto, cpu, cuda, cuda:1, …")
    add("--output", type=Path, default=defaults.output, help="folder of the runs")


def _add_test_arguments(parser: argparse.ArgumentParser, task: Task) -> None:
    """Arguments of a test without training."""
    defaults = TrainingSettings
    _add_flag(parser, "--test_only", defaults.test_only, "test the run's best network again, without training")
    split_help = "with --test_only: the cases that are tested"
    parser.add_argument("--test_split", default=defaults.test_split, choices=("validation", "test"), help=split_help)
    tta_help = "with --test_only: average with the prediction of the mirrored scan: twice the time"
    _add_flag(parser, "--tta", defaults.tta, tta_help)
    if task is HEATMAP:
        return  # its view is one window, and its heatmap has no components
    overlap_help = "with --test_only: smallest share of a window that its neighbour covers"
    parser.add_argument("--overlap", type=float, default=defaults.overlap, help=overlap_help)
    kept = "with --test_only: connected components to keep, as of inference.py"
    parser.add_argument("--postprocess", default=defaults.postprocess, choices=POSTPROCESSING, help=kept)


def _told(name: str) -> str:
    """Defaults that depend on the optimizer."""
    defaults = ", ".join(f"{getattr(facts, name):g} for {optimizer}" for optimizer, facts in OPTIMIZERS.items())
    return f"; if not given, {defaults}"


def _add_flag(parser: argparse.ArgumentParser, name: str, default: bool, text: str) -> None:
    """An argument that is true when given, and that may also be followed by true or false."""
    parser.add_argument(name, type=_boolean, nargs="?", const=True, default=default, help=text)


def _view_shape(task: Task, data_path: Path) -> Sequence[int]:
    """Shape of the views in an H5; the task's own for a folder or table, which is yet to be preprocessed."""
    if not is_h5(data_path):
        return task.input_shape
    from utils.files.h5_cases import H5Cases  # h5py would slow down --help

    shape: Sequence[int] = H5Cases(data_path, task).settings["shape"]
    return shape


def _boolean(text: str) -> bool:
    try:
        return parse_bool(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fold(text: str) -> Fold:
    try:
        return Fold.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no fold; give one like 2/5, the second of five") from None


def _parse_model_args(pairs: list[str]) -> dict[str, Any]:
    """Turn ``channels=8,16 refine_channels=4`` into keyword arguments; values are Python literals or plain words."""
    options = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--model_args {pair}: not of the form KEY=VALUE")
        try:
            options[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[key] = text
    return options


def _check(settings: TrainingSettings) -> None:
    for name in ("epochs", "batch_size", "early_stopping", "patches_per_volume", "lr", "accumulate"):
        if not 0 < getattr(settings, name) < 2**31:
            raise UserError(f"--{name} {getattr(settings, name)}: must be greater than 0 and less than 2^31")
    if settings.memory_gb is not None and not 0 < settings.memory_gb < math.inf:
        raise UserError(f"--memory_gb {settings.memory_gb}: must be greater than 0")
    names_loss = HEATMAP_LOSSES["vertebrae"]
    if settings.task is HEATMAP and settings.labels == "vertebrae" and settings.loss != names_loss:
        raise UserError(f"--loss {settings.loss}: can't teach names; leave it out with --labels vertebrae")
    if not 0 <= settings.weight_decay < 1:
        raise UserError(f"--weight_decay {settings.weight_decay}: must be at least 0 and less than 1")
    if not 0 <= settings.warmup < settings.epochs:
        raise UserError(f"--warmup {settings.warmup}: must be at least 0 and less than --epochs {settings.epochs}")
    facts = OPTIMIZERS[settings.optimizer]
    if not facts.usual_lr[0] <= settings.lr <= facts.usual_lr[1]:
        usual = f"{facts.usual_lr[0]:g} to {facts.usual_lr[1]:g}; without --lr it is {facts.lr:g}"
        warnings.warn(f"--lr {settings.lr:g}: {settings.optimizer} is used with {usual}", stacklevel=3)
    if settings.full_validation is not None and settings.full_validation < 1:
        raise UserError(f"--full_validation {settings.full_validation}: must be at least 1")
    if not 0 <= settings.ema < 1:
        raise UserError(f"--ema {settings.ema}: must lie between 0 and below 1")
    for name in ("clip", "checkpoint_minutes"):
        if not 0 <= getattr(settings, name) < math.inf:
            raise UserError(f"--{name} {getattr(settings, name)}: must be a number that is not negative")
    if not 0 <= settings.bone_share <= 1:
        raise UserError(f"--bone_share {settings.bone_share}: must lie between 0 and 1")
    if not 0 <= settings.overlap < 1:
        raise UserError(f"--overlap {settings.overlap}: must be at least 0 and less than 1")
    if not 0 <= settings.workers <= 1000:
        raise UserError(f"--workers {settings.workers}: must lie between 0 and 1000")
    if not 0 <= settings.seed < 2**63:  # as large as torch takes
        raise UserError(f"--seed {settings.seed}: must be at least 0 and less than 2^63")
    name = settings.model_name
    if not name or Path(name).name != name or name == ".." or one_line(name) != name or len(name.encode()) > 200:
        raise UserError(f"--model_name {name!r:.80}: must be the name of a folder, not a path, in letters that show")
    if settings.model_name == PRETRAINED:
        raise UserError(f"--model_name {PRETRAINED}: is that of the networks that come with the project; take another")
