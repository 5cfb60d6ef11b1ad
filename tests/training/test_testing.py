import json

import nibabel as nib
import numpy as np
import pytest
import torch

from training import testing
from training.settings import TrainingSettings
from training.tasks import SegmentationTraining
from utils.tasks import SEGMENTATION


@pytest.mark.parametrize("labels", ["binary", "vertebrae"])
def test_masks_are_kept_on_the_grid_of_the_h5(segmentation_h5, tmp_path, monkeypatch, labels):
    shape = SEGMENTATION.input_shape
    settings = TrainingSettings(
        SEGMENTATION, (segmentation_h5,), "run", input_shape=shape, loss="DiceCE", labels=labels, output=tmp_path
    )
    task = SegmentationTraining(settings)
    dataset = task.dataset(segmentation_h5, "test")
    target = dataset[0]["label"].data[0].long()
    found = torch.where(torch.arange(target.shape[2]) < target.shape[2] // 2, target, 0)
    probabilities = torch.nn.functional.one_hot(found, max(task.out_channels, 2)).movedim(-1, 0).float()
    probabilities = probabilities[1:] if task.out_channels == 1 else probabilities
    monkeypatch.setattr(testing, "predict", lambda *_: probabilities)
    monkeypatch.setattr(task, "clean", lambda probabilities_KXYZ, _: probabilities_KXYZ)
    testing.test(task, None, dataset, settings, None, epoch=1)

    (case,) = dataset.case_ids
    _, stored = dataset.store.read("test", case)
    expected = stored if labels == "vertebrae" else (stored > 0).astype(np.uint8)
    lower = np.where(np.arange(stored.shape[2]) < stored.shape[2] // 2, expected, 0)
    for name, wanted in (("prediction", lower), ("target", expected)):
        image = nib.load(tmp_path / "run" / "test" / f"{case}_{name}.nii.gz")
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(image.dataobj), wanted)
        np.testing.assert_allclose(image.affine, dataset.store.case("test", case).grid.affine, atol=1e-4)
    assert 0 < lower.astype(bool).sum() < expected.astype(bool).sum()
    assert json.loads((tmp_path / "run" / "test_metrics.json").read_text(encoding="utf-8"))["cases"][0]["case"] == case
