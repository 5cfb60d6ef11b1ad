import json

import numpy as np
import pytest

from metrics.metric_handler import HEATMAP_METRICS, MASK_METRICS, MetricHandler
from utils.intervals import mean_interval

A = np.zeros((6, 6, 6), np.uint8)
A[1:4, 1:4, 1:4] = 1
B = np.roll(A, 1, axis=0)


@pytest.mark.parametrize("table", [MASK_METRICS, HEATMAP_METRICS], ids=["mask", "heatmap"])
def test_every_metric_says_unit_and_direction(table):
    pair, inputs = (A > 0, A > 0), {}
    if table is HEATMAP_METRICS:
        pair, inputs = (A.astype(np.float32),) * 2, {"mask": A > 0}
    perfect = table.measure(*pair, spacing_mm=(1, 1, 1), **inputs)
    assert list(perfect) == list(table) and table.measure.__doc__
    for name, metric in table.items():
        endings = [unit for unit in ("mm", "ml") if name.endswith(f"_{unit}")]
        assert metric.unit == (endings[0] if endings else "1")
        assert perfect[name] == (1 if metric.higher_is_better else 0)


def test_summary_and_rows():
    handler = MetricHandler(MASK_METRICS)
    handler.update("a", A, A, spacing_mm=(1, 1, 1))
    handler.update("b", B, A, spacing_mm=(1, 1, 1))
    content = json.loads(json.dumps(handler.as_json(), allow_nan=False))
    assert [row["case"] for row in content["cases"]] == ["a", "b"]
    dice = content["summary"]["dice"]
    assert dice["mean"] == pytest.approx((1 + 2 / 3) / 2) and dice["min"] == pytest.approx(2 / 3)
    assert dice["ci95"] == list(mean_interval([1, 2 / 3]))
    assert dice["cases"] == 2 and dice["higher_is_better"] is True
    assert content["summary"]["hd95_mm"]["unit"] == "mm"
    assert content["summary"]["volume_difference_ml"]["higher_is_better"] is None


def test_a_single_case_has_no_interval():
    handler = MetricHandler(MASK_METRICS)
    handler.update("a", A, A, spacing_mm=(1, 1, 1))
    assert handler.summary()["dice"]["ci95"] is None


def test_classes_have_their_own_columns():
    target = np.zeros((6, 6, 6), np.uint8)
    target[:3], target[3:5] = 1, 2
    prediction = target.copy()
    prediction[3:5] = 0
    handler = MetricHandler(MASK_METRICS, class_names=("cervical", "thoracic", "lumbar"))
    handler.update("a", prediction, target, spacing_mm=(1, 1, 1))
    row = handler.rows[0]
    assert (row["dice_cervical"], row["dice_thoracic"], row["dice"]) == (1, 0, 0.5)
    assert "dice_lumbar" not in row  # neither there nor found
    assert row["volume_difference_ml_thoracic"] == pytest.approx(-72 / 1000)
    summary = handler.summary()
    assert summary["hd95_mm_thoracic"]["unit"] == "mm" and summary["surface_dice_1mm_thoracic"]["unit"] == "1"


def test_any_foreground_counts_without_classes():
    handler = MetricHandler(MASK_METRICS)
    handler.update("a", A * 5, A, spacing_mm=(1, 1, 1))
    assert handler.rows[0]["dice"] == 1
