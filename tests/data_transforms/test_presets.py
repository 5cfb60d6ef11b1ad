import numpy as np
import pytest
import torch
import torchio as tio

from data_transforms.classes.random_low_resolution import RandomLowResolution
from data_transforms.heatmap_transforms import heatmap_presets
from data_transforms.segmentation_transforms import segmentation_presets, single_presets
from utils.constants import AUGMENTATIONS
from verse_utils.labels import LABEL_SCHEMES


def subject() -> tio.Subject:
    rng = np.random.default_rng(0)
    image = rng.integers(-1200, 2500, (1, 24, 24, 32)).astype(np.int16)
    label = np.zeros((1, 24, 24, 32), np.uint8)
    label[0, 8:14, 10:16, 4:12], label[0, 8:14, 10:16, 14:22] = 21, 20
    return tio.Subject(
        image=tio.ScalarImage(tensor=torch.from_numpy(image)), label=tio.LabelMap(tensor=torch.from_numpy(label))
    )


@pytest.mark.parametrize("table", LABEL_SCHEMES)
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_segmentation_presets(table, augmentation, seed):
    presets = segmentation_presets(LABEL_SCHEMES[table], augmentation)
    torch.manual_seed(seed)
    for transform in presets:
        found = transform(subject())
        assert found["image"].data.dtype == torch.float32 and found["image"].shape == (1, 24, 24, 32)
        assert torch.isfinite(found["image"].data).all() and found["image"].data.abs().max() < 3
        assert found["label"].data.max() < LABEL_SCHEMES[table].class_count and found["label"].data.any()


@pytest.mark.parametrize("mode", ["distance", "gaussian"])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_heatmap_presets(mode, augmentation, seed):
    presets = heatmap_presets(mode, augmentation)
    torch.manual_seed(seed)
    for transform in presets:
        found = transform(subject())
        heatmap = found["heatmap"].data
        assert heatmap.dtype == torch.float32 and heatmap.min() >= 0 and 0.9 < heatmap.max() <= 1
        assert found["image"].data.dtype == torch.float32
        assert set(found["label"].data.unique().tolist()) == {0, 1}
        if mode == "distance":  # geometry moved both alike, intensities only the image
            assert (heatmap[found["label"].data > 0] == 1).all()


def test_only_strong_patches_lose_resolution_along_all_axes():
    """Light ones stay as they are scanned, and views of whole scans are coarse themselves."""
    binary = LABEL_SCHEMES["binary"]
    for task, presets in (
        ("patches", lambda strength: segmentation_presets(binary, strength)),
        ("patches", single_presets),
        ("views", lambda strength: heatmap_presets("distance", strength)),
    ):
        for strength in AUGMENTATIONS:
            coarse = [one for one in presets(strength).train.transforms if isinstance(one, RandomLowResolution)]
            assert [one.axes for one in coarse] == ([1, 3] if (task, strength) == ("patches", "strong") else [])


def test_evaluation_does_not_depend_on_chance():
    for presets in (heatmap_presets(), segmentation_presets(LABEL_SCHEMES["binary"])):
        first, second = presets.evaluate(subject()), presets.evaluate(subject())
        assert torch.equal(first["image"].data, second["image"].data)


def test_scaling_does_not_depend_on_the_patch():
    """The same HU gives the same number whatever else a patch holds."""
    presets = segmentation_presets(LABEL_SCHEMES["binary"])
    one = subject()
    two = subject()
    two["image"].data[0, 0, 0, 0] = 3000
    first, second = (presets.evaluate(s)["image"].data for s in (one, two))
    assert torch.equal(first[0, 1:], second[0, 1:])
    hu = subject()["image"].data.float()
    torch.testing.assert_close(first, hu.clamp(-1000, 1500) / 1000)


def test_flips_are_left_right_only():
    presets = segmentation_presets(LABEL_SCHEMES["binary"])
    for transform in presets.train.transforms:
        if isinstance(transform, tio.RandomFlip):
            assert transform.axes == (0,)
            return
    pytest.fail("no flip")
