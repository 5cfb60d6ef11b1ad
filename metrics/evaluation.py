"""Mask files scored by true ones: what ``python -m metrics.evaluate`` computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from metrics.identification import identify, mask_centroids
from metrics.metric_handler import MASK_METRICS, MetricHandler
from metrics.vertebra_metrics import count_findings, dice_of_vertebrae
from utils.intervals import ratio_interval
from verse_utils.errors import UserError
from verse_utils.images import check_same_grid, open_image, read_mask
from verse_utils.labels import LABEL_TABLES, VERTEBRA_NAMES


class Evaluation:
    """Scores of predictions, case by case, each on the grid on which it is stored.

    Args:
        labels: "binary", vertebra or not; or "vertebrae", each by its VerSe label.
        trim_ends_mm: left out at the upper and at the lower end of the field of view, rounded up to whole slices.
    """

    def __init__(self, labels: str = "binary", trim_ends_mm: float = 0.0) -> None:
        self.trim_ends_mm = trim_ends_mm
        self.table = LABEL_TABLES[labels]
        self.is_binary = labels == "binary"
        names = None if self.is_binary else tuple(VERTEBRA_NAMES[label] for label in self.table)
        self.handler = MetricHandler(MASK_METRICS, names)
        # A row a case, as the handler's; of whole vertebrae, what is summed over all cases.
        self.of_vertebrae: list[dict[str, float]] = []

    def add(self, case_id: str, prediction_path: Path, mask_path: Path) -> None:
        """Score a prediction by its true mask. Raises UserError naming the file and the remedy."""
        true_image = open_image(mask_path)
        remedy = "resample it to that grid, labels by the nearest voxel"
        check_same_grid(true_image, open_image(prediction_path), mask_path, prediction_path, "the true mask", remedy)
        prediction, target = read_mask(prediction_path), read_mask(mask_path)
        if not self.is_binary and _is_unnamed(prediction) and not _is_unnamed(target):
            raise UserError(f"{prediction_path}: tells no vertebrae apart, all is 1; score it with --labels binary")
        affine = true_image.affine
        field = without_ends(prediction.shape, affine, self.trim_ends_mm)
        prediction, target = prediction[field], target[field]
        if not prediction.size:
            raise UserError(f"{mask_path}: nothing is left without its ends; give less than {self.trim_ends_mm:g} mm")
        classes = [_to_classes(mask, self.table) for mask in (prediction, target)]
        self.handler.update(case_id, *classes, spacing_mm=nib.affines.voxel_sizes(affine))
        self.of_vertebrae.append(self._measure_vertebrae(prediction, target, affine))

    def _measure_vertebrae(self, prediction: np.ndarray, target: np.ndarray, affine: np.ndarray) -> dict[str, float]:
        if self.is_binary:
            return {} if _is_unnamed(target) else dict(count_findings(prediction > 0, target))
        of_vertebra = dice_of_vertebrae(prediction, target)
        names = identify(mask_centroids(prediction, affine), mask_centroids(target, affine))
        return {
            "vertebrae": len(of_vertebra),
            "vertebra_dice_sum": sum(of_vertebra.values()),
            "identified": sum(names.identified.values()),
            "localised": len(names.error_mm),
            "localisation_error_sum_mm": sum(names.error_mm.values()),
        }

    def vertebra_summary(self) -> dict[str, dict[str, Any]]:
        """Numbers over the vertebrae of all cases; empty where no true mask tells them apart.

        Returns:
            name -> ``value``, its 95 % interval ``ci95`` (cases are drawn, not vertebrae), the ``count`` of vertebrae
            or cases ``over`` which it is a mean, and ``unit``. Binary: the shares ``found``, ``missed``, ``split`` and
            ``merged`` of annotated vertebrae, and ``false_components`` of a case (see ``vertebra_metrics``). Else
            ``vertebra_dice``, the mean over annotated vertebrae, with 0 for missed ones; ``identification_rate`` and
            ``localisation_error_mm`` (see ``identification``), from the centres of mass of both masks.
        """
        if self.is_binary:
            shares = {name: (name, "vertebrae", "1") for name in ("found", "missed", "split", "merged")}
            shares["false_components"] = ("false_components", "cases", "1")
        else:
            shares = {
                "vertebra_dice": ("vertebra_dice_sum", "vertebrae", "1"),
                "identification_rate": ("identified", "vertebrae", "1"),
                "localisation_error_mm": ("localisation_error_sum_mm", "localised", "mm"),
            }
        result = {}
        for name, (part, whole, unit) in shares.items():
            rows = [{"cases": 1, **row} for row in self.of_vertebrae if row]
            pairs = [(row[part], row[whole]) for row in rows if row[whole]]
            if pairs:
                parts, wholes = np.array(pairs, float).T
                interval = ratio_interval(parts, wholes)
                result[name] = {
                    "value": float(parts.sum() / wholes.sum()),
                    "ci95": interval and list(interval),
                    "count": int(wholes.sum()),
                    "over": "cases" if whole == "cases" else "vertebrae",
                    "unit": unit,
                }
        return result

    def rows(self) -> list[dict[str, Any]]:
        """A row a case: its name, its metrics, and the counts over its vertebrae."""
        return [row | counts for row, counts in zip(self.handler.rows, self.of_vertebrae, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """``summary`` of the metrics, ``vertebrae`` and ``cases``."""
        return {"summary": self.handler.summary(), "vertebrae": self.vertebra_summary(), "cases": self.rows()}


def without_ends(shape: Sequence[int], affine: np.ndarray, trim_mm: float) -> tuple[slice, ...]:
    """The field of view without its upper and lower end, as slices of the stored axes.

    Args:
        shape: (I, J, K).
        affine: (4, 4), to RAS mm; the stored axis nearest to RAS' third is the one that is cut.
        trim_mm: of each end, rounded up to whole slices.
    """
    axis = int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == 2)[0])
    slices = int(np.ceil(trim_mm / nib.affines.voxel_sizes(affine)[axis] - 1e-6))
    field = [slice(None)] * 3
    field[axis] = slice(slices, max(slices, shape[axis] - slices))
    return tuple(field)


def _is_unnamed(mask: np.ndarray) -> bool:
    """Whether a mask holds nothing but 1, and so may say "vertebra", not C1."""
    return bool((mask <= 1).all()) and bool(mask.any())


def _to_classes(mask: np.ndarray, table: dict[int, int]) -> np.ndarray:
    classes = np.zeros(256, np.uint8)
    classes[list(table)] = list(table.values())
    return classes[mask]
