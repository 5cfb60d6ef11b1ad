"""The test of a trained network on the whole volumes of the test split."""

from __future__ import annotations

import warnings

import torch
from tqdm import tqdm

from dataloader import h5VerSe
from metrics.metric import shown
from metrics.metric_handler import MetricHandler
from networks.network import Network
from training.settings import TrainingSettings
from training.steps.step_plan import StepPlan
from training.tasks.task import TrainingTask
from utils.files.scans import save_mask
from utils.visualize import save_figure
from verse_utils.files.writing import write_json


def test(
    task: TrainingTask, network: Network, dataset: h5VerSe, settings: TrainingSettings, plan: StepPlan, epoch: int
) -> MetricHandler:
    """Predict every test case as a whole; write metrics, pictures and masks to the test's folder.

    Masks lie on the grid of the H5, RAS at 1 mm. ``RunFolder`` says where each file is written.

    Args:
        task: metrics and pictures.
        network: on its device.
        dataset: of whole cases.
        settings: of the run and of the test.
        plan: how a forward pass is computed.
        epoch: after which the network had these weights.
    """
    handler = task.metric_handler()
    folder = settings.test_folder
    for index in tqdm(range(len(dataset)), desc="test", unit="case", disable=None):
        subject = dataset[index]
        probabilities_KXYZ = task.predict(network, subject, plan)
        if not all(torch.isfinite(channel).all() for channel in probabilities_KXYZ):
            warnings.warn(
                f"{subject['case_id']}: the network's output is not finite; the case is left out", stacklevel=2
            )
            continue
        probabilities_KXYZ = task.clean(probabilities_KXYZ, subject["image"].spacing)
        task.measure(handler, subject, probabilities_KXYZ)
        row = handler.rows[-1]
        main = [handler.metrics[name] for name in handler.metrics.main]
        told = [f"{metric.title} {shown(row[metric.name], metric.unit)}" for metric in main]
        title = f"{subject['case_id']} ({settings.test_split})\n{', '.join(told)}"
        figure = task.test_picture(subject, probabilities_KXYZ, title)
        save_figure(figure, folder.test_picture(subject["case_id"]))
        for name, mask in task.masks(subject, probabilities_KXYZ).items():
            save_mask(mask, subject["image"].affine, folder.test_mask(subject["case_id"], name))
    options = {"overlap": settings.overlap, "tta": settings.tta, "postprocess": settings.postprocess}
    told_of_test = {"split": settings.test_split, **options, "epoch": epoch}
    write_json(folder.test_metrics, {**handler.as_json(), "test": told_of_test})
    return handler
