"""Fixtures: a tiny phantom data set and its H5 files, and the real scans where they are at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from preprocessing import Settings, preprocess
from verse_utils.phantom import write_phantom_dataset

ROOT = Path(__file__).resolve().parents[1]
REAL_SCANS = ROOT.parent / "shared" / "data"

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory) -> Path:
    """A VerSe19-shaped folder: two training cases, one of validation, one of test."""
    root = tmp_path_factory.mktemp("phantoms")
    write_phantom_dataset(root, {"training": 2, "validation": 1, "test": 1}, seed=3, size="tiny")
    return root


@pytest.fixture(scope="session")
def segmentation_h5(phantom_root, tmp_path_factory) -> Path:
    """The phantoms at 3 mm, which keeps tests fast."""
    output = tmp_path_factory.mktemp("segmentation")
    return preprocess(phantom_root, 19, Settings("segmentation", spacing_mm=3.0), output, workers=1, pictures=False)


@pytest.fixture(scope="session")
def heatmap_h5(phantom_root, tmp_path_factory) -> Path:
    """The phantoms in views of 16×16×32."""
    output = tmp_path_factory.mktemp("heatmap")
    return preprocess(phantom_root, 19, Settings("heatmap", shape=(16, 16, 32)), output, workers=1, pictures=False)


@pytest.fixture
def real_scans() -> Path:
    """The folder of real scans; tests that use it are marked ``real_scans``."""
    if not REAL_SCANS.is_dir():
        pytest.skip(f"no real scans at {REAL_SCANS}")
    return REAL_SCANS


@pytest.fixture
def run_script():
    """Run a script of the project as a user does: (arguments …, cwd) -> completed process."""

    def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
        script, *rest = (str(argument) for argument in arguments)
        command = ["-m", script] if "/" not in script and not script.endswith(".py") else [str(ROOT / script)]
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        return subprocess.run(
            [sys.executable, *command, *rest], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
        )

    return run


@pytest.fixture
def assert_one_line_error():
    """Check what a user's mistake gives: exit code 2 and one line on stderr that holds the words."""

    def check(result: subprocess.CompletedProcess, *words: str) -> None:
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert result.returncode == 2, result.stderr
        assert len(errors) == 1 and "Traceback" not in result.stderr, result.stderr
        for word in words:
            assert word in errors[0], errors[0]

    return check
