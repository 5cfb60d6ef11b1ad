"""The folder of a training run: where each of its files lies, and how a run is found by its name."""

from __future__ import annotations

from pathlib import Path

# Where runs lie unless ``--output`` says otherwise.
RUNS_FOLDER = Path("trained_models")

# Settings of a run that say where it lies and what it runs on, but not what is computed.
PLACE_AND_MACHINE = (
    *("model_name", "data_path", "no_download", "output", "use_wandb", "restart", "test_only"),
    *("device", "compile", "checkpointing", "memory_gb", "workers", "checkpoint_minutes"),
)


class RunFolder:
    """``trained_models/<model_name>``; the paths say where a file belongs, not that it is there.

    Attributes:
        path: the folder.
        last_checkpoint: all that a continued run needs.
        previous_checkpoint: the one before, for the case that the last is damaged.
        best_checkpoint: the network of the best epoch.
        config: resolved settings, hardware and versions, as JSON.
        history: losses, score and learning rate, a row an epoch, as CSV.
        curves: the history as a picture.
        test_metrics: summary and cases of the test, as JSON.
        report: all of it on one page.
        wandb_id: of the run at Weights & Biases, where it is logged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_checkpoint = path / "last.pt"
        self.previous_checkpoint = path / "previous.pt"
        self.best_checkpoint = path / "best.pt"
        self.config = path / "config.json"
        self.history = path / "metrics.csv"
        self.curves = path / "curves.png"
        self.test_metrics = path / "test_metrics.json"
        self.report = path / "report.html"
        self.wandb_id = path / "wandb" / "id.txt"

    @property
    def has_last_checkpoint(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.last_checkpoint.exists() or self.previous_checkpoint.exists()

    def epoch_picture(self, epoch: int) -> Path:
        """A validation case after an epoch."""
        return self.path / "images" / f"epoch_{epoch:04d}.png"

    def test_picture(self, case_id: str) -> Path:
        """A test case."""
        return self.path / "images" / f"test_{case_id}.png"

    def test_mask(self, case_id: str, name: str) -> Path:
        """A mask of a test case as NIfTI; its name is "prediction" or "target"."""
        return self.path / "test" / f"{case_id}_{name}.nii.gz"

    def further_test(self, name: str) -> RunFolder:
        """A test of another split or with other options: a folder with settings, metrics, pictures and masks."""
        return RunFolder(self.path / "further_tests" / name)


def find_run_folder(run: Path, runs: Path = RUNS_FOLDER) -> RunFolder | None:
    """A run by its folder, or by its name among the runs; None where there is no such folder."""
    return next((RunFolder(folder) for folder in (run, runs / run) if folder.is_dir()), None)
