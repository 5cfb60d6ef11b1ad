"""The tables of metrics, and the handler that keeps them for each case and sums them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics import heatmap_metrics, mask_metrics


@dataclass(frozen=True)
class Metric:
    """A number about a prediction.

    Attributes:
        function: see ``mask_metrics`` and ``heatmap_metrics`` for its arguments and its value for empty masks.
        unit: "mm", or "1" where it has none.
        higher_is_better: its direction.
    """

    function: Callable[..., float]
    unit: str = "1"
    higher_is_better: bool = True


MASK_METRICS: dict[str, Metric] = {
    "dice": Metric(mask_metrics.dice),
    "iou": Metric(mask_metrics.iou),
    "precision": Metric(mask_metrics.precision),
    "recall": Metric(mask_metrics.recall),
    "hd95_mm": Metric(mask_metrics.hd95_mm, "mm", higher_is_better=False),
}
HEATMAP_METRICS: dict[str, Metric] = {
    "mae": Metric(heatmap_metrics.mae, higher_is_better=False),
    "rmse": Metric(heatmap_metrics.rmse, higher_is_better=False),
    "r2": Metric(heatmap_metrics.r2),
    "box_iou": Metric(heatmap_metrics.box_iou),
    "spine_in_box": Metric(heatmap_metrics.spine_in_box),
    "box_centre_error_mm": Metric(heatmap_metrics.box_centre_error_mm, "mm", higher_is_better=False),
}


class MetricHandler:
    """Metrics of each case, and their summary.

    Args:
        metrics: name -> metric, one of the tables above.
        class_names: of the classes 1, 2, …; then prediction and target are class indices, every metric is computed for
            each class that occurs in either, and its plain name bears their mean. None for a single mask.
    """

    def __init__(self, metrics: dict[str, Metric], class_names: Sequence[str] | None = None) -> None:
        self.metrics = metrics
        self.class_names = class_names
        self.rows: list[dict[str, Any]] = []

    def update(self, case_id: str, prediction: np.ndarray, target: np.ndarray, **inputs: Any) -> None:
        """Measure a case and keep its row."""
        row: dict[str, Any] = {"case": case_id}
        if self.class_names is None:
            if self.metrics is MASK_METRICS:
                prediction, target = prediction > 0, target > 0
            row |= self._measure(prediction, target, inputs)
        else:
            row |= self._measure_classes(prediction, target, inputs)
        self.rows.append(row)

    def _measure(self, prediction: np.ndarray, target: np.ndarray, inputs: dict[str, Any]) -> dict[str, float]:
        return {name: metric.function(prediction, target, **inputs) for name, metric in self.metrics.items()}

    def _measure_classes(self, prediction: np.ndarray, target: np.ndarray, inputs: dict[str, Any]) -> dict[str, float]:
        assert self.class_names is not None
        of_class = {
            name: self._measure(prediction == index, target == index, inputs)
            for index, name in enumerate(self.class_names, start=1)
            if (prediction == index).any() or (target == index).any()
        }
        if not of_class:  # nothing there and nothing found
            return self._measure(prediction > 0, target > 0, inputs)
        means = {name: float(np.mean([row[name] for row in of_class.values()])) for name in self.metrics}
        return means | {f"{name}_{of}": value for of, row in of_class.items() for name, value in row.items()}

    def summary(self) -> dict[str, dict[str, Any]]:
        """Metric -> mean, standard deviation, median, least and greatest value, unit, direction, number of cases."""
        result = {}
        for name in dict.fromkeys(key for row in self.rows for key in row if key != "case"):
            values = np.array([row[name] for row in self.rows if name in row])
            metric = self.metrics[next(key for key in self.metrics if name == key or name.startswith(f"{key}_"))]
            result[name] = {
                "mean": float(values.mean()),
                "std": float(values.std()),
                "median": float(np.median(values)),
                "min": float(values.min()),
                "max": float(values.max()),
                "unit": metric.unit,
                "higher_is_better": metric.higher_is_better,
                "cases": len(values),
            }
        return result

    def as_json(self) -> dict[str, Any]:
        """Summary and rows."""
        return {"summary": self.summary(), "cases": self.rows}
