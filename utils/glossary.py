"""What the metrics are called, what they mean, and which of them tell most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from verse_utils.labels import VERTEBRA_NAMES


class Term(NamedTuple):
    """What a metric is called, what its numbers are, and what they mean."""

    title: str
    scale: str
    explanation: str


# Higher is better for both: cases are ranked by it.
RANKED_BY = {"segmentation": "dice", "heatmap": "box_iou"}
# What pictures show of each task, as far as a run has it.
MAIN_METRICS = {
    "segmentation": ("dice", "precision", "recall", "hd95_mm"),
    "heatmap": ("box_iou", "spine_in_box", "box_centre_error_mm"),
}

SHARE = "share, 1 is perfect"
GLOSSARY: dict[str, Term] = {
    "dice": Term("Dice", SHARE, "twice the volume that prediction and target share, over the sum of both volumes"),
    "iou": Term("IoU", SHARE, "the volume that prediction and target share, over the volume that either takes"),
    "precision": Term("Precision", SHARE, "how much of what was found is vertebra"),
    "recall": Term("Recall", SHARE, "how much of the vertebrae was found"),
    "volume_difference_ml": Term("Volume difference", "ml, 0 is perfect", "found volume minus true volume"),
    "hd_mm": Term("HD", "mm, 0 is perfect", "the farthest that any point of one surface lies from the other surface"),
    "hd95_mm": Term(
        "HD95", "mm, 0 is perfect", "95 % of the points on each surface lie at most this far from the other"
    ),
    "mean_surface_distance_mm": Term("Mean surface distance", "mm, 0 is perfect", "how far the surfaces lie apart"),
    "surface_dice_1mm": Term("Surface Dice, 1 mm", SHARE, "how much of both surfaces lies within 1 mm of the other"),
    "surface_dice_3mm": Term("Surface Dice, 3 mm", SHARE, "how much of both surfaces lies within 3 mm of the other"),
    "mae": Term("MAE", "0 to 1, 0 is perfect", "mean absolute error of the heatmap's values"),
    "rmse": Term("RMSE", "0 to 1, 0 is perfect", "root of the mean squared error of the heatmap's values"),
    "r2": Term("R²", "at most 1", "how much of the heatmap's variation is explained; 0 is no better than its mean"),
    "box_iou": Term("Box IoU", SHARE, "the volume that the found and the true box share, over the volume of either"),
    "spine_in_box": Term("Spine in box", SHARE, "how much of the spine the found box holds"),
    "box_centre_error_mm": Term("Box centre error", "mm, 0 is perfect", "how far the boxes' centres lie apart"),
}
# By a metric's ``higher_is_better``; None where the sign tells which way it is off.
BETTER = {True: "higher is better", False: "lower is better", None: "0 is best"}

_CLASS_NAMES = {"cervical", "thoracic", "lumbar", *VERTEBRA_NAMES.values()}


def split_class(metric: str) -> tuple[str, str | None]:
    """``dice_L1`` to ("dice", "L1"); a metric that is of no one class to itself and None."""
    plain, _, name = metric.rpartition("_")
    return (plain, name) if plain and name in _CLASS_NAMES else (metric, None)


def title_of(metric: str) -> str:
    """A metric's title, with its class where it has one."""
    plain, name = split_class(metric)
    title = (
        GLOSSARY[plain].title if plain in GLOSSARY else plain.removesuffix("_mm").removesuffix("_ml").replace("_", " ")
    )
    return f"{title} {name}" if name else title


def shown(value: float | None, unit: str = "1", sign: bool = False) -> str:
    """A value as people read it: 0.897, 4.6 mm, or with its sign; a dash for None."""
    if value is None:
        return "–"
    return _digits(value, unit, sign) + ("" if unit == "1" else f" {unit}")


def shown_interval(interval: Sequence[float] | None, unit: str = "1", sign: bool = False) -> str:
    """An interval as people read it: 0.871 to 0.923, or 2.1 to 9.7 mm; a dash for None."""
    if interval is None:
        return "–"
    low, high = interval
    return f"{_digits(low, unit, sign)} to {shown(high, unit, sign)}"


def _digits(value: float, unit: str, sign: bool) -> str:
    return f"{value:{'+' if sign else ''}.{3 if unit == '1' else 1}f}".replace("-", "−")
