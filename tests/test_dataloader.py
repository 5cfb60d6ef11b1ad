import numpy as np
import pytest
import torch
import torchio as tio

from dataloader import Patches, VerSe, h5VerSe
from utils.files.h5_cases import StoredCase, case_file, write_case
from utils.files.h5_packing import pack_cases
from utils.geometry.working_grid import WorkingGrid
from utils.tasks import SEGMENTATION
from verse_utils.errors import UserError
from verse_utils.splits import Fold


def make_h5(path, shape):
    """One case whose voxels tell their own position."""
    image = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    label = np.zeros(shape, np.uint8)
    label[shape[0] // 2, shape[1] // 2, shape[2] // 2 :] = 20
    grid = WorkingGrid.isotropic(shape, np.diag([1.0, 1, 1, 1]), 1.0)
    write_case(
        case_file(path, "training", "sub-a"), StoredCase("sub-a", "sub-a", "training", grid), image, label, {}, {}
    )
    pack_cases(path, SEGMENTATION, {"spacing_mm": 1.0}, [("training", "sub-a")])
    return path, image, label


@pytest.mark.parametrize("overhang", [(0, 0, 0), (0, 0, 2)])
@pytest.mark.parametrize("shape", [(6, 7, 9), (4, 4, 4), (3, 7, 2)])
def test_every_start_is_reached_the_first_and_the_last_too(shape, overhang):
    patches = Patches((4, 4, 4), per_volume=1, foreground_share=0.0, overhang_vox=overhang)
    rng = np.random.default_rng(0)
    starts = {tuple(patches.draw_start(rng, shape, np.empty((0, 3)))) for _ in range(6000)}
    ranges = []
    for n, over in zip(shape, overhang, strict=True):
        first, last = (0, n - 4) if n >= 4 else (-((4 - n + 1) // 2), -((4 - n + 1) // 2))
        ranges.append(range(first - over, last + over + 1))
    assert starts == {(x, y, z) for x in ranges[0] for y in ranges[1] for z in ranges[2]}


def test_the_stated_share_is_centred_on_foreground():
    foreground = np.array([[50, 60, 70]])
    patches = Patches((8, 8, 8), per_volume=1, foreground_share=1 / 3)
    rng = np.random.default_rng(0)
    centred = sum((patches.draw_start(rng, (100, 100, 100), foreground) == [46, 56, 66]).all() for _ in range(3000))
    assert 0.30 < centred / 3000 < 0.37


def test_a_foreground_voxel_at_the_border_gives_a_patch_inside():
    patches = Patches((8, 8, 8), per_volume=1, foreground_share=1.0)
    start = patches.draw_start(np.random.default_rng(0), (20, 20, 20), np.array([[0, 10, 19]]))
    assert start.tolist() == [0, 6, 12]


@pytest.mark.parametrize(("shape", "overhang"), [((12, 14, 16), 3), ((5, 14, 3), 3), ((12, 14, 16), 20)])
def test_patches_are_the_volumes_voxels_and_know_where_they_lie(tmp_path, shape, overhang):
    """Some lie in the air alone, where the overhang is longer than they are."""
    path, image, label = make_h5(tmp_path / "a.h5", shape)
    dataset = h5VerSe(path, "training", patches=Patches((8, 8, 8), 40, 1 / 3, overhang_vox=(0, 0, overhang)))
    assert len(dataset) == 40
    for index in range(40):
        subject = dataset[index]
        start = np.rint(subject["image"].affine[:3, 3]).astype(int)
        inside = [slice(*np.clip([s, s + 8], 0, n)) for s, n in zip(start, shape, strict=True)]
        there = tuple(slice(*np.clip([w.start - s, w.stop - s], 0, 8)) for w, s in zip(inside, start, strict=True))
        patch = subject["image"].data[0].numpy()
        np.testing.assert_array_equal(patch[there], image[tuple(inside)])
        np.testing.assert_array_equal(subject["label"].data[0].numpy()[there], label[tuple(inside)])
        outside = np.ones((8, 8, 8), bool)
        outside[there] = False
        assert (patch[outside] == -1000).all() and not subject["label"].data[0].numpy()[outside].any()


def test_validation_patches_stay_and_training_patches_change(segmentation_h5):
    patches = Patches((16, 16, 16), per_volume=3, foreground_share=1 / 3)
    transform = tio.RandomNoise(std=10)
    first, second = (h5VerSe(segmentation_h5, "training", transform, patches) for _ in range(2))
    order = [5, 0, 3]
    by_index = {index: first[index]["image"].data for index in order}
    for index in reversed(order):
        torch.testing.assert_close(second[index]["image"].data, by_index[index])
    assert not torch.equal(first[0, 0]["image"].data, first[1, 0]["image"].data)
    torch.testing.assert_close(first[1, 0]["image"].data, second[1, 0]["image"].data)


def test_drawing_patches_leaves_the_global_generator_alone(segmentation_h5):
    dataset = h5VerSe(
        segmentation_h5, "training", tio.RandomNoise(), Patches((8, 8, 8), per_volume=1, foreground_share=0.5)
    )
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    dataset[0]
    assert torch.equal(torch.rand(1), expected)


def test_whole_volumes(segmentation_h5):
    dataset = h5VerSe(segmentation_h5, "test", task=SEGMENTATION)
    subject = dataset[0]
    assert len(dataset) == 1 and subject["image"].data.dtype == torch.int16
    assert subject["case_id"].startswith("sub-phantom") and subject["image"].shape == subject["label"].shape


def test_verse_reads_the_folder_as_it_is(phantom_root):
    dataset = VerSe(phantom_root, "training", transform=tio.ToCanonical())
    assert len(dataset) == 2
    subject = dataset[1]
    assert subject["image"].orientation == ("R", "A", "S")
    assert subject["image"].data.dtype == torch.int16 and subject["label"].data.max() > 0


@pytest.mark.parametrize("values", [{"shape": (0, 8, 8)}, {"per_volume": 0}, {"foreground_share": 1.5}])
def test_impossible_patches_are_refused(values):
    with pytest.raises(ValueError, match="no patches"):
        Patches(**{"shape": (8, 8, 8), "per_volume": 1, "foreground_share": 0.5, **values})


def test_a_split_that_does_not_exist_is_refused(phantom_root, segmentation_h5):
    """``train`` gave an empty data set."""
    for make in (lambda: VerSe(phantom_root, "train"), lambda: h5VerSe(segmentation_h5, "train")):
        with pytest.raises(UserError, match=r"no split 'train'; give one of training, validation, test"):
            make()


def test_folds_of_an_h5(segmentation_h5):
    """Its three patients of training and validation are validated on once each; the test split stays."""
    plain = {split: h5VerSe(segmentation_h5, split) for split in ("training", "validation", "test")}
    assert len(list(plain["training"])) == 2
    patients = {subject["patient"]: subject for name in ("training", "validation") for subject in plain[name]}
    validated = []
    for number in (1, 2, 3):
        splits = {split: h5VerSe(segmentation_h5, split, fold=Fold(number, 3)) for split in plain}
        (only,) = splits["validation"]
        validated.append(only["patient"])
        assert {subject["patient"] for subject in splits["training"]} == set(patients) - {only["patient"]}
        assert torch.equal(only["image"].data, patients[only["patient"]]["image"].data)
        assert splits["test"].case_ids == plain["test"].case_ids
    assert sorted(validated) == sorted(patients)
    with pytest.raises(UserError, match=r"--fold 1/4: .*: 3 patients can't be split into 4 folds; give fewer folds"):
        h5VerSe(segmentation_h5, "training", fold=Fold(1, 4))
