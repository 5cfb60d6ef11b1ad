"""Fixtures: a data set that a test may break, and all that an H5 holds."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest


@pytest.fixture
def root(phantom_root, tmp_path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(phantom_root, tmp_path / "verse")


@pytest.fixture
def preprocess_coarsely(run_script, tmp_path):
    """Run the command on ``verse``, for the views of ``heatmap_h5``: arguments … -> how it ended."""
    command = ("preprocessing.py", "--data_path", "verse", "--task", "heatmap", "--input_shape", 16, 16, 32)
    return lambda *arguments: run_script(*command, "--workers", 1, *arguments, cwd=tmp_path)


@pytest.fixture
def h5_content():
    """Everything that an H5 holds, but the notes: these name the files that it was made from."""

    def read(h5_path: Path) -> dict:
        content = {}

        def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
            attributes = {key: np.asarray(value).tolist() for key, value in item.attrs.items() if key != "notes"}
            content[name] = (attributes, item[()].tobytes() if isinstance(item, h5py.Dataset) else None)

        with h5py.File(h5_path) as file:
            add("/", file)
            file.visititems(add)
        return content

    return read
