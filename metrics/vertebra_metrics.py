"""How well single vertebrae were found and named.

**Found.** A binary mask consists of connected components (voxels that share a face belong together), which are compared
with the vertebrae of the reference. Exactly, of a vertebra of the reference:

- A component **covers** it if it holds at least ``COVERED_SHARE`` of its voxels.
- It is **found** if the mask holds at least ``FOUND_SHARE`` of its voxels, else **missed**.
- It is **split** if it is found, and two or more components cover it.
- It is **merged** if it is found, and a component that covers it covers another vertebra too. Neighbours touch at their
  facet joints, and one voxel between them joins their components: in a binary mask "merged" is the rule, not a fault.

A component is **false** if it covers no vertebra and more than half of it lies outside all of them. A vertebra that the
scan's end cuts is usually not labelled, so what was found of it counts as false.

**Named.** VerSe's identification rate and localisation error (Sekuboyina et al. 2021, 10.1016/j.media.2021.102166,
after Glocker et al. 2012). A vertebra of the reference is **identified** if the nearest of all predicted centroids to
its own has the same label and lies no farther than ``MOST_MM``. The localisation error leaves out missed vertebrae.

The challenge's published code asks from the other side, among the labels that both have: whether the nearest reference
centroid to the predicted one bears its label. The two can differ where a centroid lies about as near to a neighbour's
place as to its own, and where a false label lies nearer than the right one.

Centroids here are the masks' centres of mass. The centres of vertebral bodies that VerSe lists lie 10 to 14 mm before
them: compare like with like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from metrics.metric import DISTANCE_MM, MetricTable, Pair, RatioMetric
from verse_utils.labels import ANATOMICAL_ORDER, LABEL_SCHEMES

FOUND_SHARE = 0.5
# A tenth: crumbs at a vertebra's rim don't split it, a leak into its neighbour's joint doesn't merge them.
COVERED_SHARE = 0.1
MOST_MM = 20.0

# Of binary masks; the columns are those of ``count_findings``.
FINDING_METRICS = (
    RatioMetric(
        "found",
        "Found",
        "Share of the vertebrae of which at least half of the voxels were found",
        part="found",
        whole="vertebrae",
    ),
    RatioMetric(
        "missed",
        "Missed",
        "Share of the vertebrae of which less than half of the voxels were found",
        higher_is_better=False,
        part="missed",
        whole="vertebrae",
    ),
    RatioMetric(
        "split",
        "Split",
        "Share of the vertebrae that were found in several connected components",
        higher_is_better=False,
        part="split",
        whole="vertebrae",
    ),
    RatioMetric(
        "merged",
        "Merged",
        "Share of the vertebrae that were found in a connected component with others; most do, as neighbours touch",
        higher_is_better=False,
        part="merged",
        whole="vertebrae",
    ),
    RatioMetric(
        "false_components",
        "False components",
        "Connected components of a case that cover no vertebra and lie mostly outside all of them",
        higher_is_better=False,
        scale="number",
        part="false_components",
        whole="cases",
    ),
)
# Of masks with VerSe's labels; the columns are those of ``count_names``.
NAME_METRICS = (
    RatioMetric(
        "vertebra_dice",
        "Dice of vertebrae",
        "Mean Dice of the vertebrae of the reference by their labels, 0 for missed ones",
        part="vertebra_dice_sum",
        whole="vertebrae",
    ),
    RatioMetric(
        "identification_rate",
        "Identification rate",
        f"Share of the vertebrae whose nearest predicted centroid has the same label and lies within {MOST_MM:g} mm",
        part="identified",
        whole="vertebrae",
    ),
    RatioMetric(
        "localisation_error_mm",
        "Localisation error",
        "Mean distance of predicted and reference centroids of the same label; missed vertebrae are left out",
        unit="mm",
        higher_is_better=False,
        part="localisation_error_sum_mm",
        whole="localised",
    ),
)


@dataclass(frozen=True)
class VertebraFinding:
    """What a binary mask holds of one vertebra of the reference.

    Attributes:
        recall: share of its voxels, in [0, 1].
        found, split, merged: see the module; missed is what isn't found.
    """

    recall: float
    found: bool
    split: bool
    merged: bool


def find_vertebrae(prediction: np.ndarray, reference: np.ndarray) -> tuple[dict[int, VertebraFinding], int]:
    """Compare a binary mask with the vertebrae of the reference.

    Args:
        prediction: (X, Y, Z) bool.
        reference: (X, Y, Z) uint8, VerSe's labels.

    Returns:
        Label of the reference -> finding, from head to foot; the number of false components.
    """
    from scipy.ndimage import label

    components, count = label(prediction)
    labels = _labels_of(reference)
    size_vox = np.bincount(components[prediction], minlength=count + 1)[1:]
    reference_vox = np.bincount(reference[reference > 0], minlength=256)[labels]
    shared_vox = _shared_voxels(components, reference, count + 1)[1:, labels]
    share = shared_vox / reference_vox  # (components, vertebrae)
    covers = share >= COVERED_SHARE
    findings = {}
    for column, number in enumerate(labels):
        own = covers[:, column]
        recall = float(share[:, column].sum())
        found = recall >= FOUND_SHARE
        merged = bool((covers[own].sum(axis=1) > 1).any())
        findings[number] = VertebraFinding(recall, found, found and int(own.sum()) > 1, found and merged)
    mostly_outside = 2 * shared_vox.sum(axis=1) < size_vox
    return findings, int((mostly_outside & ~covers.any(axis=1)).sum())


def count_findings(prediction: np.ndarray, reference: np.ndarray) -> dict[str, int]:
    """Arguments as of ``find_vertebrae``; how many ``vertebrae`` there are, ``found``, ``missed`` and so on."""
    of_vertebra, false_components = find_vertebrae(prediction, reference)
    findings = list(of_vertebra.values())
    found = sum(finding.found for finding in findings)
    return {
        "vertebrae": len(findings),
        "found": found,
        "missed": len(findings) - found,
        "split": sum(finding.split for finding in findings),
        "merged": sum(finding.merged for finding in findings),
        "false_components": false_components,
    }


def count_names(prediction: np.ndarray, reference: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """How many vertebrae bear the right name, and sums over them.

    Args:
        prediction, reference: (I, J, K) uint8, VerSe's labels.
        affine: (4, 4), voxel indices to RAS mm.

    Returns:
        The numbers of ``vertebrae`` in the reference, of ``identified`` and of ``localised`` ones (in both masks);
        ``vertebra_dice_sum`` and ``localisation_error_sum_mm``.
    """
    of_vertebra = dice_of_vertebrae(prediction, reference)
    names = identify(mask_centroids(prediction, affine), mask_centroids(reference, affine))
    return {
        "vertebrae": len(of_vertebra),
        "vertebra_dice_sum": sum(of_vertebra.values()),
        "identified": sum(names.identified.values()),
        "localised": len(names.error_mm),
        "localisation_error_sum_mm": sum(names.error_mm.values()),
    }


def dice_of_vertebrae(prediction: np.ndarray, reference: np.ndarray) -> dict[int, float]:
    """Dice of each vertebra of the reference by its label, as in the VerSe challenge: 0 where the prediction lacks it.

    Args:
        prediction, reference: (X, Y, Z) uint8, VerSe's labels.

    Returns:
        Label of the reference -> Dice in [0, 1], from head to foot. A label that only the prediction has lowers none.
    """
    shared_vox = _shared_voxels(prediction, reference, 256)
    predicted_vox, reference_vox = (np.bincount(mask[mask > 0], minlength=256) for mask in (prediction, reference))
    return {
        number: float(2 * shared_vox[number, number] / (predicted_vox[number] + reference_vox[number]))
        for number in _labels_of(reference)
    }


@dataclass(frozen=True)
class Identification:
    """The names of one case's vertebrae.

    Attributes:
        identified: label of the reference -> whether it was identified, from head to foot.
        error_mm: label -> distance of the centroids, of the labels that both have.
    """

    identified: dict[int, bool]
    error_mm: dict[int, float]


def identify(predicted_mm: Mapping[int, np.ndarray], reference_mm: Mapping[int, np.ndarray]) -> Identification:
    """Compare predicted centroids with those of the reference.

    Args:
        predicted_mm, reference_mm: label -> (3,) in mm of one space, such as of ``mask_centroids`` or
            ``Centroids.to_world``.
    """
    labels = [number for number in ANATOMICAL_ORDER if number in reference_mm]
    identified = dict.fromkeys(labels, False)
    for number in labels:
        apart_mm = {other: _distance(place, reference_mm[number]) for other, place in predicted_mm.items()}
        if number in apart_mm:
            identified[number] = apart_mm[number] == min(apart_mm.values()) and apart_mm[number] <= MOST_MM
    shared = [number for number in labels if number in predicted_mm]
    return Identification(
        identified, {number: _distance(predicted_mm[number], reference_mm[number]) for number in shared}
    )


def mask_centroids(mask: np.ndarray, affine: np.ndarray) -> dict[int, np.ndarray]:
    """Centre of mass of each label.

    Args:
        mask: (I, J, K) uint8, VerSe's labels.
        affine: (4, 4), voxel indices to RAS mm.

    Returns:
        label -> (3,) float64 in RAS mm.
    """
    from nibabel.affines import apply_affine
    from scipy.ndimage import center_of_mass

    labels = _labels_of(mask)
    centres_vox = center_of_mass(np.ones(mask.shape, np.uint8), mask, labels) if labels else []
    return {number: apply_affine(affine, centre) for number, centre in zip(labels, centres_vox, strict=True)}


def _labels_of(mask: np.ndarray) -> list[int]:
    """The labels that occur, from head to foot."""
    present = set(np.unique(mask).tolist())
    return [number for number in ANATOMICAL_ORDER if number in present]


def _shared_voxels(regions: np.ndarray, reference: np.ndarray, count: int) -> np.ndarray:
    """How many voxels each region below ``count`` shares with each label, 0 left out: (count, 256) int64."""
    both = (regions > 0) & (reference > 0)
    pairs = regions[both].astype(np.int64) * 256 + reference[both]
    return np.bincount(pairs, minlength=count * 256).reshape(count, 256)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(np.subtract(first, second)))


class CentrePair(Pair):
    """Predicted centres of vertebrae and those of the reference, label -> (3,) in mm of one space.

    Args:
        prediction, reference: one of them is empty where it has no vertebra.
        shape: (X, Y, Z) voxels of the grid on which they were found.
        spacing_mm: along X, Y, Z.
    """

    def __init__(
        self,
        prediction: Mapping[int, np.ndarray],
        reference: Mapping[int, np.ndarray],
        shape: tuple[int, ...],
        spacing_mm: Sequence[float],
    ) -> None:
        self.prediction, self.reference = prediction, reference
        self.shape, self.spacing_mm = shape, spacing_mm

    @property
    def are_empty(self) -> tuple[bool, bool]:
        return not self.prediction, not self.reference

    @cached_property
    def names(self) -> Identification:
        """How the two agree."""
        return identify(self.prediction, self.reference)


CENTRE_METRICS = MetricTable(CentrePair)


@CENTRE_METRICS.metric("Identification rate", is_main=True)
def identification_rate(pair: CentrePair) -> float:
    """Share of the vertebrae whose nearest predicted centre has the same name and lies within 20 mm."""
    return float(np.mean(list(pair.names.identified.values())))


@CENTRE_METRICS.metric("Localisation error", **DISTANCE_MM, is_main=True)
def localisation_error_mm(pair: CentrePair) -> float:
    """Mean distance of predicted and reference centres of the same name; missed vertebrae are left out."""
    errors_mm = list(pair.names.error_mm.values())
    return float(np.mean(errors_mm)) if errors_mm else pair.diagonal_mm


def measure_centres(
    prediction: Mapping[int, np.ndarray], reference: Mapping[int, np.ndarray], **inputs: Any
) -> dict[str, float]:
    """All metrics of ``CENTRE_METRICS``, and each of each region that the reference shows, as ``..._lumbar``.

    Args:
        prediction, reference, inputs: as of ``CentrePair``.
    """
    measured = CENTRE_METRICS.measure(prediction, reference, **inputs)
    for region, part in by_region(reference).items():
        of_region = CENTRE_METRICS.measure(prediction, part, **inputs)
        measured |= {f"{name}_{region}": value for name, value in of_region.items()}
    return measured


def by_region(centres: Mapping[int, np.ndarray]) -> dict[str, dict[int, np.ndarray]]:
    """Centres of the cervical, the thoracic and the lumbar vertebrae; regions without any are left out."""
    regions = LABEL_SCHEMES["regions"]
    parts: dict[str, dict[int, np.ndarray]] = {}
    for label, centre in centres.items():
        parts.setdefault(regions.class_names[regions.class_of[label] - 1], {})[label] = centre
    return parts
