"""The handler that keeps the metrics of each case and sums them up, and the metrics of each task."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from metrics.heatmap_metrics import HEATMAP_METRICS
from metrics.intervals import mean_intervals
from metrics.mask_metrics import MASK_METRICS
from metrics.metric import Metric, MetricTable
from metrics.vertebra_metrics import CENTRE_METRICS
from utils.tasks import HEATMAP, SEGMENTATION

# By the task's name.
TASK_METRICS: dict[str, MetricTable[Any]] = {HEATMAP.name: HEATMAP_METRICS, SEGMENTATION.name: MASK_METRICS}

# All metrics by their names.
_METRICS: dict[str, Metric] = {**MASK_METRICS, **HEATMAP_METRICS, **CENTRE_METRICS}


def find_metric(name: str) -> Metric | None:
    """The metric of a column, such as ``dice`` or ``dice_L1``; None where no table has it."""
    return _METRICS.get(split_class(name)[0])


def metrics_of(task: str, columns: Container[str]) -> MetricTable[Any]:
    """The table of a task's metrics; of a localiser that names vertebrae, which its columns tell, that of centres."""
    return CENTRE_METRICS if CENTRE_METRICS.ranked_by in columns else TASK_METRICS[task]


def split_class(name: str) -> tuple[str, str | None]:
    """``dice_L1`` to ("dice", "L1"); the name of a metric that is not of one class to itself and None."""
    plain, _, class_name = name.rpartition("_")
    return (plain, class_name) if plain in _METRICS and name not in _METRICS else (name, None)


def title_of(name: str) -> str:
    """A metric's title, with its class where it has one; of an unknown one, its name in words."""
    plain, class_name = split_class(name)
    metric = find_metric(plain)
    title = metric.title if metric else plain.removesuffix("_mm").removesuffix("_ml").replace("_", " ")
    return f"{title} {class_name}" if class_name else title


class MetricHandler:
    """Metrics of each case, and their summary.

    Args:
        metrics: a task's table.
        class_names: of the classes 1, 2, …; then prediction and reference are class indices, every metric is computed
            for each class that occurs in either, and the column of its plain name holds their mean. None for a single
            mask.
    """

    def __init__(self, metrics: MetricTable[Any], class_names: Sequence[str] | None = None) -> None:
        self.metrics = metrics
        self.class_names = class_names
        self.rows: list[dict[str, Any]] = []

    def update(self, case_id: str, prediction: np.ndarray, reference: np.ndarray, **inputs: Any) -> None:
        """Measure a case and keep its row; arguments as of the table's ``measure``."""
        measure = self.metrics.measure if self.class_names is None else self._measure_classes
        self.rows.append({"case": case_id, **measure(prediction, reference, **inputs)})

    def _measure_classes(self, prediction: np.ndarray, reference: np.ndarray, **inputs: Any) -> dict[str, float]:
        of_class = {}
        for index, name in enumerate(self.class_names or (), start=1):
            predicted, expected = prediction == index, reference == index
            if predicted.any() or expected.any():
                of_class[name] = self.metrics.measure(predicted, expected, **inputs)
        if not of_class:  # nothing to find and nothing found
            return self.metrics.measure(prediction, reference, **inputs)
        means = {name: float(np.mean([row[name] for row in of_class.values()])) for name in self.metrics}
        return means | {f"{name}_{of}": value for of, row in of_class.items() for name, value in row.items()}

    def summary(self) -> dict[str, dict[str, Any]]:
        """What the cases' values of each metric come to.

        Returns:
            metric -> ``mean``, its 95 % interval ``ci95`` (see ``metrics.intervals``; None for a single case), ``std``,
            ``median``, ``min``, ``max``, ``unit``, ``higher_is_better`` and the number of ``cases``.
        """
        names = dict.fromkeys(key for row in self.rows for key in row if key != "case")
        columns = {name: np.array([row[name] for row in self.rows if name in row]) for name in names}
        result = {}
        for (name, values), interval in zip(columns.items(), mean_intervals(list(columns.values())), strict=True):
            metric = self.metrics[split_class(name)[0]]
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
