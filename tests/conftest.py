"""Fixtures: a tiny phantom data set and its H5 files, and the real scans where they are at hand."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from preprocessing import Settings, preprocess
from verse_utils.phantom import write_phantom_dataset

ROOT = Path(__file__).resolve().parents[1]
REAL_SCANS = ROOT.parent / "shared" / "data"

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr"),
)
CONSOLE_LINE = re.compile(r'CONSOLE[^\]]*\] (".*)$')
# On speed, where WebGL has no GPU. The log tells no errors from other lines: a page's console is empty or suspect.
BROWSER_ADVICE = re.compile("GL Driver Message|willReadFrequently")

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


@pytest.fixture(scope="session")
def dask_scheduler(tmp_path_factory) -> Iterator[str]:
    """Address of a Dask scheduler with two workers, processes that run in a folder of their own."""
    distributed = pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    scheduler_file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_TEMPORARY_DIRECTORY": str(folder)}
    processes = []

    def start(module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--scheduler-file", str(scheduler_file)]
        with (folder / f"{len(processes)}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [*command, "--host", "127.0.0.1", *arguments],
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # so that the workers' own children end with them
                )
            )

    try:
        start("dask_scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        for _ in range(2):
            start("dask_worker", "--nthreads", "1", "--no-dashboard")
        deadline = time.monotonic() + 60
        while not scheduler_file.exists() or not scheduler_file.read_text(encoding="utf-8").endswith("}"):
            assert time.monotonic() < deadline, (folder / "0.log").read_text(encoding="utf-8")
            time.sleep(0.05)
        address = json.loads(scheduler_file.read_text(encoding="utf-8"))["address"]
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def real_scans() -> Path:
    """The folder of real scans; tests that use it are marked ``real_scans``."""
    if not REAL_SCANS.is_dir():
        pytest.skip(f"no real scans at {REAL_SCANS}")
    return REAL_SCANS


@dataclass(frozen=True)
class Finished:
    """How a script ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a script of the project as a user does, from a folder: (script, arguments …, cwd) -> how it ended.

    Inside this process, as loading torch takes longer than the scripts take on tiny data; ``process=True`` runs it as
    a process of its own.
    """

    def run(script: str, *arguments: object, cwd: Path, process: bool = False) -> Finished:
        command = [str(ROOT / script), *map(str, arguments)]
        if process:
            result = subprocess.run(
                [sys.executable, *command], cwd=cwd, capture_output=True, encoding="utf-8", timeout=240
            )
            return Finished(result.returncode, result.stdout, result.stderr)
        capsys.readouterr()
        with monkeypatch.context() as patch, warnings.catch_warnings():
            patch.chdir(cwd)
            patch.setattr(sys, "argv", command)
            patch.setattr(sys, "path", list(sys.path))
            code = 0
            try:
                runpy.run_path(command[0], run_name="__main__")
            except SystemExit as stop:
                code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return run


@pytest.fixture
def assert_one_line_error():
    """Check what a user's mistake gives: exit code 2 and one line on stderr that holds the words."""

    def check(result: Finished, *words: str) -> None:
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert result.returncode == 2, result.stderr
        assert len(errors) == 1 and "Traceback" not in result.stderr, result.stderr
        for word in words:
            assert word in errors[0], errors[0]

    return check


class OpenedPage(NamedTuple):
    """What a browser made of a page.

    Attributes:
        png: (height, width, 3) float in [0, 1]; the lowest 140 or so rows are blank.
        console: its console's lines, errors among them.
        dom: its HTML after its scripts ran.
    """

    png: np.ndarray
    console: list[str]
    dom: str


@pytest.fixture
def open_page(tmp_path) -> Callable[..., OpenedPage]:
    """Open a page of this disk in headless Chromium: (path, width, height) -> what it made of it.

    Its clock is virtual: timers of 4 s run out at once.
    """
    from matplotlib.image import imread

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}")

    def open_it(path: Path, width: int = 1400, height: int = 900) -> OpenedPage:
        png = tmp_path / "opened_page.png"
        png.unlink(missing_ok=True)
        command = [browser, *BROWSER_SWITCHES, f"--user-data-dir={tmp_path / 'browser_profile'}"]
        command += [f"--window-size={width},{height}", "--virtual-time-budget=4000", f"--screenshot={png}"]
        process = subprocess.Popen(
            [*command, "--dump-dom", path.resolve().as_uri()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,  # so that its children end with it
        )
        try:
            dom, log = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert png.exists(), log
        lines = [match[1] for line in log.splitlines() if (match := CONSOLE_LINE.search(line))]
        return OpenedPage(imread(png)[..., :3], [line for line in lines if not BROWSER_ADVICE.search(line)], dom)

    return open_it
