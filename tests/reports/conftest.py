"""Made run folders, as training leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

DIRECTIONS = {"dice": True, "precision": True, "recall": True, "hd95_mm": False, "box_iou": True, "offset_ml": None}


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """Write a finished run's numbers: (name, case -> metric -> value, task, more settings …) -> its folder."""

    def make(name: str, cases: dict[str, dict[str, float]], task: str = "segmentation", **settings: object) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        config = {"settings": {"task": task, "model": "UNet", **settings}, "device": "cpu", "versions": {"torch": "2"}}
        summary = {}
        for metric in dict.fromkeys(metric for row in cases.values() for metric in row):
            values = [row[metric] for row in cases.values() if metric in row]
            plain = next(known for known in DIRECTIONS if metric.startswith(known))
            unit = plain.rpartition("_")[2]
            summary[metric] = {
                "mean": float(np.mean(values)),
                "median": float(np.median(values)),
                "unit": unit if unit in ("mm", "ml") else "1",
                "higher_is_better": DIRECTIONS[plain],
                "cases": len(values),
            }
        rows = [{"case": case, **row} for case, row in cases.items()]
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "test_metrics.json").write_text(json.dumps({"summary": summary, "cases": rows}), encoding="utf-8")
        (folder / "metrics.csv").write_text(
            "epoch,train_loss,validation_loss,validation_dice,lr,seconds\n"
            "1,0.7,0.6,0.5,0.1,2\n2,0.5,0.4,0.8,0.1,2\n3,0.4,0.5,0.7,0.1,2\n",
            encoding="utf-8",
        )
        return folder

    return make
