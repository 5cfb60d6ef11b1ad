"""Fixtures: a localiser and a segmenter, scans, and the command."""

import shutil
from pathlib import Path

import pytest

from training.arguments import parse_arguments
from training.scripts import train_and_test
from utils.tasks import HEATMAP, SEGMENTATION


@pytest.fixture(scope="session")
def runs(tmp_path_factory, heatmap_h5, segmentation_h5, drawing_nothing) -> Path:
    """A localiser and a segmenter that were trained for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    for task, h5, shape in ((HEATMAP, heatmap_h5, "16 16 32"), (SEGMENTATION, segmentation_h5, "16 16 16")):
        common = f"--data_path {h5} --model_name {task} --epochs 2 --workers 0 --output {folder} --input_shape {shape}"
        with drawing_nothing():
            train_and_test(parse_arguments(task, [*common.split(), "--model_args", "channels=4,8,16"]))
    return folder


@pytest.fixture(scope="session")
def names_models(runs, heatmap_h5, segmentation_h5, drawing_nothing) -> tuple[str, str]:
    """A segmenter of single vertebrae and a localiser that names them, trained for a moment."""
    for task, h5, name, labels in (
        (HEATMAP, heatmap_h5, "names", "vertebrae"),
        (SEGMENTATION, segmentation_h5, "single", "single"),
    ):
        common = f"--data_path {h5} --model_name {name} --epochs 1 --workers 0 --output {runs} --labels {labels}"
        shape = [] if task is HEATMAP else ["--input_shape", "64", "64", "64"]
        with drawing_nothing():
            train_and_test(parse_arguments(task, [*common.split(), *shape, "--model_args", "channels=4,8,16"]))
    return "single", "names"


@pytest.fixture
def infer(run_script, runs, tmp_path):
    """Run the command on scans: (scans, arguments …) -> how it ended; results in ``out``."""

    def run(scans, *arguments, models=("segmentation", "heatmap"), process=False):
        chosen = ["--segmentation_model", models[0], *(["--heatmap_model", models[1]] if len(models) > 1 else [])]
        command = ["--input", *scans, "--output", "out", *chosen, "--runs", runs, *arguments]
        return run_script("inference.py", *command, cwd=tmp_path, process=process)

    return run


@pytest.fixture
def scans(phantom_root, tmp_path) -> Path:
    """A folder with two of the phantoms' CTs, and one with their masks."""
    for kind, ending in (("scans", "_ct"), ("masks", "_seg-vert_msk")):
        (tmp_path / kind).mkdir()
        for path in sorted(phantom_root.rglob(f"*{ending}.nii.gz"))[:2]:
            shutil.copy(path, tmp_path / kind)
    return tmp_path / "scans"
