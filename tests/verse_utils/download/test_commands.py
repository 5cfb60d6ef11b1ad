"""From nothing: the commands on a path that does not exist, with the sources on a server of this machine."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from dataloader import VerSe
from training.tasks import segmenter
from utils.files.h5_cases import H5Cases
from utils.preprocessing_settings import IsotropicSettings
from verse_utils.cases import find_cases

ROOT = Path(__file__).resolve().parents[3]
SPLITS = ("training", "validation", "test")


@pytest.fixture
def zips(phantom_root, make_zip) -> dict[str, bytes]:
    """Zips of the phantoms, by their names."""
    found = {}
    for split in SPLITS:
        folder = phantom_root / f"dataset-verse19{split}"
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        found[f"{folder.name}.zip"] = make_zip(
            {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        )
    return found


@pytest.fixture
def mirror(server, zips, monkeypatch):
    """The mirror that users behind a firewall have."""
    monkeypatch.setenv("VERSE_MIRROR", f"{server.url}/verse")
    server.files |= {f"/verse/{name}": content for name, content in zips.items()}
    return server


def test_preprocessing_from_nothing(tmp_path, mirror, run_script, phantom_root):
    arguments = ("--data_path", "data/verse19", "--task", "heatmap", "--input_shape", 16, 16, 32, "--workers", 1)
    result = run_script("preprocessing.py", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "data/verse19: no such folder, so VerSe19 is downloaded there" in result.stderr
    store = H5Cases(tmp_path / result.stdout.strip())
    found = [(split, case_id) for split in SPLITS for case_id in store.case_ids(split)]
    assert found == [(case.split, case.case_id) for case in find_cases(phantom_root, 19)]
    asked = len(mirror.asked)
    assert asked == 3
    assert run_script("preprocessing.py", *arguments, cwd=tmp_path).returncode == 0
    assert len(mirror.asked) == asked


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("task", ["heatmap", "segmentation"])
def test_training_from_nothing(tmp_path, mirror, run_script, task, monkeypatch):
    monkeypatch.setattr("utils.resources.usable_cores", lambda: 1)  # preprocessing in this process, which is quicker
    monkeypatch.setattr(segmenter, "IsotropicSettings", partial(IsotropicSettings, spacing_mm=6.0))
    shape = {"heatmap": (16, 16, 32), "segmentation": (16, 16, 16)}[task]
    result = run_script(
        f"training/train_{task}.py",
        *("--data_path", "verse19", "--model_name", "run", "--epochs", 1, "--input_shape", *shape),
        *("--model_args", "channels=2,4,8", "--workers", 0),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "trained_models" / "run" / "best.pt").exists()
    assert (tmp_path / "trained_models" / "run" / "test_metrics.json").exists()
    assert {path.name for path in (tmp_path / "verse19").iterdir()} == {
        "checksums.json",
        *(f"dataset-verse19{split}" for split in SPLITS),
    }


def test_the_data_set_from_nothing(tmp_path, mirror):
    assert len(VerSe(tmp_path / "verse19", "training")) == 2
    assert len(mirror.asked) == 3


def test_zips_on_a_disk(tmp_path, zips, run_script, server, monkeypatch):
    monkeypatch.setenv("VERSE_MIRROR", server.url)
    for name, content in zips.items():
        (tmp_path / name).write_bytes(content)
    arguments = ("--data_path", "verse19", "--task", "heatmap", "--input_shape", 16, 16, 32, "--workers", 1)
    result = run_script("preprocessing.py", *arguments, "--from_zip", *zips, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not server.asked and {*zips} <= {path.name for path in tmp_path.iterdir()}


def test_a_wrong_path_on_a_terminal_can_be_stopped(tmp_path, mirror):
    """Ctrl-C in the five seconds: nothing was asked for, and nothing is left."""
    main, terminal = pty.openpty()
    command = [sys.executable, str(ROOT / "preprocessing.py"), "--data_path", "verse91"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        # Tests that run in the background may have inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 60
    while b"Ctrl-C" not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([main], [], [], 1)[0]:
            shown += os.read(main, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 130
    os.close(main)
    assert b"verse91: no such folder" in shown
    assert not mirror.asked and not list(tmp_path.iterdir())
