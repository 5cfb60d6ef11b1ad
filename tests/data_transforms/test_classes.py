import numpy as np
import pytest
import torch
import torchio as tio

from data_transforms.classes.contrast import RandomContrast, RandomGain, RandomInvertedGamma
from data_transforms.classes.heatmap_from_labels import HeatmapFromLabels
from data_transforms.classes.labels_to_classes import LabelsToClasses
from data_transforms.classes.mask_cut_out import MaskCutOut
from data_transforms.classes.pad_to_ratio import PadToRatio
from data_transforms.classes.random_bone_density import RandomBoneDensity
from data_transforms.classes.random_field_of_view import FieldOfView, RandomFieldOfView
from data_transforms.classes.random_low_resolution import RandomLowResolution
from data_transforms.classes.scale_hu import ScaleHU
from data_transforms.classes.show_one_vertebra import ShowOneVertebra
from verse_utils.labels import LABEL_SCHEMES


def make(label: np.ndarray, image: np.ndarray | None = None, spacing_mm=(1, 1, 1)) -> tio.Subject:
    image = np.zeros(label.shape, np.int16) if image is None else image
    affine = np.diag([*spacing_mm, 1.0])
    return tio.Subject(
        image=tio.ScalarImage(tensor=torch.from_numpy(image)[None], affine=affine),
        label=tio.LabelMap(tensor=torch.from_numpy(label.astype(np.uint8))[None], affine=affine),
    )


CLASSES = [
    ScaleHU(),
    LabelsToClasses({20: 1}),
    HeatmapFromLabels(),
    HeatmapFromLabels("gaussian"),
    PadToRatio((1, 1, 2)),
    MaskCutOut(1),
    RandomGain((0.5, 2)),
    RandomContrast((0.5, 2)),
    RandomInvertedGamma((-0.5, 0.5)),
    RandomBoneDensity(),
    RandomLowResolution((1.5, 3), axes=3),
    FieldOfView((2, 1, 2), (8, 6, 8)),
    RandomFieldOfView(least_share=0.8),
    ShowOneVertebra(),
]


@pytest.mark.parametrize("transform", CLASSES, ids=lambda transform: transform.name)
def test_contract(transform):
    """Each leaves its input alone, keeps image and label on one grid, and is remembered by torchio's history."""
    label = np.zeros((8, 6, 10))
    label[3:5, 2:4, 4:7] = 20
    subject = make(label)
    before = subject["image"].data.clone(), subject["label"].data.clone()
    found = transform(subject)
    assert torch.equal(subject["image"].data, before[0]) and torch.equal(subject["label"].data, before[1])
    shapes = {image.spatial_shape for image in found.get_images(intensity_only=False)}
    assert len(shapes) == 1
    np.testing.assert_allclose(found["image"].affine, found["label"].affine)
    assert found["label"].data.any()
    again = found.history[-1](make(label))
    assert torch.equal(again["label"].data, found["label"].data)


def test_scale_hu():
    image = np.array([-3000, -1000, 0, 500, 1500, 4000], np.int16).reshape(1, 1, 6)
    found = ScaleHU()(make(np.zeros((1, 1, 6)), image))["image"].data
    torch.testing.assert_close(found.flatten(), torch.tensor([-1, -1, 0, 0.5, 1.5, 1.5]))


def test_labels_without_a_class_become_background():
    label = np.array([0, 1, 7, 8, 19, 28, 20, 25, 26, 27]).reshape(1, 1, 10)
    expected = {
        "binary": [0, 1, 1, 1, 1, 1, 1, 1, 0, 0],
        "regions": [0, 1, 1, 2, 2, 2, 3, 3, 0, 0],
        "vertebrae": [0, 1, 7, 8, 19, 20, 21, 26, 0, 0],
    }
    for name, values in expected.items():
        assert LabelsToClasses(LABEL_SCHEMES[name].class_of)(make(label))["label"].data.flatten().tolist() == values


def test_distance_heatmap_by_hand():
    label = np.zeros((11, 11, 11))
    label[5, 5, 5] = 20
    label[0, 0, 0] = 26  # sacrum
    heatmap = HeatmapFromLabels("distance", sigma_vox=2.0)(make(label))["heatmap"].data[0]
    assert heatmap[5, 5, 5] == 1
    assert heatmap[5, 5, 8].item() == pytest.approx(np.exp(-9 / 8))
    assert heatmap[6, 7, 5].item() == pytest.approx(np.exp(-5 / 8))
    assert heatmap[0, 0, 0].item() == pytest.approx(np.exp(-75 / 8), abs=1e-5)


def test_the_default_puts_one_half_between_one_and_two_voxels():
    label = np.zeros((11, 11, 11))
    label[5, 5, 5] = 20
    heatmap = HeatmapFromLabels()(make(label))["heatmap"].data[0]
    assert heatmap[5, 5, 6] > 0.5 > heatmap[5, 5, 7]


def test_gaussian_heatmap_peaks_at_the_centre_of_each_vertebra():
    label = np.zeros((11, 11, 21))
    label[4:7, 4:7, 3:6], label[4:7, 4:7, 13:16] = 20, 21
    heatmap = HeatmapFromLabels("gaussian", sigma_vox=2.0)(make(label))["heatmap"].data[0]
    assert heatmap[5, 5, 4] == 1 and heatmap[5, 5, 14] == 1
    assert heatmap[5, 5, 9].item() == pytest.approx(np.exp(-25 / 8), rel=1e-4)


@pytest.mark.parametrize("mode", ["distance", "gaussian"])
def test_without_a_vertebra_the_heatmap_is_empty(mode):
    assert not HeatmapFromLabels(mode)(make(np.zeros((4, 4, 4))))["heatmap"].data.any()


def test_padding_keeps_the_volume_in_the_centre_and_in_place():
    """Sides of 3, 4 and 5 voxels to 6, 4 and 8: one voxel before the volume along X and Z, two after it."""
    image = np.full((3, 4, 5), 7, np.int16)
    found = PadToRatio((3, 2, 4))(make(np.ones((3, 4, 5)), image))
    assert found["image"].shape == (1, 6, 4, 8)
    data = found["image"].data[0]
    assert (data[1:4, :, 1:6] == 7).all() and (data == -1000).sum() == data.numel() - 60
    assert (found["label"].data > 0).sum() == 60
    np.testing.assert_allclose(found["image"].affine[:3, 3], [-1, 0, -1])


def test_images_without_a_label_are_padded_too():
    image = tio.Subject(image=tio.ScalarImage(tensor=torch.zeros(1, 2, 2, 2)))
    found = PadToRatio((1, 1, 2))(image)["image"].data
    assert found.shape == (1, 2, 2, 4) and (found == -1000).sum() == 8


def test_padding_to_a_ratio_counts_millimetres():
    found = PadToRatio((1, 1, 2))(make(np.ones((10, 10, 10)), spacing_mm=(1, 2, 2)))
    assert found["image"].spatial_shape == (20, 10, 20)


def test_cut_out_keeps_mask_and_margin():
    label = np.zeros((20, 20, 20))
    label[5:8, 0:4, 15:20] = 20
    found = MaskCutOut(2)(make(label))
    assert found["label"].spatial_shape == (7, 6, 7)
    assert (found["label"].data > 0).sum() == (label > 0).sum()
    np.testing.assert_allclose(found["image"].affine[:3, 3], [3, 0, 13])
    assert MaskCutOut(2)(make(np.zeros((4, 4, 4))))["image"].spatial_shape == (4, 4, 4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ScaleHU(hu_range=(5, 5)),
        lambda: LabelsToClasses({}),
        lambda: LabelsToClasses({300: 1}),
        lambda: HeatmapFromLabels("other"),
        lambda: HeatmapFromLabels(sigma_vox=0),
        lambda: PadToRatio((1, 0, 1)),
        lambda: MaskCutOut(-1),
        lambda: RandomLowResolution((0.5, 2)),
        lambda: RandomLowResolution((3, 2)),
        lambda: RandomLowResolution((1, 2), axes=0),
        lambda: RandomLowResolution((1, 2), axes=4),
        lambda: ShowOneVertebra(-1),
        lambda: ShowOneVertebra(far_share=1.5),
        lambda: ShowOneVertebra(beyond_share=-0.5),
    ],
)
def test_impossible_arguments_are_refused(build):
    with pytest.raises(ValueError):
        build()


def ramp() -> tio.Subject:
    return make(np.zeros((2, 3, 4)), np.linspace(-1, 1.5, 24, dtype=np.float32).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (RandomGain((0.5, 0.5)), lambda x: 0.5 * x),
        (RandomContrast((0.5, 0.5)), lambda x: (x + x.mean()) / 2),
        (RandomContrast((2, 2)), lambda x: (2 * x - x.mean()).clip(-1, 1.5)),
        (RandomInvertedGamma((np.log(2), np.log(2))), lambda x: 1.5 - (1.5 - x) ** 2 / 2.5),
        (RandomInvertedGamma((0, 0)), lambda x: x),
    ],
)
def test_contrast(transform, expected):
    image = ramp()["image"].data
    torch.testing.assert_close(transform(ramp())["image"].data, expected(image))


def test_numbers_are_drawn_from_their_bounds():
    torch.manual_seed(0)
    drawn = [
        RandomGain((0.5, 2))(make(np.zeros((1, 1, 1)), np.ones((1, 1, 1))))["image"].data.item() for _ in range(99)
    ]
    assert 0.5 <= min(drawn) < 0.6 and 1.9 < max(drawn) <= 2
    for transform, bounds in ((RandomGain, (0, 1)), (RandomContrast, (-1, 1)), (RandomInvertedGamma, (1, 0))):
        with pytest.raises(ValueError, match=r"positive|between"):
            transform(bounds)


def test_thick_slices_are_means_of_thin_ones():
    """A step along X, half of a slice of 4 voxels, is its mean after linear interpolation between slices' centres."""
    image = np.zeros((12, 12, 12), np.float32)
    image[6:] = 1
    torch.manual_seed(0)
    found = RandomLowResolution((4, 4), axes=3)(make(np.zeros((12, 12, 12)), image))["image"].data[0]
    expected = np.interp(np.arange(12), [1.5, 5.5, 9.5], [0, 0.5, 1])
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None], image.shape), atol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_resolution_is_lost_along_as_many_axes_as_asked(axes):
    """Pairs of voxels become one slice; interpolation makes the two of a pair alike but for a quarter step."""
    noise = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    coarse = set()
    for seed in range(20):
        torch.manual_seed(seed)
        found = RandomLowResolution((2, 2), axes)(make(np.zeros((8, 8, 8)), noise))["image"].data[0]
        rough = [(found.diff(dim=axis).abs().mean() / found.std()).item() for axis in range(3)]
        coarse.add(tuple(axis for axis in range(3) if rough[axis] < 0.9))
    assert {len(one) for one in coarse} == {axes}
    assert len(coarse) == (1 if axes == 3 else 3)


def test_bone_density_changes_the_inside_of_vertebrae_alone():
    label = np.zeros((12, 12, 12))
    label[2:10, 2:10, 2:10] = 20
    image_hu = np.full((12, 12, 12), 200, np.int16)
    found = RandomBoneDensity(shift_hu=(-100, -100), factor=(0.5, 0.5))(make(label, image_hu))["image"].data[0]
    assert (found[4:8, 4:8, 4:8] == 0).all()
    assert (found[3, 4:8, 4:8] > 0).all() and (found[3, 4:8, 4:8] < 200).all()
    shell = torch.ones(12, 12, 12, dtype=torch.bool)
    shell[3:9, 3:9, 3:9] = False
    assert (found[shell] == 200).all()
    without = RandomBoneDensity()(make(np.zeros((12, 12, 12)), image_hu))["image"].data
    assert (without == 200).all()


def column() -> tio.Subject:
    """A view (8, 8, 16) in 2 mm voxels: a scan from Z = 2 to 14 with T12, L1 and L2, three slices each."""
    image, label = np.full((8, 8, 16), -1000, np.int16), np.zeros((8, 8, 16))
    image[:, :, 2:14] = 100 * np.arange(12)
    for number, bottom in ((21, 3), (20, 7), (19, 11)):
        label[3:5, 3:5, bottom : bottom + 3] = number
    return make(label, image, (2, 2, 2))


def test_a_field_of_view_fills_the_view_and_unlabels_what_it_cuts():
    found = FieldOfView((2, 2, 4), (6, 6, 12))(column())  # half of the view along each axis: twice as large
    label = found["label"].data[0].numpy()
    assert label.shape == (8, 8, 16) and found["image"].spacing == (1, 1, 1)
    assert set(np.unique(label)) == {0, 20}  # L2 and T12 have lost a third
    assert np.flatnonzero((label == 20).any(axis=(0, 1))).tolist() == [6, 7, 8, 9, 10, 11]
    # The same place in mm has the same value: between voxels 5 and 6, the middle of 300 and 400 HU.
    place_vox = np.linalg.inv(found["image"].affine) @ column()["image"].affine @ [4, 4, 5.25, 1]
    x, y, z = np.rint(place_vox[:3]).astype(int)
    assert found["image"].data[0, x, y, z] == 325
    narrow = FieldOfView((3, 3, 2), (5, 5, 14))(column())["image"].data[0]
    air = narrow == -1000
    assert air[0].all() and air[-1].all() and not air[3:5, 3:5, 1:15].any()


def test_random_fields_of_view_show_whole_vertebrae_of_what_was_scanned():
    torch.manual_seed(0)
    seen = set()
    for _ in range(40):
        found = RandomFieldOfView()(column())
        labels = tuple(np.unique(found["label"].data))
        assert labels[0] == 0 and len(labels) > 1
        seen.add(labels)
    assert len(seen) >= 4 and (0, 19, 20, 21) in seen
    empty = make(np.zeros((8, 8, 16)))
    assert torch.equal(RandomFieldOfView()(empty)["image"].data, empty["image"].data)


def test_the_vertebra_in_the_middle_is_shown_and_to_be_found():
    label = np.zeros((40, 40, 60))
    label[10:30, 10:30, 2:16], label[10:30, 10:30, 22:36], label[10:30, 10:30, 42:56] = 20, 21, 22
    shown = ShowOneVertebra()(make(label, spacing_mm=(1, 1, 2)))
    image, chosen = shown["image"].data, shown["label"].data
    assert image.shape == (2, 40, 40, 60) and not image[0].any()
    np.testing.assert_array_equal(chosen[0], label == 21)
    peak = np.unravel_index(int(image[1].argmax()), label.shape)
    assert all(abs(at - centre) <= 1 for at, centre in zip(peak, (19.5, 19.5, 28.5), strict=True))
    half_mm = [step * np.sqrt(2 * np.log(2)) * 8 for step in (1, -1)]  # where a Gaussian of 8 mm has its half
    for axis, spacing_mm in ((0, 1), (2, 2)):
        along = np.moveaxis(image[1].numpy(), axis, -1)[tuple(np.delete(peak, axis))]
        reach_mm = (np.flatnonzero(along > 0.5) - peak[axis]) * spacing_mm
        np.testing.assert_allclose((reach_mm.max(), reach_mm.min()), half_mm, atol=spacing_mm + 0.5)


def test_the_centre_is_off_as_often_as_asked():
    label = np.zeros((40, 40, 40))
    label[10:30, 10:30, 10:30] = 20
    torch.manual_seed(0)
    off_mm = []
    for _ in range(40):
        gaussian = ShowOneVertebra(off_mm=3)(make(label))["image"].data[1].numpy()
        weights = gaussian**4 / (gaussian**4).sum()
        off_mm += [(weights.sum(axis=(1, 2)) * np.arange(40)).sum() - 19.5]
    assert 2 < np.std(off_mm) < 4 and abs(np.mean(off_mm)) < 2


def test_the_vertebra_that_is_nearest_to_the_place_is_to_be_found():
    """Centres 20 mm apart in a column: the place may lie at the middle one, at a neighbour, or far from all."""
    label = np.zeros((60, 60, 60))
    for number, start in ((20, 2), (21, 22), (22, 42)):
        label[22:38, 22:38, start : start + 16] = number
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        shown = ShowOneVertebra(far_off_mm=12, far_share=1)(make(label))
        place = np.unravel_index(int(shown["image"].data[1].argmax()), label.shape)
        centres = {20: (29.5, 29.5, 9.5), 21: (29.5, 29.5, 29.5), 22: (29.5, 29.5, 49.5)}
        away_mm = {number: np.linalg.norm(np.array(place) - centre) for number, centre in centres.items()}
        nearest = min(away_mm, key=away_mm.get)
        if abs(away_mm[nearest] - 20) > 1 and sorted(away_mm.values())[1] - away_mm[nearest] > 1:
            wanted = nearest if away_mm[nearest] < 20 else 0
            np.testing.assert_array_equal(shown["label"].data[0], (label == wanted) & (label > 0))
            seen.add(wanted)
    assert seen == {0, 20, 21, 22}


def test_beyond_the_end_of_the_spine_there_is_nothing():
    """Two vertebrae 30 mm apart, with room for one more above them, and none below."""
    label = np.zeros((50, 50, 100))
    label[15:35, 15:35, 50:70], label[15:35, 15:35, 20:40] = 20, 21
    shown = ShowOneVertebra(beyond_share=1)(make(label, spacing_mm=(1, 1, 1)))
    peak = np.unravel_index(int(shown["image"].data[1].argmax()), label.shape)
    assert abs(peak[2] - 89.5) > 10 and shown["label"].data.any()  # less than 16 mm inside: nothing can be seen there
    shown = ShowOneVertebra(beyond_share=1)(make(np.pad(label, [(0, 0), (0, 0), (0, 8)])))
    peak = np.unravel_index(int(shown["image"].data[1].argmax()), shown["label"].spatial_shape)
    np.testing.assert_allclose(peak, [24.5, 24.5, 89.5], atol=0.6)
    assert not shown["label"].data.any()


def test_a_patch_without_vertebra_shows_none():
    shown = ShowOneVertebra(off_mm=2)(make(np.where(np.arange(27).reshape(3, 3, 3) > 20, 26, 0)))  # the sacrum is none
    assert not shown["image"].data.any() and not shown["label"].data.any()
