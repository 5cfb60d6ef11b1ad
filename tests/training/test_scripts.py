import json
import shutil
from types import SimpleNamespace

import h5py
import pytest
import torch
import torchio as tio

from networks import build_network
from training.arguments import parse_arguments
from training.scripts import _datasets, expect_background
from training.tasks import build_task
from training.trainer import _subject_to_show
from utils.tasks import HEATMAP, SEGMENTATION


def test_heatmaps_of_all_vertebrae_start_as_background_and_classes_alike():
    torch.manual_seed(0)
    network = build_network("UNet", 1, 27, (32, 32, 32))
    expect_background(network, 27)
    with torch.no_grad():
        assert torch.softmax(network(torch.randn(1, 1, 32, 32, 32)), dim=1)[:, 0].mean() > 0.95
    starts = [
        build_task(parse_arguments(task, ["--data_path", "verse", "--model_name", "a", "--labels", labels]))
        for task, labels in (
            (HEATMAP, "vertebrae"),
            (HEATMAP, "binary"),
            (SEGMENTATION, "binary"),
            (SEGMENTATION, "regions"),
        )
    ]
    assert [task.starts_as_background for task in starts] == [True, True, True, False]


def test_the_picture_of_an_epoch_shows_the_patch_with_most_foreground():
    def patch(voxels):
        label = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
        label.view(-1)[:voxels] = 20
        return tio.Subject(label=tio.LabelMap(tensor=label), voxels=voxels)

    patches = [patch(voxels) for voxels in (0, 3, 30, 5)]
    assert _subject_to_show(SimpleNamespace(target_key="label"), patches)["voxels"] == 30


def test_training_says_which_cases_its_data_was_made_without(segmentation_h5, tmp_path):
    path = shutil.copy(segmentation_h5, tmp_path / "some.h5")
    with h5py.File(path, "a") as file:
        file.attrs["notes"] = json.dumps({"left_out": ["sub-a (training): sub-a_ct.nii.gz: constant"]})
    settings = parse_arguments(SEGMENTATION, ["--data_path", str(path), "--model_name", "a"])
    with pytest.warns(UserWarning, match=r"some\.h5 was made without sub-a \(training\): sub-a_ct\.nii\.gz: constant"):
        _datasets(build_task(settings), settings)
