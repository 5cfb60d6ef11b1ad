from metrics.metric_handler import HEATMAP_METRICS, MASK_METRICS
from utils.glossary import GLOSSARY, MAIN_METRICS, RANKED_BY, shown, shown_interval, split_class, title_of


def test_every_metric_is_explained():
    assert {*MASK_METRICS, *HEATMAP_METRICS} <= set(GLOSSARY)
    for task, metrics in {"segmentation": MASK_METRICS, "heatmap": HEATMAP_METRICS}.items():
        assert {RANKED_BY[task], *MAIN_METRICS[task]} <= set(metrics)
        assert metrics[RANKED_BY[task]].higher_is_better


def test_metrics_of_one_class():
    assert split_class("dice_L1") == ("dice", "L1") and split_class("hd95_mm_lumbar") == ("hd95_mm", "lumbar")
    assert split_class("hd95_mm") == ("hd95_mm", None) and split_class("dice") == ("dice", None)
    assert title_of("hd95_mm_T13") == "HD95 T13" and title_of("new_error_mm") == "new error"


def test_numbers_as_people_read_them():
    assert shown(0.89712) == "0.897" and shown(4.58, "mm") == "4.6 mm" and shown(None) == "–"
    assert shown(-0.02, sign=True) == "−0.020" and shown(2.0, "mm", sign=True) == "+2.0 mm"
    assert shown_interval((0.87, 0.92)) == "0.870 to 0.920"
    assert shown_interval((-4.03, 1.0), "mm", sign=True) == "−4.0 to +1.0 mm" and shown_interval(None) == "–"
