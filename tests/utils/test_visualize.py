import numpy as np
from matplotlib.image import imread

from utils.visualize import TARGET_COLOUR, draw_curves, draw_planes, planes_through, save_figure


def test_planes_go_through_the_spine_not_through_the_middle():
    mask = np.zeros((20, 30, 40), bool)
    mask[4:7, 20:24, 5:35] = True
    x, y, z = planes_through(mask)
    assert 4 <= x < 7 and 20 <= y < 24 and 5 <= z < 35
    assert planes_through(np.zeros((20, 30, 40))) == (10, 15, 20)


def test_outlines_are_drawn_in_their_colour(tmp_path):
    image = np.zeros((20, 30, 40), np.float32)
    mask = np.zeros((20, 30, 40), bool)
    mask[5:15, 10:20, 10:30] = True
    figure = draw_planes(image, (1, 1, 2), mask, {"input": {}, "target": {TARGET_COLOUR: mask}}, "title")
    save_figure(figure, tmp_path / "a" / "picture.png")
    pixels = imread(tmp_path / "a" / "picture.png")[..., :3]
    wanted = np.array([int(TARGET_COLOUR[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    near = np.abs(pixels - wanted).max(axis=2) < 0.05
    half = near.shape[0] // 2
    assert not near[:half].any() and near[half:].sum() > 100  # the input is shown without the outline


def test_curves(tmp_path):
    history = [{"epoch": n, "train_loss": 1 / n, "validation_loss": 2 / n, "score": n} for n in (1, 2, 3)]
    save_figure(draw_curves(history, "score"), tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").std() > 0.01
