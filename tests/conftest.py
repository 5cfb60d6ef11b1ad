"""Fixtures: a tiny phantom data set and its H5 files, and the real scans where they are at hand."""

from __future__ import annotations

import argparse
import contextlib
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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np
import psutil
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from preprocessing import IsotropicSettings, ViewSettings, preprocess
from verse_utils.phantom.dataset import write_phantom_dataset

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
REAL_SCANS = ROOT.parent / "shared" / "data"

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# WebGL without a GPU; and no sandbox, as there is none for root in a container.
BROWSER_SWITCHES = ("--no-sandbox", "--enable-unsafe-swiftshader")
# On speed, where WebGL has no GPU.
BROWSER_ADVICE = re.compile("GL Driver Message|willReadFrequently")

# No test goes to VerSe's sources. Nothing answers there, so what would be downloaded fails at once.
os.environ["VERSE_MIRROR"] = "http://127.0.0.1:9"

# Processes of pytest-xdist share the cores; and a process that a test forks hangs where OpenMP has threads.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory) -> Path:
    """A VerSe19-shaped folder: two training cases, one of validation, one of test."""
    root = tmp_path_factory.mktemp("phantoms")
    write_phantom_dataset(root, {"training": 2, "validation": 1, "test": 1}, seed=3, size="tiny")
    return root


@pytest.fixture(scope="session")
def segmentation_h5(phantom_root, tmp_path_factory) -> Path:
    """The phantoms at 6 mm, which keeps tests fast."""
    output = tmp_path_factory.mktemp("segmentation")
    return preprocess(phantom_root, 19, IsotropicSettings(spacing_mm=6.0), output, workers=1, pictures=False)


@pytest.fixture(scope="session")
def heatmap_h5(phantom_root, tmp_path_factory) -> Path:
    """The phantoms in views of 16×16×32."""
    output = tmp_path_factory.mktemp("heatmap")
    return preprocess(phantom_root, 19, ViewSettings(shape=(16, 16, 32)), output, workers=1, pictures=False)


@pytest.fixture(scope="session")
def dask_scheduler(tmp_path_factory, wait_until) -> Iterator[str]:
    """Address of a Dask scheduler with a worker, processes that run in a folder of their own."""
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
        start("dask_worker", "--nthreads", "1", "--no-dashboard")
        wait_until(
            lambda: scheduler_file.exists() and scheduler_file.read_text(encoding="utf-8").endswith("}"),
            lambda: (folder / "0.log").read_text(encoding="utf-8"),
        )
        address = json.loads(scheduler_file.read_text(encoding="utf-8"))["address"]
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
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


@pytest.fixture(scope="session")
def wait_until():
    """Wait until a condition holds: (condition, what is told if it doesn't). Only what never comes takes a minute."""

    def wait(condition: Callable[[], bool], told: Callable[[], str] = str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, told()
            time.sleep(0.02)

    return wait


@pytest.fixture
def group_runs():
    """Whether a group of processes has one that isn't a zombie: in some containers nobody collects orphans."""

    def runs(group: int) -> bool:
        for process in psutil.process_iter(["pid", "status"]):
            if process.info["status"] != psutil.STATUS_ZOMBIE:
                with contextlib.suppress(ProcessLookupError):
                    if os.getpgid(process.info["pid"]) == group:
                        return True
        return False

    return runs


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


@pytest.fixture(scope="session")
def drawing_nothing() -> Callable[[], AbstractContextManager[None]]:
    """Within it, PNG files are a pixel and charts are empty. Drawing takes most of a tiny run's time.

    For files that test how scripts run. What pictures show is tested in ``tests/utils`` and ``tests/reports``.
    """
    nothing = MagicMock()

    def subplots(figure: Figure, rows: int = 1, columns: int = 1, *, squeeze: bool = True, **_: Any) -> Any:
        axes = np.empty((rows, columns), object)
        for index in np.ndindex(rows, columns):
            axes[index] = nothing
        return axes.squeeze()[()] if squeeze else axes

    def savefig(figure: Figure, file: Any, **options: Any) -> None:
        if options.get("format") == "svg":
            file.write("<svg></svg>")
        else:
            Image.new("RGB", (1, 1)).save(file, "PNG")

    @contextlib.contextmanager
    def draw_nothing() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "subplots", subplots)
            patch.setattr(Figure, "add_subplot", lambda *_, **__: nothing)
            patch.setattr(Figure, "savefig", savefig)
            yield

    return draw_nothing


@pytest.fixture(scope="module")
def blank_pictures(drawing_nothing) -> Iterator[None]:
    """Draw nothing in this process while a file's tests run."""
    with drawing_nothing():
        yield


@pytest.fixture(scope="session")
def installed_commands() -> dict[str, str]:
    """Commands of pyproject.toml and the modules whose ``main`` they run."""
    entries = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.scripts]\n")[1].split("\n\n")[0]
    return dict(re.findall(r'^([\w-]+) = "([\w.]+):main"$', entries, flags=re.MULTILINE))


@pytest.fixture(scope="session")
def parser_of() -> Callable[[str], argparse.ArgumentParser]:
    """The argument parser of a script, whose path in the repository is given."""
    parsers: dict[str, argparse.ArgumentParser] = {}

    class ParsersAreEnough(Exception):  # noqa: N818  no error
        pass

    def find(script: str) -> argparse.ArgumentParser:
        def keep(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
            parsers[script] = parser
            raise ParsersAreEnough

        if script not in parsers:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(argparse.ArgumentParser, "parse_args", keep)
                patch.setattr(sys, "argv", [script])
                patch.setattr(sys, "path", list(sys.path))
                with pytest.raises(ParsersAreEnough):
                    runpy.run_path(str(ROOT / script), run_name="__main__")
        return parsers[script]

    return find


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
    """A page in a browser, and what it complained about.

    Attributes:
        page: Playwright's page, to be asked and photographed.
        console: its console's lines and its scripts' errors.
    """

    page: Page
    console: list[str]


@pytest.fixture
def open_page() -> Iterator[Callable[..., OpenedPage]]:
    """Open a page of this disk in Chromium without a window: (path, width, height) -> the page after it was loaded."""
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=BROWSER_SWITCHES)

        def open_it(path: Path, width: int = 1400, height: int = 900) -> OpenedPage:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(120_000)  # ms; only a hang takes so long, though the processor draws WebGL
            console: list[str] = []
            page.on("console", lambda line: BROWSER_ADVICE.search(line.text) or console.append(line.text))
            page.on("pageerror", lambda error: console.append(str(error)))
            page.goto(path.resolve().as_uri())
            return OpenedPage(page, console)

        yield open_it
        browser.close()
