import numpy as np
import pytest
from matplotlib.image import imread

from utils.visualize import (
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    draw_comparison,
    draw_curves,
    draw_planes,
    planes_through,
    save_figure,
)


def test_planes_go_through_the_spine_not_through_the_middle_of_the_scan():
    mask = np.zeros((20, 30, 40), bool)
    mask[4:7, 20:24, 5:35] = True
    x, y, z = planes_through(mask)
    assert 4 <= x < 7 and 20 <= y < 24 and 5 <= z < 35
    assert planes_through(np.zeros((20, 30, 40))) == (10, 15, 20)
    assert planes_through(mask.astype(np.uint8) * np.arange(1, 41, dtype=np.uint8)) == (x, y, z)


def test_outlines_are_drawn_in_their_colour(tmp_path):
    image = np.zeros((20, 30, 40), np.float32)
    mask = np.zeros((20, 30, 40), bool)
    mask[5:15, 10:20, 10:30] = True
    figure = draw_planes(image, (1, 1, 2), mask, {"input": {}, "target": {REFERENCE_COLOUR: mask}}, "title")
    save_figure(figure, tmp_path / "a" / "picture.png")
    pixels = imread(tmp_path / "a" / "picture.png")[..., :3]
    wanted = np.array([int(REFERENCE_COLOUR[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    near = np.abs(pixels - wanted).max(axis=2) < 0.05
    half = near.shape[0] // 2
    assert not near[:half].any() and near[half:].sum() > 100  # the input is shown without the outline


def test_curves(tmp_path):
    history = [{"epoch": n, "train_loss": 1 / n, "validation_loss": 2 / n, "score": n} for n in (1, 2, 3)]
    save_figure(draw_curves(history, "score"), tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").std() > 0.01


def colour_near(pixels, colour, share):
    """Where pixels are a mixture of this colour (its share) and grey."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    rest = (pixels - share * rgb) / (1 - share)
    return np.ptp(rest, axis=-1) < 0.04


def comparison(tmp_path, prediction, reference):
    figure = draw_comparison(np.zeros(reference.shape, np.int16), (1, 1, 2), prediction, reference, "case")
    save_figure(figure, tmp_path / "picture.png")
    return figure, imread(tmp_path / "picture.png")[..., :3]


def test_false_voxels_are_filled_in_the_colour_of_the_mask_that_holds_them(tmp_path):
    reference = np.zeros((60, 80, 90), np.uint8)
    reference[20:40, 30:50, 10:80] = 20
    figure, pixels = comparison(tmp_path, reference > 0, reference)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.texts][:4] == [
        "reference",
        "prediction",
        "false negative",
        "false positive",
    ]
    inside = pixels[200:-150]  # without title and legend
    where_equal = [colour_near(inside, colour, 0.55).sum() for colour in (REFERENCE_COLOUR, PREDICTION_COLOUR)]
    prediction = reference > 0
    prediction[..., 50:] = False
    prediction[50:58, 30:50, 20:30] = True
    figure, pixels = comparison(tmp_path, prediction, reference)
    missed, invented = (colour_near(pixels[200:-150], c, 0.55).sum() for c in (REFERENCE_COLOUR, PREDICTION_COLOUR))
    assert missed > where_equal[0] + 5000 and invented > where_equal[1] + 300
    assert "400 mm² false" in figure.axes[3].get_title()  # 20 × 20 mm in every missed slice


def test_axes_of_a_comparison_are_in_mm_and_have_one_scale(tmp_path):
    reference = np.zeros((60, 80, 90), bool)
    reference[20:40, 30:50, 10:80] = True
    figure, _ = comparison(tmp_path, reference, reference)
    assert all(ax.get_aspect() == 1 for ax in figure.axes)
    sagittal, coronal, middle, _ = figure.axes
    assert sagittal.get_ylim() == coronal.get_ylim() == (-0.5, 178.5)  # 89 steps of 2 mm
    assert coronal.xaxis_inverted() and middle.xaxis_inverted() and not sagittal.xaxis_inverted()
    assert {float(line.get_ydata()[0]) for line in sagittal.lines} == {90.0}  # the axial planes


@pytest.mark.parametrize("which", ["no prediction", "no reference", "neither"])
def test_a_comparison_with_an_empty_mask_is_drawn(tmp_path, which):
    mask = np.zeros((40, 40, 40), bool)
    mask[10:20, 10:20, 10:30] = True
    empty = np.zeros_like(mask)
    prediction, reference = {"no prediction": (empty, mask), "no reference": (mask, empty), "neither": (empty, empty)}[
        which
    ]
    _, pixels = comparison(tmp_path, prediction, reference)
    assert pixels.std() > 0.01
