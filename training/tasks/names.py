"""Training of a localiser that names vertebrae: what differs from one that finds the spine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch
import torchio as tio
from torch import Tensor

from data_transforms.heatmap_transforms import heatmap_presets
from dataloader import h5VerSe
from metrics.metric_handler import MetricHandler
from metrics.vertebra_metrics import CENTRE_METRICS, by_region, identify, measure_centres
from prediction.names.column import Steps, Vertebra, confidence_at, find_candidates, name_vertebrae
from training.settings import TrainingSettings
from training.tasks.localiser import VIEW_TERMS, HeatmapTraining
from training.tasks.task import require_names
from utils.geometry.body_centres import body_centres
from verse_utils.labels import ANATOMICAL_ORDER, LABEL_SCHEMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REGIONS = LABEL_SCHEMES["regions"].class_names


class NamesTraining(HeatmapTraining):
    """The localiser of ``--labels vertebrae``: a heatmap of each vertebra in a view of the whole scan.

    Attributes:
        steps: distances between neighbours, of the training cases.
    """

    out_channels = 1 + len(ANATOMICAL_ORDER)

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        self.presets = heatmap_presets(augmentation=settings.augmentation, labels=settings.labels)
        self.steps = Steps.learn([])

    def check(self, dataset: h5VerSe) -> None:
        require_names(dataset, self.settings.labels)

    def learn(self, dataset: h5VerSe) -> dict[str, Any]:
        """Distances between neighbours, as they are in the training cases."""
        spines = []
        for split, case_id in dataset.places:
            affine = dataset.store.case(split, case_id).grid.affine
            _, label = dataset.store.read(split, case_id)
            spines.append(_in_mm(body_centres(label, nib.affines.voxel_sizes(affine)), affine))
        self.steps = Steps.learn(spines)
        return {"steps_mm": self.steps.as_json()}

    def recall(self, network_input: Mapping[str, Any]) -> None:
        self.steps = Steps.from_json(network_input.get("steps_mm"))

    def score_terms(self, logits: Tensor, target: Tensor, spacing_mm: Sequence[float] = (1, 1, 1)) -> np.ndarray:
        prediction = torch.softmax(logits.double(), dim=1)[:, 1:]
        affine = np.diag([*spacing_mm, 1.0])
        heatmaps_KXYZ = prediction[0].cpu().numpy()
        vertebrae = self._name(heatmaps_KXYZ, affine)
        confidence = confidence_at(vertebrae, heatmaps_KXYZ, affine)
        terms = [self._terms(prediction, target[:, 1:].double(), confidence)]
        found = {vertebra.label: vertebra.centre_mm for vertebra in vertebrae}
        # Of a target, the highest value of each heatmap is the vertebra.
        candidates = sorted(find_candidates(target[0, 1:].cpu().numpy(), affine), key=lambda one: one.score)
        parts = by_region({candidate.label: candidate.place_mm for candidate in candidates})
        for region in _REGIONS:
            names = identify(found, parts.get(region, {}))
            hits, errors_mm = list(names.identified.values()), list(names.error_mm.values())
            terms.append(np.array([sum(hits), len(hits), sum(errors_mm), len(errors_mm)]))
        return np.concatenate(terms)

    def further_scores(self, terms: np.ndarray) -> dict[str, float | str]:
        """Mean confidence; identification rate and mean localisation error over the views' vertebrae, and by region.

        The error is "" where no vertebra was found.
        """
        of_regions = terms[VIEW_TERMS:].reshape(len(_REGIONS), 4)
        endings = ["", *(f"_{region}" for region in _REGIONS)]
        columns = super().further_scores(terms)
        for ending, counts in zip(endings, [of_regions.sum(axis=0), *of_regions], strict=True):
            identified, vertebrae, error_mm, localised = counts
            if vertebrae:  # the same in each epoch
                columns[f"validation_identification_rate{ending}"] = float(identified / vertebrae)
                columns[f"validation_localisation_error_mm{ending}"] = float(error_mm / localised) if localised else ""
        return columns

    def metric_handler(self) -> MetricHandler:
        return MetricHandler(CENTRE_METRICS)

    def measure(self, handler: MetricHandler, subject: tio.Subject, probabilities_KXYZ: Tensor) -> None:
        image, label = subject["image"], subject["label"]
        reference = _in_mm(body_centres(label.data[0].numpy(), image.spacing), image.affine)
        vertebrae = self._name(probabilities_KXYZ[1:].numpy(), image.affine)
        found = {vertebra.label: vertebra.centre_mm for vertebra in vertebrae}
        measured = measure_centres(found, reference, shape=image.spatial_shape, spacing_mm=image.spacing)
        handler.rows.append({"case": subject["case_id"], **measured})

    def picture(self, subject: tio.Subject, probabilities_KXYZ: Tensor, title: str) -> Figure:
        """Draw the heatmaps of all vertebrae as one."""
        target, prediction = (1 - heatmap[0].numpy() for heatmap in (subject["heatmap"].data, probabilities_KXYZ))
        return self.draw(subject, target, prediction, title)

    def _name(self, heatmaps_KXYZ: np.ndarray, affine: np.ndarray) -> list[Vertebra]:
        """The vertebrae that heatmaps show."""
        return name_vertebrae(find_candidates(heatmaps_KXYZ, affine), self.steps)


def _in_mm(centres_vox: Mapping[int, np.ndarray], affine: np.ndarray) -> dict[int, np.ndarray]:
    return {label: nib.affines.apply_affine(affine, centre) for label, centre in centres_vox.items()}
