import csv
import json
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from preprocessing import IsotropicSettings, preprocess
from training import scripts
from training.run import tracking


@pytest.fixture(scope="session")
def h5_at_3mm(phantom_root, tmp_path_factory):
    """For what depends on the patches: twice as fine as ``segmentation_h5``."""
    output = tmp_path_factory.mktemp("segmentation")
    return preprocess(phantom_root, 19, IsotropicSettings(3.0), output, workers=1, pictures=False)


@pytest.fixture(scope="session")
def with_reports():
    """In it, runs write reports, or not: (whether they do) -> context."""

    @contextmanager
    def patched(wanted):
        with ExitStack() as stack:
            for module in () if wanted else (scripts, tracking):
                stack.enter_context(patch.object(module, "write_report", Path))
            yield

    return patched


@pytest.fixture
def segment(run_script, tmp_path, segmentation_h5, with_reports):
    """Train a tiny segmenter: (model_name, arguments …) -> how it ended. Six patches an epoch, from two cases.

    The report, which takes longer than all the rest, is left out unless ``report=True``.
    """

    def run(name: str, *arguments: object, report: bool = False):
        common = ["--data_path", segmentation_h5, "--model_name", name, "--input_shape", 16, 16, 16, "--epochs", 2]
        common += ["--patches_per_volume", 3, "--bone_share", 1, "--workers", 0, "--model_args", "channels=4,8"]
        with with_reports(report):
            return run_script("training/train_segmentation.py", *common, *arguments, cwd=tmp_path)

    return run


@pytest.fixture
def rows_of():
    """The history of a run: (folder) -> its rows."""

    def read(folder: Path) -> list[dict[str, str]]:
        with (folder / "metrics.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture
def results_of(rows_of):
    """All that a run found out, without the times that it took: (folder) -> what is equal for equal runs."""

    def read(folder: Path) -> dict[str, object]:
        results: dict[str, object] = {"history": [{**row, "seconds": ""} for row in rows_of(folder)]}
        for name in ("last.pt", "best.pt"):
            content = torch.load(folder / name, weights_only=True)
            results[name] = {key: tensor.numpy().tobytes() for key, tensor in content["weights"].items()}
            results[f"epoch of {name}"] = content.get("epoch", content.get("progress", {}).get("epoch"))
        results["test"] = json.loads((folder / "test_metrics.json").read_text(encoding="utf-8"))
        results["pictures"] = {path.name: path.read_bytes() for path in (folder / "images").iterdir()}
        return results

    return read
