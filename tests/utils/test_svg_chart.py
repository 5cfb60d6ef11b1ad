import re
from xml.etree import ElementTree

import pytest

from utils.svg_chart import line_chart, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 10, [0, 2, 4, 6, 8, 10]),
        (0.76, 0.91, [0.76, 0.78, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92]),
        (5, 5, [4.5, 4.75, 5, 5.25, 5.5]),
    ],
)
def test_ticks_are_round_and_reach_from_end_to_end(low, high, expected):
    found = ticks(low, high)
    if low < high:
        assert found == pytest.approx(expected)
    assert found[0] <= low and found[-1] >= high and 3 <= len(found) <= 10


def test_points_lie_where_their_values_are():
    chart = ElementTree.fromstring(
        line_chart("a & b", [1, 2, 3], {"one": [0.0, 1.0, 0.5], "two": [0.2, float("nan"), 1]})
    )
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()] for line in chart.iter("polyline")
    ]
    (x1, y1), (x2, y2), (x3, y3) = lines[0]
    assert x1 < x2 < x3 and x3 - x2 == pytest.approx(x2 - x1)
    assert y2 < y3 < y1 and y3 == pytest.approx((y1 + y2) / 2, abs=0.1)  # up is less in SVG
    assert len(lines[1]) == 2 and chart.get("aria-label") == "a & b"
    assert [title.text for title in chart.iter("title")][1] == "one after epoch 2: 1"


def test_one_epoch_and_no_numbers():
    chart = line_chart("loss", [1], {"one": [0.5]})
    assert "nan" not in chart and len(re.findall("<circle", chart)) == 1
    assert line_chart("loss", [1], {"one": [float("nan")]}) == ""
