"""Scores of mask files by their reference masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from metrics.intervals import ratio_interval
from metrics.mask_metrics import MASK_METRICS
from metrics.metric_handler import MetricHandler
from metrics.predicted_labels import read_prediction
from metrics.vertebra_metrics import FINDING_METRICS, NAME_METRICS, count_findings, count_names
from utils.geometry.matched_grids import match_grid
from verse_utils.errors import UserError
from verse_utils.images import OnGrid, open_image, read_mask
from verse_utils.labels import LABEL_SCHEMES


def score_scan(mask: np.ndarray, grid: OnGrid, path: Path, reference_path: Path) -> dict[str, float]:
    """All mask metrics of a mask, taken as "vertebra or not", in mm on the reference mask's grid, as ``MaskScores``.

    Args:
        mask: (I, J, K) uint8.
        grid: that it lies on: the scan, or the mask's own file.
        path: of it, for messages.
        reference_path: file of the reference mask; on another grid, its voxels are compared with the nearest ones.

    Raises:
        UserError: no mask, or one that shares no space with the scan.
    """
    reference = open_image(reference_path)
    matched = match_grid(mask, grid, reference, (path, reference_path), resample=True)
    return MASK_METRICS.measure(
        matched, read_mask(reference_path), spacing_mm=nib.affines.voxel_sizes(reference.affine)
    )


class MaskScores:
    """Scores of predictions, case by case, each on the grid of its reference mask.

    Args:
        labels: "binary", vertebra or not; or "vertebrae", each by its VerSe label.
        trim_ends_mm: left out at the upper and at the lower end of the field of view, rounded up to whole slices.
        prediction_labels: what the numbers of predictions mean; see ``read_prediction``.
        resample: predictions on other grids are put on those of the reference masks, by the nearest voxel.
    """

    def __init__(
        self, labels: str, trim_ends_mm: float, prediction_labels: str | None = None, resample: bool = False
    ) -> None:
        self.trim_ends_mm, self.resample = trim_ends_mm, resample
        self.prediction_labels = prediction_labels
        self.scheme = LABEL_SCHEMES[labels]
        self.is_binary = labels == "binary"
        self.handler = MetricHandler(MASK_METRICS, None if self.is_binary else self.scheme.class_names)
        # A row a case, as the handler's: counts and sums over its vertebrae.
        self.of_vertebrae: list[dict[str, float]] = []

    def add(self, case_id: str, prediction_path: Path, reference_path: Path) -> None:
        """Score a prediction by its reference mask. Raises UserError naming the file and the remedy."""
        prediction, reference, affine = self._read(prediction_path, reference_path)
        classes = (self.scheme.to_classes(mask) for mask in (prediction, reference))
        self.handler.update(case_id, *classes, spacing_mm=nib.affines.voxel_sizes(affine))
        self.of_vertebrae.append(self._count_vertebrae(prediction, reference, affine))

    def _read(self, prediction_path: Path, reference_path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both masks without the ends of the field of view, and the affine of the whole grid."""
        image, predicted = open_image(reference_path), open_image(prediction_path)
        reference = read_mask(reference_path)
        prediction = read_prediction(prediction_path, self.prediction_labels, reference, self.scheme)
        prediction = match_grid(prediction, predicted, image, (prediction_path, reference_path), self.resample)
        if not self.is_binary and _is_unnamed(prediction) and not _is_unnamed(reference):
            raise UserError(
                f"{prediction_path}: doesn't tell vertebrae apart, all are labelled 1; score it with --labels binary"
            )
        field = without_ends(prediction.shape, image.affine, self.trim_ends_mm)
        if not prediction[field].size:
            raise UserError(
                f"{reference_path}: nothing is left without its ends; give less than {self.trim_ends_mm:g} mm"
            )
        return prediction[field], reference[field], image.affine

    def _count_vertebrae(self, prediction: np.ndarray, reference: np.ndarray, affine: np.ndarray) -> dict[str, float]:
        if not self.is_binary:
            return count_names(prediction, reference, affine)
        return {} if _is_unnamed(reference) else dict(count_findings(prediction > 0, reference))

    def vertebra_summary(self) -> dict[str, dict[str, Any]]:
        """Metrics over the vertebrae of all cases; empty where no reference mask tells them apart.

        Returns:
            name -> ``value``, its 95 % interval ``ci95`` (cases are drawn, not vertebrae), the ``count`` of vertebrae
            or cases ``over`` which it is a mean, and ``unit``; of ``FINDING_METRICS`` for binary masks, else of
            ``NAME_METRICS``.
        """
        result = {}
        for metric in FINDING_METRICS if self.is_binary else NAME_METRICS:
            rows = [{"cases": 1, **row} for row in self.of_vertebrae if row]
            pairs = [(row[metric.part], row[metric.whole]) for row in rows if row[metric.whole]]
            if pairs:
                parts, wholes = np.array(pairs, float).T
                interval = ratio_interval(parts, wholes)
                result[metric.name] = {
                    "value": float(parts.sum() / wholes.sum()),
                    "ci95": interval and list(interval),
                    "count": int(wholes.sum()),
                    "over": "cases" if metric.whole == "cases" else "vertebrae",
                    "unit": metric.unit,
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
    """Whether a mask holds nothing but 1, and so may mean "vertebra", not C1."""
    return bool((mask <= 1).all()) and bool(mask.any())
