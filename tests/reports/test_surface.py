import struct
from collections import Counter

import nibabel as nib
import numpy as np
import pytest

from reports.surface import distances_mm, reduced, surface_of, write_stl

# Anisotropic, turned by 0.3 about Z and by 0.2 about X, stored left-handed (first axis to the left).
TURN = nib.eulerangles.euler2mat(0.3, 0, 0.2)
OBLIQUE = nib.affines.from_matvec(TURN @ np.diag([-1.0, 1.5, 2.5]), [30.0, -20.0, 700.0])


def ellipsoid(affine, radii_mm, shape=(60, 50, 40)):
    """An ellipsoid around the middle of the grid, and its centre in mm."""
    affine = np.asarray(affine, float)
    points = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    centre = nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    return (((points - centre) / radii_mm) ** 2).sum(axis=-1) < 1, centre


def volume_mm3(surface):
    """By the divergence theorem: negative where triangles face inwards."""
    first, second, third = np.moveaxis(surface.points_mm.astype(float)[surface.triangles], 1, 0)
    return np.sum(first * np.cross(second, third)) / 6


def edges(triangles):
    return Counter((int(a), int(b)) for t in triangles for a, b in zip(t, np.roll(t, -1), strict=True))


def test_a_sphere_has_its_area_and_its_volume():
    mask, centre = ellipsoid(np.eye(4), 15.0)
    surface = surface_of(mask, np.eye(4))
    assert surface.area_mm2 == pytest.approx(4 * np.pi * 15**2, rel=0.03)
    assert volume_mm3(surface) == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.02)
    radius = np.linalg.norm(surface.points_mm - centre, axis=1)
    assert np.abs(radius - 15).max() < 0.6
    assert surface.points_mm.dtype == np.float32 and surface.triangles.dtype == np.int32


@pytest.mark.parametrize("affine", [OBLIQUE, OBLIQUE @ np.diag([-1, 1, 1, 1])], ids=["left-handed", "right-handed"])
def test_an_oblique_anisotropic_ellipsoid_lies_where_its_affine_says_and_faces_outwards(affine):
    radii = np.array([18.0, 24.0, 30.0])
    mask, centre = ellipsoid(affine, radii)
    surface = surface_of(mask, affine)
    assert volume_mm3(surface) == pytest.approx(4 / 3 * np.pi * radii.prod(), rel=0.03)  # inside out: negative
    assert volume_mm3(surface) == pytest.approx(mask.sum() * 1.5 * 2.5, rel=0.03)
    on_unit_sphere = np.linalg.norm((surface.points_mm - centre) / radii, axis=1)
    assert np.abs(on_unit_sphere - 1).max() < 0.1


def test_voxels_finer_than_a_surface_needs_are_averaged():
    affine = np.diag([0.25, 0.25, 2.0, 1.0])
    mask, _ = ellipsoid(affine, 10.0, shape=(90, 91, 14))
    surface = surface_of(mask, affine)
    coarse_affine = np.diag([0.75, 0.75, 2.0, 1.0])
    coarse = surface_of(ellipsoid(coarse_affine, 10.0)[0], coarse_affine)
    assert len(surface.points_mm) == pytest.approx(len(coarse.points_mm), rel=0.1)
    assert volume_mm3(surface) == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.03)
    assert np.allclose(surface.points_mm.mean(axis=0), [44.5 * 0.25, 45 * 0.25, 13], atol=0.1)


def test_a_mask_at_the_border_is_closed_there():
    surface = surface_of(np.ones((6, 7, 8), bool), np.eye(4))
    counts = edges(surface.triangles)
    assert all(counts[b, a] == n for (a, b), n in counts.items())  # each edge is walked in both directions
    assert volume_mm3(surface) == pytest.approx(6 * 7 * 8, rel=0.06)


def test_one_voxel_has_a_surface_and_an_empty_mask_none():
    mask = np.zeros((5, 5, 5), bool)
    assert len(surface_of(mask, np.eye(4)).points_mm) == 0
    mask[2, 2, 2] = True
    assert volume_mm3(surface_of(mask, np.eye(4))) > 0


def test_distances_between_spheres_are_their_radii_apart():
    inner, outer = (surface_of(ellipsoid(np.eye(4), radius)[0], np.eye(4)) for radius in (10.0, 14.0))
    for first, second in ((inner, outer), (outer, inner)):
        distance = distances_mm(first, second)
        assert distance.shape == (len(first.points_mm),)
        assert distance.mean() == pytest.approx(4, abs=0.1) and np.abs(distance - 4).max() < 0.8
    assert not distances_mm(inner, inner).any()


def test_a_shifted_cube_is_off_by_its_shift_where_it_leaves_the_reference():
    reference = np.zeros((40, 40, 40), bool)
    reference[10:30, 10:30, 10:30] = True
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    prediction = surface_of(np.roll(reference, 3, axis=2), affine)
    distance = distances_mm(prediction, surface_of(reference, affine))
    top = (prediction.points_mm[:, 2] > 64) & (np.abs(prediction.points_mm[:, :2] - 19.5) < 5).all(axis=1)
    side = (prediction.points_mm[:, 0] > 29) & (np.abs(prediction.points_mm[:, 1:] - [19.5, 40]) < 5).all(axis=1)
    assert np.allclose(distance[top], 6, atol=0.3) and np.allclose(distance[side], 0, atol=0.3)


def test_a_reduced_surface_keeps_to_its_bound_and_its_shape():
    surface = surface_of(ellipsoid(np.eye(4), 15.0)[0], np.eye(4))
    simple, members = reduced(surface, 1000)
    assert 500 < len(simple.triangles) <= 1000
    assert volume_mm3(simple) == pytest.approx(volume_mm3(surface), rel=0.04)
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
