"""The picture beside each mask."""

import h5py
import numpy as np
from PIL import Image, ImageColor

from prediction.results.preview import draw_mask, save_preview
from utils.visualize import PREDICTION_COLOUR
from verse_utils.labels import label_colours


def columns_and_rows(picture):
    """Where a picture is of the outline's colour."""
    rows, columns = np.nonzero((np.asarray(picture) == ImageColor.getrgb(PREDICTION_COLOUR)).all(axis=2))
    return columns, rows


def test_the_mask_is_outlined_where_it_lies(tmp_path):
    """A box at the patient's right, at the back and the top: left in all pictures from the front, and at the top."""
    image_hu = np.full((40, 50, 60), -1000, np.int16)
    mask = np.zeros(image_hu.shape, np.int32)
    mask[30:36, 5:15, 45:55] = 7
    picture = draw_mask(image_hu, (1, 1, 2), mask, "a name")
    # 50 + 3 * 40 mm are side by side, with gaps of 6 pixels; the highest plane is of 120 mm.
    scale = (1440 - 5 * 6) / 170
    assert picture.height == round(120 * scale) + 36 + 6
    lefts_mm, gaps = np.cumsum([0, 50, 40, 40]), 6 * np.arange(1, 5)
    columns, rows = columns_and_rows(picture)
    sides = {
        "sagittal": (5, 15, 10, 30),
        "coronal": (4, 10, 10, 30),
        "axial": (4, 10, 35, 45),
        "front": (4, 10, 10, 30),
    }
    for left_mm, gap, (left, right, top, bottom) in zip(lefts_mm, gaps, sides.values(), strict=True):
        here = (columns >= left_mm * scale + gap) & (columns < (left_mm + 40) * scale + gap)
        across_mm = (columns[here] - gap) / scale - left_mm
        down_mm = (rows[here] - 36) / scale
        np.testing.assert_allclose([across_mm.min(), across_mm.max()], [left, right], atol=0.5)
        np.testing.assert_allclose([down_mm.min(), down_mm.max()], [top, bottom], atol=0.5)
    with h5py.File(tmp_path / "volumes.h5", "w") as file:
        again = draw_mask(
            file.create_dataset("hu", data=image_hu), (1, 1, 2), file.create_dataset("m", data=mask), "a name"
        )
    assert again.tobytes() == picture.tobytes()


def test_an_empty_mask_and_any_name_are_drawn(tmp_path):
    picture = draw_mask(np.zeros((9, 8, 7), np.int16), (3, 3, 3), np.zeros((9, 8, 7), bool), "Wirbelsäule 脊椎")
    assert not len(columns_and_rows(picture)[0])
    save_preview(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        assert read.size == picture.size


def test_named_vertebrae_have_the_colours_of_the_label_tables_and_their_names_within():
    mask = np.zeros((40, 50, 60), np.uint8)
    mask[10:30, 10:30, 8:22], mask[10:30, 10:30, 30:44] = 21, 20
    picture = draw_mask(np.zeros(mask.shape, np.int16), (2, 2, 2), mask, "a name", {20: "L1", 21: "L2"})
    pixels = np.asarray(picture)
    top, bottom = {}, {}
    for label in (20, 21):
        rows, _ = np.nonzero((pixels == label_colours()[label]).all(axis=2))
        top[label], bottom[label] = rows.min(), rows.max()
        assert np.isin(range(rows.min(), rows.max()), rows).mean() > 0.5  # the outline's sides
    assert top[20] < bottom[20] < bottom[21] and not len(columns_and_rows(picture)[0])
    plain = np.asarray(draw_mask(np.zeros(mask.shape, np.int16), (2, 2, 2), mask, "a name", {20: " ", 21: " "}))
    rows, _ = np.nonzero((pixels != plain).any(axis=2))
    assert top[20] < rows.min() and rows.max() < bottom[21]  # what differs are the names alone
