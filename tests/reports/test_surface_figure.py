from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from reports.surface_figure import PREDICTION_TRIANGLES, REFERENCE_TRIANGLES, error_figure, label_figure, write_page
from verse_utils.labels import label_colours


def test_a_figure_names_the_errors_in_mm_and_stays_small():
    offsets = np.moveaxis(np.indices((140, 120, 120)), 0, -1) - [69.5, 59.5, 59.5]
    reference = ((offsets / [65, 55, 50]) ** 2).sum(axis=-1) < 1
    prediction = np.roll(reference, 4, axis=2)
    figure = error_figure(prediction, reference, np.eye(4), "case")
    found, expected, letters = figure.data
    assert len(found.i) <= PREDICTION_TRIANGLES and len(expected.i) <= REFERENCE_TRIANGLES
    assert len(figure.to_json()) < 1.5e6
    assert (found.cmin, found.cmax) == (0, 5) and found.intensity.max() == pytest.approx(4, abs=0.3)
    assert found.showlegend and expected.showlegend and expected.opacity < 0.5
    letter_at = dict(zip(letters.text, zip(letters.x, letters.y, letters.z, strict=True), strict=True))
    for axis, (low, high) in enumerate(["LR", "PA", "IS"]):
        assert letter_at[low][axis] < 60 < letter_at[high][axis]
    scene = figure.layout.scene
    mm = [scene[f"{name}axis"].range[1] - scene[f"{name}axis"].range[0] for name in "xyz"]
    assert np.ptp([scene.aspectratio[name] / size for name, size in zip("xyz", mm, strict=True)]) < 1e-9


def test_each_label_of_a_mask_alone_has_its_name_and_colour():
    mask = np.zeros((20, 20, 40), np.uint8)
    for label, low in ((20, 2), (28, 12), (19, 22)):
        mask[5:15, 5:15, low : low + 8] = label
    figure = label_figure(mask, np.eye(4), "case")
    assert [trace.name for trace in figure.data[:-1]] == ["T12", "T13", "L1"]
    colours = label_colours()
    assert [trace.color for trace in figure.data[:-1]] == [
        "#{:02x}{:02x}{:02x}".format(*colours[label]) for label in (19, 28, 20)
    ]
    named = label_figure(mask, np.eye(4), "case", {20: "lumbar", 19: "thoracic"})
    assert [trace.name for trace in named.data[:-1]] == ["thoracic", "label 28", "lumbar"]
    assert [trace.name for trace in label_figure(mask == 20, np.eye(4), "case").data[:-1]] == ["mask"]


def test_empty_masks_give_a_figure_too():
    empty, mask = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    assert [trace.name for trace in error_figure(empty, mask, np.eye(4), "missed").data[:-1]] == ["reference"]
    invented = error_figure(mask, empty, np.eye(4), "invented").data[0]
    assert invented.name == "prediction" and invented.intensity is None
    assert "no vertebra" in error_figure(empty, empty, np.eye(4), "nothing").layout.annotations[0].text
    assert "no vertebra" in label_figure(empty, np.eye(4), "nothing").layout.annotations[0].text


def test_a_page_shows_the_surface_without_a_network_or_an_error(tmp_path, open_page):
    reference = np.zeros((40, 40, 60), bool)
    reference[10:30, 10:30, 10:50] = True
    prediction = np.roll(reference, 8, axis=1)
    prediction[:, :, :15] = False
    write_page(error_figure(prediction, reference, np.eye(4), "case one"), tmp_path / "page.html")
    assert 'src="http' not in (tmp_path / "page.html").read_text(encoding="utf-8")
    page, console = open_page(tmp_path / "page.html")
    page.locator("canvas").first.wait_for()
    page.get_by_text("distance to").first.wait_for()
    assert console == [] and "case one" in page.content()
    middle = imread(BytesIO(page.screenshot()))[200:650, 400:1000, :3]
    red, blue = middle[..., 0], middle[..., 2]
    assert (red - blue > 0.2).mean() > 0.05  # the front is 8 mm off: the far end of the scale
    grey = (np.ptp(middle, axis=-1) < 0.02) & (red > 0.4) & (red < 0.9)
    assert grey.mean() > 0.01  # what was missed
