import numpy as np
import pytest

from utils.geometry.curved_reformat import centre_line, straightened

Z_MM = 300


def tube(bend_mm, spacing_mm, radius_mm=9.0, wave_mm=280.0):
    """A tube through 90×90×300 mm that swings by ``bend_mm`` along X and Y, and its middle (Z, 2) in mm."""
    x, y, z = (np.arange(round(size / step)) * step for size, step in zip((90, 90, Z_MM), spacing_mm, strict=True))
    phase = 2 * np.pi * z / wave_mm
    middle = np.stack([45 + bend_mm[0] * np.sin(phase), 40 + bend_mm[1] * np.cos(phase)], axis=1)
    across = (x[:, None, None] - middle[:, 0]) ** 2 + (y[:, None] - middle[:, 1]) ** 2
    return across < radius_mm**2, middle


def row_centres(picture):
    return (picture * np.arange(picture.shape[1])).sum(axis=1) / picture.sum(axis=1)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 1.2, 2.5)])
def test_a_bent_tube_becomes_straight(spacing_mm):
    mask, middle = tube((18, 10), spacing_mm)
    assert np.ptp(middle[:, 0]) > 30
    line = centre_line(mask, spacing_mm)
    for plane in ("sagittal", "coronal"):
        picture = straightened(mask, spacing_mm, line, plane, (30, 20), fill=0, nearest=True)
        assert picture.dtype == bool and picture.shape == (len(line.points_mm), 51)
        soft = straightened(mask.astype(np.float32), spacing_mm, line, plane, (30, 20), fill=0)
        assert np.abs(row_centres(soft) - 30).max() < 1
        assert abs(picture.sum(axis=1).mean() - 18) < 1  # as wide as it is


def test_millimetres_along_the_line_are_those_of_the_curve():
    spacing_mm = (1.0, 1.0, 2.0)
    mask, middle = tube((18, 10), spacing_mm)
    line = centre_line(mask, spacing_mm)
    steps = np.linalg.norm(np.diff(line.points_mm, axis=0), axis=1)
    assert np.allclose(steps, 1, atol=0.01)
    curve = np.column_stack([middle, np.arange(len(middle)) * 2.0])
    lengths = np.concatenate([[0], np.linalg.norm(np.diff(curve, axis=0), axis=1).cumsum()])
    assert len(line.points_mm) == pytest.approx(lengths[-1], rel=0.01) and lengths[-1] > Z_MM + 5
    for index in (0, 50, 120):
        assert line.length_at(index * 2.0) == pytest.approx(lengths[index], abs=1.5)


def test_a_straight_spine_is_shown_as_it_is():
    mask, _ = tube((0, 0), (1.0, 1.0, 1.0))
    image = np.random.default_rng(0).integers(-1000, 1500, mask.shape).astype(np.int16)
    line = centre_line(mask, (1.0, 1.0, 1.0))
    sagittal = straightened(image, (1.0, 1.0, 1.0), line, "sagittal", (30, 30), fill=-1000)
    coronal = straightened(image, (1.0, 1.0, 1.0), line, "coronal", (30, 30), fill=-1000)
    assert sagittal.dtype == np.int16
    assert np.abs(sagittal - image[45, 10:71].T).max() <= 1  # rounding
    assert np.abs(coronal - image[15:76, 40].T).max() <= 1


def test_a_gap_is_bridged_and_the_ends_go_straight_on():
    mask, _ = tube((18, 0), (1.0, 1.0, 1.0))
    full = centre_line(mask, (1.0, 1.0, 1.0))
    mask[..., 90:115] = False
    gap = centre_line(mask, (1.0, 1.0, 1.0))
    assert np.abs(gap.points_mm[80:140, 0] - full.points_mm[80:140, 0]).max() < 2
    mask[..., :60] = mask[..., 180:] = False
    ends = centre_line(mask, (1.0, 1.0, 1.0))
    steps = np.diff(ends.points_mm, axis=0)
    first, last = ends.length_at(61), ends.length_at(178)  # what is left of the mask reaches from 60 to 179 mm
    for part, inside in ((steps[:40], steps[first]), (steps[-40:], steps[last])):
        assert np.abs(part - part[0]).max() < 0.01 and np.abs(part[0, 0]) > 0.1
        assert np.abs(part - inside).max() < 0.03
    assert ends.points_mm[0, 2] == 0 and ends.points_mm[-1, 2] == pytest.approx(Z_MM - 1, abs=1)


def test_processes_draw_the_line_little():
    mask, _ = tube((0, 0), (1.0, 1.0, 1.0))
    for low in range(0, Z_MM, 30):  # thin ones that reach far behind, as a spinous process does
        mask[43:48, 2:40, low : low + 12] = True
    line = centre_line(mask, (1.0, 1.0, 1.0))
    assert np.abs(line.points_mm[:, 1] - 40).max() < 3


def test_a_voxel_counts_by_the_square_of_its_depth():
    mask = np.zeros((12, 40, 1), bool)
    mask[4:7, 20:23] = mask[5, 23:26] = True  # a body of 3×3 and a process, along Y: squares of depths by hand
    squares = {20: 1 + 1 + 1, 21: 1 + 4 + 1, 22: 1 + 2 + 1, 23: 1, 24: 1, 25: 1}
    y = sum(y * weight for y, weight in squares.items()) / sum(squares.values())
    np.testing.assert_allclose(centre_line(mask, (1.0, 1.0, 1.0)).points_mm[0], (5, y, 0))


@pytest.mark.parametrize("planes", [0, 1, 3])
def test_too_little_to_follow_gives_a_straight_line(planes):
    mask = np.zeros((20, 30, 40), bool)
    mask[4:7, 20:25, 10 : 10 + planes] = True
    line = centre_line(mask, (1.0, 2.0, 3.0))
    assert np.allclose(line.points_mm[:, :2], (5, 44) if planes else (9.5, 29))
    assert len(line.points_mm) == 39 * 3 + 1
    assert straightened(mask, (1.0, 2.0, 3.0), line, "coronal", (5, 5), fill=0, nearest=True).any() == bool(planes)


def test_outside_the_volume_is_the_fill():
    mask, _ = tube((0, 0), (1.0, 1.0, 1.0))
    line = centre_line(mask, (1.0, 1.0, 1.0))
    picture = straightened(np.zeros(mask.shape, np.float32), (1.0, 1.0, 1.0), line, "coronal", (60, 30), fill=-1000)
    assert (picture[:, :14] == -1000).all() and np.allclose(picture[:, 16:], 0, atol=1e-3)
