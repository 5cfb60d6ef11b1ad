"""The trained networks that come with the project; README.md beside them says what they were trained on."""

from __future__ import annotations

from pathlib import Path

from prediction.options import Options
from utils.tasks import HEATMAP, Task

# What users write where the name of a run is asked for.
PRETRAINED = "pretrained"
FOLDER = Path(__file__).parent
# What inference says of them.
WHAT_IT_IS = f"pretrained: trained on few scans; for research, no clinical tool; see {FOLDER / 'README.md'}"


def pretrained_checkpoint(task: Task, labels: str = Options.labels, folder: Path = FOLDER) -> Path:
    """The checkpoint of a task's network, by ``Options.labels``."""
    if labels == "vertebrae":
        return folder / ("names.pt" if task is HEATMAP else "single.pt")
    return folder / f"{task.network_name}.pt"


def is_pretrained(checkpoint: Path) -> bool:
    """Whether a checkpoint is one of those that come with the project."""
    return checkpoint.resolve().parent == FOLDER.resolve()
