import numpy as np
import pytest

from metrics.heatmap_metrics import HeatmapPair
from metrics.mask_metrics import MASK_METRICS, MaskPair
from metrics.metric import MetricTable, WhenEmpty, shown, shown_interval
from metrics.metric_handler import TASK_METRICS, find_metric, split_class, title_of

SPACING_MM = (1.0, 2.0, 2.0)
EMPTY = np.zeros((4, 4, 7), bool)
FULL = EMPTY.copy()
FULL[1:3, 1:3, 2:5] = True
DIAGONAL_MM = np.sqrt(4**2 + 8**2 + 14**2)

METRICS = [(task, name) for task, table in TASK_METRICS.items() for name in table]


def pair_of(task, prediction, reference):
    if task == "segmentation":
        return MaskPair(prediction, reference, SPACING_MM)
    return HeatmapPair(prediction.astype(float), reference.astype(float), reference, SPACING_MM)


@pytest.mark.parametrize(("task", "name"), METRICS)
def test_every_metric_keeps_what_it_declares(task, name):
    metric = TASK_METRICS[task][name]
    assert metric(pair_of(task, FULL, FULL)) == metric.best
    known = {WhenEmpty.GRID_DIAGONAL: DIAGONAL_MM}
    cases = {(False, False): metric.both_empty, (True, False): metric.one_empty, (False, True): metric.one_empty}
    for (has_prediction, has_reference), declared in cases.items():
        pair = pair_of(task, FULL if has_prediction else EMPTY, FULL if has_reference else EMPTY)
        expected = metric.compute(pair) if declared is WhenEmpty.COMPUTED else known.get(declared, declared)
        assert metric(pair) == pytest.approx(expected) and np.isfinite(expected)


@pytest.mark.parametrize(("task", "name"), METRICS)
def test_every_metric_says_what_it_is(task, name):
    metric = find_metric(name)
    assert metric is TASK_METRICS[task][name] and metric.name == name
    assert metric.title and not metric.explanation[0].islower() and not metric.explanation.endswith(".")
    endings = [unit for unit in ("mm", "ml") if name.endswith(f"_{unit}")]
    assert metric.unit == (endings[0] if endings else "1")


def test_main_metrics_in_the_order_of_the_table():
    assert MASK_METRICS.main == ("dice", "precision", "recall", "hd95_mm") and MASK_METRICS.ranked_by == "dice"
    assert TASK_METRICS["heatmap"].main == ("box_iou", "spine_in_box", "box_centre_error_mm")
    assert all(table[table.ranked_by].higher_is_better for table in TASK_METRICS.values())


def test_a_new_metric_is_a_function_in_a_table():
    table = MetricTable(MaskPair)

    @table.metric("Volume", unit="ml", higher_is_better=None, both_empty=0.0, one_empty=WhenEmpty.COMPUTED)
    def volume_ml(pair):
        """Volume of the prediction,
        in millilitres.

        More about it.
        """
        return pair.prediction_vox * 4 / 1000

    assert volume_ml.explanation == "Volume of the prediction, in millilitres"
    assert volume_ml.scale_and_best == "ml, 0 is perfect" and volume_ml.values_when_empty == ("0", "computed as usual")
    assert table.measure(FULL, EMPTY, spacing_mm=SPACING_MM) == {"volume_ml": pytest.approx(12 * 4 / 1000)}


def test_metrics_of_one_class():
    assert split_class("dice_L1") == ("dice", "L1") and split_class("hd95_mm_lumbar") == ("hd95_mm", "lumbar")
    assert split_class("dice_upper lumbar") == ("dice", "upper lumbar") and split_class("new_L1") == ("new_L1", None)
    assert split_class("hd95_mm") == ("hd95_mm", None) and split_class("dice") == ("dice", None)
    assert title_of("hd95_mm_T13") == "HD95 T13" and title_of("new_error_mm") == "new error"
    assert find_metric("dice_L1") is MASK_METRICS["dice"] and find_metric("new_error_mm") is None


def test_numbers_as_people_read_them():
    assert shown(0.89712) == "0.897" and shown(4.58, "mm") == "4.6 mm" and shown(None) == "–"
    assert shown(-0.02, sign=True) == "−0.020" and shown(2.0, "mm", sign=True) == "+2.0 mm"
    assert shown_interval((0.87, 0.92)) == "0.870 to 0.920"
    assert shown_interval((-4.03, 1.0), "mm", sign=True) == "−4.0 to +1.0 mm" and shown_interval(None) == "–"
