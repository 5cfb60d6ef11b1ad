"""The segmenter of single vertebrae: its scores, and a run of it."""

import json
import shutil

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch

from dataloader import h5VerSe
from networks.network import Network
from prediction.device import find_device
from training.arguments import parse_arguments
from training.steps.step_plan import StepPlan
from training.tasks import build_task
from utils.tasks import SEGMENTATION

pytestmark = pytest.mark.usefixtures("blank_pictures")
RUN = ["--labels", "single", "--input_shape", "32", "32", "32", "--model_args", "channels=4,8", "--workers", "0"]


@pytest.fixture
def task(segmentation_h5):
    return build_task(parse_arguments(SEGMENTATION, ["--data_path", str(segmentation_h5), "--model_name", "a", *RUN]))


def test_patches_show_one_vertebra_and_whole_scans_have_all(task, segmentation_h5):
    patch = task.dataset(segmentation_h5, "validation")[0]
    assert patch["image"].data.shape == (2, 32, 32, 32) and set(patch["label"].data.unique().tolist()) <= {0, 1}
    for whole in (task.dataset(segmentation_h5, "validation", whole=True), task.dataset(segmentation_h5, "test")):
        assert whole[0]["image"].data.shape[0] == 1 and whole[0]["label"].data.unique().numel() > 2


def test_a_network_that_is_right_scores_fully(task, segmentation_h5):
    """With a network that sees the mask: what training tells of whole scans is what it finds there."""
    subject = task.dataset(segmentation_h5, "test")[0]
    subject["image"].set_data((subject["label"].data > 0).float())
    task.settings = parse_arguments(
        SEGMENTATION,
        ["--data_path", str(segmentation_h5), "--model_name", "a", *RUN[:2], "--input_shape", "80", "96", "80"],
    )

    class Right(Network):
        def __init__(self):
            super().__init__((8, 8, 8), divisor=1)

        def heads(self):
            return []

        def compute_logits(self, windows):
            return torch.where(windows[:, 1:] > np.exp(-0.5 * (14 / 8) ** 2), 20 * windows[:, :1] - 10, -10)

    prediction = task.predict(Right(), subject, StepPlan(find_device("cpu", "fp32")))
    assert prediction.shape == (2, *subject["label"].data.shape[1:])
    classes, wanted = task.classes(prediction), subject["label"].data[0].numpy()
    inside = (classes > 0) & (wanted > 0)
    assert (classes[inside] == wanted[inside]).mean() > 0.9 and set(np.unique(classes)) == set(np.unique(wanted))
    assert task.scan_score(subject, task.clean(prediction, (1, 1, 1))) > 0.4
    perfect = torch.from_numpy(np.stack([(wanted > 0).astype(np.float32), wanted]))
    assert task.scan_score(subject, perfect) == 1


@pytest.mark.parametrize(
    ("task", "labels"), [("segmentation", "single"), ("segmentation", "regions"), ("heatmap", "vertebrae")]
)
def test_masks_with_one_label_for_all_teach_no_names(
    run_script, segmentation_h5, heatmap_h5, tmp_path, assert_one_line_error, task, labels
):
    path = shutil.copy(segmentation_h5 if task == "segmentation" else heatmap_h5, tmp_path / "one.h5")
    with h5py.File(path, "a") as file:
        for case in [case for split in ("training", "validation", "test") for case in file[split].values()]:
            label = (case["label"][:] > 0).astype(np.uint8)
            attributes = dict(case["label"].attrs)
            del case["label"]
            case.create_dataset("label", data=label).attrs.update(attributes)
    arguments = ["--data_path", path, "--model_name", "a", "--labels", labels, "--epochs", 1, "--workers", 0]
    result = run_script(f"training/train_{task}.py", *arguments, cwd=tmp_path)
    assert_one_line_error(result, "one label for all vertebrae", f"--labels {labels}", "--labels binary")
    assert not (tmp_path / "trained_models").exists()


def test_a_run_begins_with_a_binary_segmenter_and_tells_each_vertebra(run_script, segmentation_h5, tmp_path):
    common = ["--data_path", segmentation_h5, "--epochs", 1]
    binary = run_script("training/train_segmentation.py", *common, "--model_name", "binary", *RUN[2:], cwd=tmp_path)
    assert binary.returncode == 0, binary.stderr
    arguments = [*common, "--model_name", "one", *RUN, "--init_from", "binary", "--lr", 1e-9]
    result = run_script("training/train_segmentation.py", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    runs = tmp_path / "trained_models"
    stored, before = (torch.load(runs / name / "best.pt", weights_only=True) for name in ("one", "binary"))
    assert stored["network"]["in_channels"] == 2 and stored["settings"]["labels"] == "single"
    name = next(name for name, weight in stored["weights"].items() if weight.shape != before["weights"][name].shape)
    torch.testing.assert_close(stored["weights"][name][:, :1], before["weights"][name], atol=1e-4, rtol=0)
    metrics = json.loads((runs / "one" / "test_metrics.json").read_text(encoding="utf-8"))
    (case,) = h5VerSe(segmentation_h5, "test").case_ids
    target = np.asarray(nib.load(runs / "one" / "test" / f"{case}_target.nii.gz").dataobj)
    told = {column for column in metrics["cases"][0] if column.startswith("dice_")}
    assert len(told) == len(set(np.unique(target)) - {0}) and metrics["cases"][0]["case"] == case
    again = run_script("training/train_segmentation.py", *arguments[:-4], "--test_only", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((runs / "one" / "test_metrics.json").read_text(encoding="utf-8"))["cases"] == metrics["cases"]
