import json

import numpy as np
import pytest

from metrics.metric_handler import HEATMAP_METRICS, MASK_METRICS, MetricHandler

A = np.zeros((6, 6, 6), np.uint8)
A[1:4, 1:4, 1:4] = 1
B = np.roll(A, 1, axis=0)


@pytest.mark.parametrize("table", [MASK_METRICS, HEATMAP_METRICS], ids=["mask", "heatmap"])
def test_every_metric_says_unit_direction_and_its_value_for_empty_masks(table):
    for name, metric in table.items():
        assert metric.unit in ("1", "mm") and name.endswith("_mm") == (metric.unit == "mm")
        assert metric.function.__doc__
        inputs = {"mask": A > 0} if table is HEATMAP_METRICS else {}
        perfect = (
            metric.function(A > 0, A > 0, spacing_mm=(1, 1, 1), **inputs)
            if not inputs
            else metric.function(A.astype(np.float32), A.astype(np.float32), spacing_mm=(1, 1, 1), **inputs)
        )
        assert perfect == (1 if metric.higher_is_better else 0)


def test_summary_and_rows():
    handler = MetricHandler(MASK_METRICS)
    handler.update("a", A, A, spacing_mm=(1, 1, 1))
    handler.update("b", B, A, spacing_mm=(1, 1, 1))
    content = json.loads(json.dumps(handler.as_json(), allow_nan=False))
    assert [row["case"] for row in content["cases"]] == ["a", "b"]
    dice = content["summary"]["dice"]
    assert dice["mean"] == pytest.approx((1 + 2 / 3) / 2) and dice["min"] == pytest.approx(2 / 3)
    assert dice["cases"] == 2 and dice["higher_is_better"] is True
    assert content["summary"]["hd95_mm"]["unit"] == "mm"


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
    assert handler.summary()["hd95_mm_thoracic"]["unit"] == "mm"


def test_any_foreground_counts_without_classes():
    handler = MetricHandler(MASK_METRICS)
    handler.update("a", A * 5, A, spacing_mm=(1, 1, 1))
    assert handler.rows[0]["dice"] == 1
