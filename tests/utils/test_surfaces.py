import struct
from collections import Counter

import nibabel as nib
import numpy as np
import pytest

from utils.surfaces import (
    PREDICTION_TRIANGLES,
    TARGET_TRIANGLES,
    distances_mm,
    error_figure,
    reduced,
    surface_of,
    write_page,
    write_stl,
)

# Anisotropic, turned by 0.3 about Z and by 0.2 about X, stored left-handed (first axis to the left).
TURN = nib.eulerangles.euler2mat(0.3, 0, 0.2)
OBLIQUE = nib.affines.from_matvec(TURN @ np.diag([-1.0, 1.5, 2.5]), [30.0, -20.0, 700.0])


def ellipsoid(affine, radii_mm, shape=(60, 50, 40)):
    """An ellipsoid around the middle of the grid, and its centre in mm."""
    affine = np.asarray(affine, float)
    points = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    centre = nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    return (((points - centre) / radii_mm) ** 2).sum(axis=-1) < 1, centre


def edges(triangles):
    return Counter((int(a), int(b)) for t in triangles for a, b in zip(t, np.roll(t, -1), strict=True))


def test_a_sphere_has_its_area_and_its_volume():
    mask, centre = ellipsoid(np.eye(4), 15.0)
    surface = surface_of(mask, np.eye(4))
    assert surface.area_mm2 == pytest.approx(4 * np.pi * 15**2, rel=0.03)
    assert surface.volume_mm3 == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.02)
    radius = np.linalg.norm(surface.points_mm - centre, axis=1)
    assert np.abs(radius - 15).max() < 0.6
    assert surface.points_mm.dtype == np.float32 and surface.triangles.dtype == np.int32


@pytest.mark.parametrize("affine", [OBLIQUE, OBLIQUE @ np.diag([-1, 1, 1, 1])], ids=["left-handed", "right-handed"])
def test_an_oblique_anisotropic_ellipsoid_lies_where_its_affine_says_and_faces_outwards(affine):
    radii = np.array([18.0, 24.0, 30.0])
    mask, centre = ellipsoid(affine, radii)
    surface = surface_of(mask, affine)
    assert surface.volume_mm3 == pytest.approx(4 / 3 * np.pi * radii.prod(), rel=0.03)  # inside out: negative
    assert surface.volume_mm3 == pytest.approx(mask.sum() * 1.5 * 2.5, rel=0.03)
    on_unit_sphere = np.linalg.norm((surface.points_mm - centre) / radii, axis=1)
    assert np.abs(on_unit_sphere - 1).max() < 0.1


def test_voxels_finer_than_a_surface_needs_are_averaged():
    affine = np.diag([0.25, 0.25, 2.0, 1.0])
    mask, _ = ellipsoid(affine, 10.0, shape=(90, 91, 14))
    surface = surface_of(mask, affine)
    coarse_affine = np.diag([0.75, 0.75, 2.0, 1.0])
    coarse = surface_of(ellipsoid(coarse_affine, 10.0)[0], coarse_affine)
    assert len(surface.points_mm) == pytest.approx(len(coarse.points_mm), rel=0.1)
    assert surface.volume_mm3 == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.03)
    assert np.allclose(surface.points_mm.mean(axis=0), [44.5 * 0.25, 45 * 0.25, 13], atol=0.1)


def test_a_mask_at_the_border_is_closed_there():
    surface = surface_of(np.ones((6, 7, 8), bool), np.eye(4))
    counts = edges(surface.triangles)
    assert all(counts[b, a] == n for (a, b), n in counts.items())  # each edge is walked in both directions
    assert surface.volume_mm3 == pytest.approx(6 * 7 * 8, rel=0.06)


def test_one_voxel_has_a_surface_and_an_empty_mask_none():
    mask = np.zeros((5, 5, 5), bool)
    assert len(surface_of(mask, np.eye(4)).points_mm) == 0
    mask[2, 2, 2] = True
    assert surface_of(mask, np.eye(4)).volume_mm3 > 0


def test_distances_between_spheres_are_their_radii_apart():
    inner, outer = (surface_of(ellipsoid(np.eye(4), radius)[0], np.eye(4)) for radius in (10.0, 14.0))
    for first, second in ((inner, outer), (outer, inner)):
        distance = distances_mm(first, second)
        assert distance.shape == (len(first.points_mm),)
        assert distance.mean() == pytest.approx(4, abs=0.1) and np.abs(distance - 4).max() < 0.8
    assert not distances_mm(inner, inner).any()


def test_a_shifted_cube_is_off_by_its_shift_where_it_leaves_the_truth():
    truth = np.zeros((40, 40, 40), bool)
    truth[10:30, 10:30, 10:30] = True
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    found = surface_of(np.roll(truth, 3, axis=2), affine)
    distance = distances_mm(found, surface_of(truth, affine))
    top = (found.points_mm[:, 2] > 64) & (np.abs(found.points_mm[:, :2] - 19.5) < 5).all(axis=1)
    side = (found.points_mm[:, 0] > 29) & (np.abs(found.points_mm[:, 1:] - [19.5, 40]) < 5).all(axis=1)
    assert np.allclose(distance[top], 6, atol=0.3) and np.allclose(distance[side], 0, atol=0.3)


def test_a_reduced_surface_keeps_to_its_bound_and_its_shape():
    surface = surface_of(ellipsoid(np.eye(4), 15.0)[0], np.eye(4))
    simple, members = reduced(surface, 1000)
    assert 500 < len(simple.triangles) <= 1000
    assert simple.volume_mm3 == pytest.approx(surface.volume_mm3, rel=0.04)
    counts = edges(simple.triangles)
    assert all(counts[b, a] == n for (a, b), n in counts.items())
    assert np.linalg.norm(simple.points_mm[members] - surface.points_mm, axis=1).max() < 4
    same, members = reduced(surface, 10**6)
    assert same is surface and (members == np.arange(len(surface.points_mm))).all()


def test_stl_is_read_back_by_hand(tmp_path):
    mask, centre = ellipsoid(OBLIQUE, [18.0, 24.0, 30.0])
    write_stl(surface_of(mask, OBLIQUE), tmp_path / "a" / "bone.stl")
    content = (tmp_path / "a" / "bone.stl").read_bytes()
    (count,) = struct.unpack_from("<I", content, 80)
    assert len(content) == 84 + 50 * count and not content.startswith(b"solid")
    volume = 0.0
    for number in range(count):
        *normal, ax, ay, az, bx, by, bz, cx, cy, cz, attributes = struct.unpack_from("<12fH", content, 84 + 50 * number)
        a, b, c = (np.array(corner) - centre for corner in ((ax, ay, az), (bx, by, bz), (cx, cy, cz)))
        volume += a @ np.cross(b, c) / 6
        assert attributes == 0
        if number % 50 == 0:
            assert np.linalg.norm(normal) == pytest.approx(1, abs=1e-3) and normal @ (a + b + c) > 0
    assert volume == pytest.approx(mask.sum() * 1.5 * 2.5, rel=0.03)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["bone.stl"]


def test_a_figure_names_the_errors_in_mm_and_stays_small():
    target, _ = ellipsoid(np.eye(4), [65, 55, 50], shape=(140, 120, 120))
    prediction = np.roll(target, 4, axis=2)
    figure = error_figure(prediction, target, np.eye(4), "case")
    found, truth, letters = figure.data
    assert len(found.i) <= PREDICTION_TRIANGLES and len(truth.i) <= TARGET_TRIANGLES
    assert len(figure.to_json()) < 1.5e6
    assert (found.cmin, found.cmax) == (0, 5) and found.intensity.max() == pytest.approx(4, abs=0.3)
    assert found.showlegend and truth.showlegend and truth.opacity < 0.5
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
    figure = error_figure(mask, None, np.eye(4), "case")
    assert [trace.name for trace in figure.data[:-1]] == ["T12", "T13", "L1"]
    assert len({trace.color for trace in figure.data[:-1]}) == 3
    assert [trace.name for trace in error_figure(mask == 20, None, np.eye(4), "case").data[:-1]] == ["mask"]


def test_empty_masks_give_a_figure_too():
    empty, mask = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    assert [trace.name for trace in error_figure(empty, mask, np.eye(4), "missed").data[:-1]] == ["truth"]
    invented = error_figure(mask, empty, np.eye(4), "invented").data[0]
    assert invented.name == "prediction" and invented.intensity is None
    assert "no vertebra" in error_figure(empty, empty, np.eye(4), "nothing").layout.annotations[0].text
    assert "no vertebra" in error_figure(empty, None, np.eye(4), "nothing").layout.annotations[0].text


def test_a_page_shows_the_surface_without_a_network_or_an_error(tmp_path, open_page):
    target = np.zeros((40, 40, 60), bool)
    target[10:30, 10:30, 10:50] = True
    prediction = np.roll(target, 8, axis=1)
    prediction[:, :, :15] = False
    write_page(error_figure(prediction, target, np.eye(4), "case one"), tmp_path / "page.html")
    assert 'src="http' not in (tmp_path / "page.html").read_text(encoding="utf-8")
    page = open_page(tmp_path / "page.html")
    assert page.console == [] and "case one" in page.dom and "distance to" in page.dom
    middle = page.png[200:650, 400:1000]
    red, blue = middle[..., 0], middle[..., 2]
    assert (red - blue > 0.2).mean() > 0.05  # the front is 8 mm off: the far end of the scale
    grey = (np.ptp(middle, axis=-1) < 0.02) & (red > 0.4) & (red < 0.9)
    assert grey.mean() > 0.01  # what was missed


@pytest.fixture
def masks(tmp_path):
    mask, _ = ellipsoid(OBLIQUE, [18.0, 24.0, 30.0])
    for name, array, affine in (
        ("found.nii.gz", np.roll(mask, 1, axis=0), OBLIQUE),
        ("true.nii.gz", mask, OBLIQUE),
        ("empty.nii.gz", mask & False, OBLIQUE),
        ("moved.nii.gz", mask, OBLIQUE + np.eye(4)[:, [3, 0, 1, 2]] @ np.diag([0, 5, 0, 0])),
        ("smaller.nii.gz", mask[1:], OBLIQUE),
    ):
        nib.save(nib.Nifti1Image(array.astype(np.uint8), affine), tmp_path / name)
    (tmp_path / "text.nii.gz").write_text("no image", encoding="utf-8")
    return tmp_path


def test_the_command_writes_page_and_stl(masks, run_script):
    result = run_script("utils/surfaces.py", "found.nii.gz", "--truth", "true.nii.gz", "--output", "out", cwd=masks)
    assert result.returncode == 0 and result.stderr == ""
    assert sorted(path.name for path in (masks / "out").iterdir()) == ["found.html", "found.stl"]
    assert "truth" in (masks / "out" / "found.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.nii.gz"], ["absent.nii.gz", "no such file"]),
        (["text.nii.gz"], ["text.nii.gz"]),
        (["empty.nii.gz"], ["empty.nii.gz", "no voxel"]),
        (["found.nii.gz", "--truth", "empty.nii.gz"], ["empty.nii.gz", "no voxel"]),
        (["found.nii.gz", "--truth", "smaller.nii.gz"], ["smaller.nii.gz", "found.nii.gz", "another grid"]),
        (["found.nii.gz", "--truth", "moved.nii.gz"], ["moved.nii.gz", "found.nii.gz", "another grid"]),
    ],
)
def test_a_users_mistake_is_one_line(masks, run_script, assert_one_line_error, arguments, words):
    result = run_script("utils/surfaces.py", *arguments, "--output", "out", cwd=masks)
    assert_one_line_error(result, *words)
    assert not (masks / "out").exists()
