"""The best network of a run on the whole volumes of the test split."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from tqdm import tqdm

from dataloader import h5VerSe
from metrics.metric_handler import MetricHandler
from training.arguments import Settings
from training.compute import Compute
from training.tasks import Task
from utils.glossary import MAIN_METRICS, shown, title_of
from utils.misc import write_json
from utils.scans import save_mask
from utils.sliding_window import predict_probabilities
from utils.visualize import save_figure


def predict(
    network: nn.Module,
    image_CXYZ: Tensor,
    settings: Settings,
    compute: Compute,
    overhang_vox: tuple[int, int, int] = (0, 0, 0),
) -> Tensor:
    """Probabilities (K, X, Y, Z) of a scaled image of any size, on the CPU."""
    network.eval()
    with compute.autocast():
        return predict_probabilities(
            network,
            image_CXYZ,
            settings.input_shape,
            batch_size=compute.batch_size,
            overhang_vox=overhang_vox,
            device=compute.device,
        )


def test(task: Task, network: nn.Module, dataset: h5VerSe, settings: Settings, compute: Compute) -> MetricHandler:
    """Predict every test case whole; write ``test_metrics.json``, pictures and masks to the run's folder.

    Masks lie on the grid of the H5, RAS at 1 mm, as ``test/<case>_prediction.nii.gz`` and ``<case>_target.nii.gz``.
    """
    handler = task.metric_handler()
    for index in tqdm(range(len(dataset)), desc="test", unit="case"):
        subject = dataset[index]
        probabilities_KXYZ = predict(network, subject["image"].data, settings, compute, task.overhang_vox)
        probabilities_KXYZ = task.clean(probabilities_KXYZ, subject["image"].spacing)
        task.measure(handler, subject, probabilities_KXYZ)
        row = handler.rows[-1]
        told = [f"{title_of(name)} {shown(row[name], handler.metrics[name].unit)}" for name in MAIN_METRICS[task.name]]
        title = f"{subject['case_id']} (test)\n{', '.join(told)}"
        figure = task.test_picture(subject, probabilities_KXYZ, title)
        save_figure(figure, settings.run_folder / "images" / f"test_{subject['case_id']}.png")
        for name, mask in task.masks(subject, probabilities_KXYZ).items():
            path = settings.run_folder / "test" / f"{subject['case_id']}_{name}.nii.gz"
            save_mask(mask, subject["image"].affine, path)
    write_json(test_metrics_path(settings), handler.as_json())
    return handler


def test_metrics_path(settings: Settings) -> Path:
    """Where a run's test metrics lie."""
    return settings.run_folder / "test_metrics.json"
