"""Phantoms of trunks: what a network can learn from them must be true of bodies."""

import nibabel as nib
import numpy as np
import pytest

from verse_utils.labels import ANATOMICAL_ORDER, T13
from verse_utils.phantom.curves import Curves
from verse_utils.phantom.render import paint, voxel_box
from verse_utils.phantom.shapes import Capsule
from verse_utils.phantom.trunk.body import make_trunk, metal, vertebra
from verse_utils.phantom.trunk.chest import rib_path, ribs
from verse_utils.phantom.trunk.person import clothe, draw_levels, draw_person, stack_spine
from verse_utils.phantom.trunk.phantom import make_trunk_phantom
from verse_utils.phantom.trunk.scanner import Protocol, draw_protocol, scan
from verse_utils.phantom.trunk.sizes import mean_size

# Volumes of whole vertebrae in six of VerSe's masks and TotalSegmentator's example: lowest and highest, ml.
REAL_ML = {
    **{16: (28, 36), 17: (31, 42), 18: (36, 45), 19: (41, 49)},  # T9 to T12
    **{20: (38, 58), 21: (48, 62), 22: (54, 69), 23: (57, 73), 24: (56, 78)},
}


@pytest.fixture(scope="module")
def mean_person():
    """A straight adult of mean size, 40 years old."""
    sizes = {number: mean_size(number).scaled(1.03) for number in range(24, 0, -1)}
    poses = stack_spine(sizes, Curves(curvature=1, scoliosis_deg=0, wave_mm=250, phase=0))
    return clothe(poses, sizes, 1.03, 40, np.random.default_rng(0))


@pytest.fixture(scope="module")
def phantoms():
    return [make_trunk_phantom(seed, "tiny") for seed in (3, 4)]


def volume_ml(part, spacing_mm=1.5):
    low, high = (np.array(corner) for corner in zip(*(solid.bounds() for solid in part.solids), strict=True))
    affine = nib.affines.from_matvec(np.eye(3) * spacing_mm, low.min(axis=0) - 3)
    shape = tuple(int(n) for n in np.ceil((high.max(axis=0) - low.min(axis=0) + 6) / spacing_mm))
    image, label = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    paint(part, voxel_box(part.solids, affine, shape), affine, spacing_mm, image, label, None)
    return (label > 0).sum() * spacing_mm**3 / 1000


def test_vertebrae_are_as_large_as_real_ones(mean_person):
    volumes = {number: volume_ml(vertebra(mean_person, number)) for number in (2, 5, 8, 12, *REAL_ML)}
    for number, (low, high) in REAL_ML.items():
        assert low < volumes[number] < high
    assert 8 < volumes[5] < 13 < volumes[2] < volumes[8] < volumes[12] < volumes[16]


def test_ribs_are_on_thoracic_vertebrae_only_with_their_heads_at_the_joint(mean_person):
    assert len([part for part in ribs(mean_person) if part.shell_hu]) == 12
    for number in range(8, 20):
        pose, size = mean_person.poses[number], mean_person.sizes[number]
        for side in (-1, 1):
            head = pose.axes.T @ (rib_path(mean_person, number, 4.0, side)[0] - pose.origin)
            gap = side * head[0] - size.width / 2 - 4
            assert -1 < gap < 2 and -size.depth / 2 < head[1] < 0 < head[2] <= size.height / 2 + 0.1


def test_screws_and_cement_lie_in_vertebrae(mean_person, monkeypatch):
    monkeypatch.setattr(type(mean_person), "chance", lambda *_: True)
    in_metal, cement = metal(mean_person)
    screws = [solid for solid in in_metal.solids if isinstance(solid, Capsule) and solid.start_radius == 2.6]
    assert len(screws) == 6  # two in each of three vertebrae
    for tip in [*(screw.start for screw in screws), cement.solids[0].pose.origin]:
        holders = [
            number
            for number, pose in mean_person.poses.items()
            if (np.abs(pose.axes.T @ (tip - pose.origin)) < half_size(mean_person.sizes[number])).all()
        ]
        assert len(holders) == 1 and holders[0] >= 14  # T7 and below


def half_size(size):
    return np.array([size.width, size.depth, size.height]) / 2


def test_anomalies_come_in_a_few_bodies():
    spines = [draw_levels(np.random.default_rng(seed)) for seed in range(200)]
    for spine in spines:
        assert spine == [number for number in reversed(ANATOMICAL_ORDER) if number in spine]
    shares = [np.mean([25 in spine for spine in spines]), np.mean([T13 in spine for spine in spines])]
    shares.append(np.mean([19 not in spine for spine in spines]))
    assert all(0.02 < share < 0.12 for share in shares)


def test_bone_thins_with_age():
    people = [draw_person(np.random.default_rng(seed)) for seed in range(60)]
    young = [person.bone.spongy_hu for person in people if person.age < 40]
    old = [person.bone.spongy_hu for person in people if person.age > 70]
    assert np.mean(young) > np.mean(old) + 60
    assert all(50 <= person.bone.spongy_hu <= 250 for person in people)


def test_a_seed_makes_one_phantom(phantoms):
    first, other = phantoms
    again = make_trunk_phantom(3, "tiny")
    np.testing.assert_array_equal(first.image_hu, again.image_hu)
    np.testing.assert_array_equal(first.label, again.label)
    assert first.image_hu.shape != other.image_hu.shape or (first.image_hu != other.image_hu).any()


def test_fields_of_view_cut_the_spine_at_both_ends():
    """Ends are anywhere from the skull to the thighs; what is cut is not labelled, what is whole is."""
    bottoms, tops = [], []
    rng = np.random.default_rng(0)
    anatomy = make_trunk(rng)
    for _ in range(60):
        protocol = draw_protocol(anatomy, rng)
        corners = nib.affines.apply_affine(protocol.affine, [[0, 0, 0], np.array(protocol.shape) - 1])
        z = {number: pose.origin[2] for number, pose in anatomy.body_pose.items()}
        inside = [number for number in z if corners[:, 2].min() < z[number] < corners[:, 2].max()]
        bottoms.append(min(inside, key=z.get))
        tops.append(max(inside, key=z.get))
        assert 0.6 < nib.affines.voxel_sizes(protocol.affine)[2] <= 5
    assert len(set(bottoms)) >= 5 and len(set(tops)) >= 8
    assert np.mean([top > 1 and bottom < 24 for top, bottom in zip(tops, bottoms, strict=True)]) > 0.2


def test_labels_are_whole_vertebrae_with_their_centres_inside(phantoms):
    for phantom in phantoms:
        numbers = list(phantom.centroids.points_vox)
        assert set(numbers) == set(np.unique(phantom.label)) - {0}
        for number, centre in phantom.centroids.points_vox.items():
            if number > 1:  # C1 has no body
                assert phantom.label[tuple(np.rint(centre).astype(int))] == number
        assert phantom.image_hu.min() < -800 and phantom.image_hu.max() > 400


def test_thick_slices_are_means_of_thin_ones():
    anatomy = make_trunk(np.random.default_rng(5))
    corner = anatomy.body_pose[21].origin - [40, 40, 20]
    thin = Protocol(nib.affines.from_matvec(np.diag([4, 4, 1.5]), corner), (20, 20, 24), 4, 0, 0, 0, False)
    middle = nib.affines.from_matvec(np.diag([4, 4, 4.5]), np.add(corner, [0, 0, 1.5]))
    thick = Protocol(middle, (20, 20, 8), 4, 0, 0, 0, False)
    thin_hu, thin_label = scan(anatomy, thin, 1)
    thick_hu, label = scan(anatomy, thick, 1)
    np.testing.assert_allclose(thick_hu, thin_hu.reshape(20, 20, 8, 3).mean(axis=3), atol=1)
    np.testing.assert_array_equal(label, thin_label[:, :, 1::3])


def test_noise_is_that_of_the_dose():
    anatomy = make_trunk(np.random.default_rng(5))
    affine = nib.affines.from_matvec(np.diag([4, 4, 4]), anatomy.body_pose[21].origin - [40, 40, 20])
    quiet, loud = (Protocol(affine, (20, 20, 9), 4, 0, noise, 0, False) for noise in (0, 30))
    difference = scan(anatomy, loud, 1)[0].astype(float) - scan(anatomy, quiet, 1)[0]
    assert 12 < difference.std() < 55
