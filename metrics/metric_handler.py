"""The tables of metrics, and the handler that keeps them for each case and sums them up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.heatmap_metrics import measure_heatmaps
from metrics.mask_metrics import measure_masks
from utils.intervals import mean_interval


@dataclass(frozen=True)
class Metric:
    """What a number about a prediction means.

    Attributes:
        unit: "mm", "ml", or "1" where it has none.
        higher_is_better: its direction; None where 0 is best and the sign tells which way it is off.
    """

    unit: str = "1"
    higher_is_better: bool | None = True


class MetricTable(dict[str, Metric]):
    """Metrics by their names.

    Attributes:
        measure: computes all of them in one go, name -> value; its module tells arguments and values for empty masks.
    """

    def __init__(self, measure: Callable[..., dict[str, float]], metrics: Mapping[str, Metric]) -> None:
        super().__init__(metrics)
        self.measure = measure


MASK_METRICS = MetricTable(
    measure_masks,
    {
        "dice": Metric(),
        "iou": Metric(),
        "precision": Metric(),
        "recall": Metric(),
        "volume_difference_ml": Metric("ml", higher_is_better=None),
        "hd_mm": Metric("mm", higher_is_better=False),
        "hd95_mm": Metric("mm", higher_is_better=False),
        "mean_surface_distance_mm": Metric("mm", higher_is_better=False),
        "surface_dice_1mm": Metric(),
        "surface_dice_3mm": Metric(),
    },
)
HEATMAP_METRICS = MetricTable(
    measure_heatmaps,
    {
        "mae": Metric(higher_is_better=False),
        "rmse": Metric(higher_is_better=False),
        "r2": Metric(),
        "box_iou": Metric(),
        "spine_in_box": Metric(),
        "box_centre_error_mm": Metric("mm", higher_is_better=False),
    },
)


class MetricHandler:
    """Metrics of each case, and their summary.

    Args:
        metrics: one of the tables above.
        class_names: of the classes 1, 2, …; then prediction and target are class indices, every metric is computed for
            each class that occurs in either, and its plain name bears their mean. None for a single mask.
    """

    def __init__(self, metrics: MetricTable, class_names: Sequence[str] | None = None) -> None:
        self.metrics = metrics
        self.class_names = class_names
        self.rows: list[dict[str, Any]] = []

    def update(self, case_id: str, prediction: np.ndarray, target: np.ndarray, **inputs: Any) -> None:
        """Measure a case and keep its row."""
        row: dict[str, Any] = {"case": case_id}
        if self.class_names is None:
            if self.metrics is MASK_METRICS:
                prediction, target = prediction > 0, target > 0
            row |= self.metrics.measure(prediction, target, **inputs)
        else:
            row |= self._measure_classes(prediction, target, inputs)
        self.rows.append(row)

    def _measure_classes(self, prediction: np.ndarray, target: np.ndarray, inputs: dict[str, Any]) -> dict[str, float]:
        assert self.class_names is not None
        of_class = {
            name: self.metrics.measure(prediction == index, target == index, **inputs)
            for index, name in enumerate(self.class_names, start=1)
            if (prediction == index).any() or (target == index).any()
        }
        if not of_class:  # nothing there and nothing found
            return self.metrics.measure(prediction > 0, target > 0, **inputs)
        means = {name: float(np.mean([row[name] for row in of_class.values()])) for name in self.metrics}
        return means | {f"{name}_{of}": value for of, row in of_class.items() for name, value in row.items()}

    def summary(self) -> dict[str, dict[str, Any]]:
        """What the cases' values of each metric come to.

        Returns:
            metric -> ``mean``, its 95 % interval ``ci95`` (see ``utils.intervals``; None for a single case), ``std``,
            ``median``, ``min``, ``max``, ``unit``, ``higher_is_better`` and the number of ``cases``.
        """
        result = {}
        for name in dict.fromkeys(key for row in self.rows for key in row if key != "case"):
            values = np.array([row[name] for row in self.rows if name in row])
            metric = self.metrics[next(key for key in self.metrics if name == key or name.startswith(f"{key}_"))]
            interval = mean_interval(values)
            result[name] = {
                "mean": float(values.mean()),
                "ci95": interval and list(interval),
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
