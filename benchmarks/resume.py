"""Kill a training run at random moments, some of them within the writing of a checkpoint, and let it go on to its end.

It must end with the same weights, history, pictures and test metrics as a run that was left alone. What each kill cost
is printed: the seconds of work after the last checkpoint, which are done again.

    python benchmarks/resume.py --kills 20
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from preprocessing import preprocess
from utils.misc import command
from utils.preprocessing_settings import IsotropicSettings
from verse_utils.phantom.dataset import write_phantom_dataset

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = (
    "--input_shape 32 32 32 --patches_per_volume 10 --model_args channels=8,16,32 --full_validation 5 "
    "--checkpoint_minutes 0.005 --workers 1"
)


@command
def main() -> None:
    """Run both trainings and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_phantom_dataset(root / "phantoms", {"training": 2, "validation": 1, "test": 1}, seed=3, size="tiny")
        h5 = preprocess(root / "phantoms", 19, IsotropicSettings(spacing_mm=3.0), root, workers=1, pictures=False)
        runs, epochs = root / "trained_models", 6 * arguments.kills
        start(root, h5, "whole", epochs).wait()
        epoch_s = seconds_of_an_epoch(runs / "whole")
        print(f"{epochs} epochs of {epoch_s:.2f} s")
        lost = []
        for number in range(arguments.kills):
            process = start(root, h5, "killed", epochs)
            lost.append(kill_once(process, runs / "killed", number, draw.uniform(0, 3 * epoch_s)))
        start(root, h5, "killed", epochs).wait()
        print(f"{'kill':>4}  {'moment':<20}  lost s")
        for number, (moment, seconds) in enumerate(lost, start=1):
            print(f"{number:>4}  {moment:<20}  {seconds:.2f}")
        whole, killed = (results(runs / name) for name in ("whole", "killed"))
        different = [name for name in whole if whole[name] != killed[name]]
        print("different: " + ", ".join(different) if different else f"{len(whole)} results equal bit by bit")
        sys.exit(bool(different))


def start(root: Path, h5: Path, name: str, epochs: int) -> subprocess.Popen[bytes]:
    """Start a training, or let it go on."""
    command = [sys.executable, str(ROOT / "training/train_segmentation.py"), *SETTINGS.split()]
    command += ["--data_path", str(h5), "--model_name", name, "--epochs", str(epochs)]
    return subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_once(process: subprocess.Popen[bytes], run: Path, number: int, wait_s: float) -> tuple[str, float]:
    """Kill a training so long after its first checkpoint; every fourth time while the next one is being written.

    Returns:
        The moment, and the seconds since the last checkpoint that is whole.
    """
    last = run / "last.pt"
    begun = time.time()
    while process.poll() is None and not (last.exists() and last.stat().st_mtime > begun):
        time.sleep(0.01)
    within = number % 4 == 3
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        time.sleep(0.001)
    while within and process.poll() is None and not any(run.glob(".last.pt.*.partial")):
        pass
    if process.poll() is not None:
        raise SystemExit("the run ended before it was killed as often as asked for; lower --kills")
    now, kept = time.time(), last.stat().st_mtime if last.exists() else (run / "previous.pt").stat().st_mtime
    process.send_signal(signal.SIGKILL)  # the process alone: its workers must end by themselves
    process.wait()
    return "writing a checkpoint" if within else "any", now - kept


def seconds_of_an_epoch(run: Path) -> float:
    """Mean over the epochs of a run."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return sum(seconds) / len(seconds)


def results(run: Path) -> dict[str, Any]:
    """What a run found out, but the seconds that it took."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        found: dict[str, Any] = {"metrics.csv": [{**row, "seconds": ""} for row in csv.DictReader(file)]}
    for name in ("last.pt", "best.pt"):
        content = torch.load(run / name, weights_only=True)
        found[name] = {key: tensor.numpy().tobytes() for key, tensor in content["weights"].items()}
    found["test_metrics.json"] = json.loads((run / "test_metrics.json").read_text(encoding="utf-8"))
    pictures = sorted((run / "images").iterdir())
    return found | {f"images/{path.name}": path.read_bytes() for path in pictures}


if __name__ == "__main__":
    main()
