import re
from xml.etree import ElementTree

import pytest

from reports.svg_chart import line_chart

SVG = "{http://www.w3.org/2000/svg}"
LINES = {"one": [0.0, 1.0, 0.5], "two": [0.2, float("nan"), 1.0]}


def markers(chart, number):
    """(x, y) of the markers of a line, down is more."""
    uses = ElementTree.fromstring(chart).iter(f"{SVG}use")
    return [(float(use.get("x")), float(use.get("y"))) for use in uses if f"--line-{number}" in use.get("style")]


def test_points_lie_where_their_values_are():
    chart = line_chart([1, 2, 3], LINES)
    (x1, y1), (x2, y2), (x3, y3) = markers(chart, 1)
    assert x1 < x2 < x3 and x3 - x2 == pytest.approx(x2 - x1)
    assert y2 < y3 < y1 and y3 == pytest.approx((y1 + y2) / 2, abs=0.1)
    (first, height), (third, top) = markers(chart, 2)
    assert (first, third) == (x1, x3) and top == y2 and height == pytest.approx(y1 + 0.2 * (y2 - y1), abs=0.1)


def test_a_line_without_a_value_is_left_out():
    chart = line_chart([1, 2], {"one": [float("nan")] * 2, "two": [0.2, 0.4]})
    assert not markers(chart, 1) and len(markers(chart, 2)) == 2


def test_epochs_are_whole_numbers():
    texts = [text.text for text in ElementTree.fromstring(line_chart([1, 2, 3], {"one": [7, 8, 9]})).iter(f"{SVG}text")]
    assert texts[: texts.index("epoch")] == ["1", "2", "3"]


def test_the_page_gives_the_colours():
    chart = line_chart([1, 2, 3], LINES)
    assert not re.search("#[0-9a-f]{6};", chart)
    for name in ("soft", "rule", "line-1", "line-2"):
        assert f"var(--{name})" in chart


def test_equal_charts_are_equal_text_and_share_ids_only_with_equal_shapes():
    chart, other = line_chart([1, 2, 3], LINES), line_chart([1, 2], {"one": [0.5, 0.4]})
    assert chart == line_chart([1, 2, 3], LINES)
    shapes = [dict(re.findall(r'id="([^"]*)"([^/]*)', text)) for text in (chart, other)]
    assert shapes[0] and all(shapes[0][name] == shapes[1][name] for name in shapes[0].keys() & shapes[1].keys())


def test_one_epoch_and_no_numbers():
    chart = line_chart([1], {"one": [0.5]})
    assert "nan" not in chart.lower() and len(markers(chart, 1)) == 1
    assert line_chart([1], {"one": [float("nan")]}) == ""
