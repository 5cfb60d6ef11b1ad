import json

import numpy as np
import pytest

from metrics.intervals import mean_interval
from metrics.mask_metrics import MASK_METRICS
from metrics.metric_handler import MetricHandler

A = np.zeros((6, 6, 6), np.uint8)
A[1:4, 1:4, 1:4] = 1
B = np.roll(A, 1, axis=0)


def test_summary_and_rows():
    handler = MetricHandler(MASK_METRICS)
    handler.update("a", A, A, spacing_mm=(1, 1, 1))
    handler.update("b", B, A, spacing_mm=(1, 1, 1))
    content = json.loads(json.dumps(handler.as_json(), allow_nan=False))
    assert [row["case"] for row in content["cases"]] == ["a", "b"]
    dice = content["summary"]["dice"]
    assert dice["mean"] == dice["median"] == pytest.approx((1 + 2 / 3) / 2) and dice["std"] == pytest.approx(1 / 6)
    assert dice["min"] == pytest.approx(2 / 3) and dice["max"] == 1
    assert dice["ci95"] == list(mean_interval([1, 2 / 3]))
    assert dice["cases"] == 2 and dice["higher_is_better"] is True
    assert content["summary"]["hd95_mm"]["unit"] == "mm"
    assert content["summary"]["volume_difference_ml"]["higher_is_better"] is None


def test_a_single_case_has_no_interval():
    handler = MetricHandler(MASK_METRICS)
    handler.update("a", A, A, spacing_mm=(1, 1, 1))
    assert handler.summary()["dice"]["ci95"] is None


def test_classes_have_their_own_columns():
    reference = np.zeros((6, 6, 6), np.uint8)
    reference[:3], reference[3:5] = 1, 2
    prediction = reference.copy()
    prediction[3:5], prediction[5] = 0, 3
    handler = MetricHandler(MASK_METRICS, class_names=("cervical", "thoracic", "lumbar", "sacral"))
    handler.update("a", prediction, reference, spacing_mm=(1, 1, 1))
    row = handler.rows[0]
    assert (row["dice_cervical"], row["dice_thoracic"], row["dice_lumbar"]) == (1, 0, 0)  # found, missed, false
    assert row["dice"] == pytest.approx(1 / 3)
    assert "dice_sacral" not in row  # neither there nor found
    assert row["volume_difference_ml_thoracic"] == pytest.approx(-72 / 1000)
    handler.update("nothing", np.zeros_like(reference), np.zeros_like(reference), spacing_mm=(1, 1, 1))
    assert handler.rows[1]["dice"] == 1 and "dice_cervical" not in handler.rows[1]
    summary = handler.summary()
    assert summary["hd95_mm_thoracic"]["unit"] == "mm" and summary["surface_dice_1mm_thoracic"]["unit"] == "1"


def test_any_foreground_counts_without_classes():
    handler = MetricHandler(MASK_METRICS)
    handler.update("a", A * 5, A, spacing_mm=(1, 1, 1))
    assert handler.rows[0]["dice"] == 1
