"""How well single vertebrae were found, by a mask that tells them apart or one that doesn't.

A binary mask falls into components (voxels that share a face belong together), which are held against the true
vertebrae. Exactly, of a true vertebra:

- A component **covers** it if it holds at least ``COVERED_SHARE`` of its voxels.
- It is **found** if the mask holds at least ``FOUND_SHARE`` of its voxels, else **missed**.
- It is **split** if it is found, and two or more components cover it.
- It is **merged** if it is found, and a component that covers it covers another vertebra too. Neighbours touch at their
  facet joints, and one voxel between them joins their components: in a binary mask "merged" is the rule, not a fault.

A component is **false** if it covers no vertebra and more than half of it lies outside all of them. A vertebra that the
scan's end cuts is usually not labelled, so what was found of it counts as false.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verse_utils.labels import ANATOMICAL_ORDER

FOUND_SHARE = 0.5
# A tenth: crumbs at a vertebra's rim don't split it, a leak into its neighbour's joint doesn't merge them.
COVERED_SHARE = 0.1


@dataclass(frozen=True)
class VertebraFinding:
    """What a binary mask holds of one true vertebra.

    Attributes:
        recall: share of its voxels, in [0, 1].
        found, split, merged: see the module; missed is what isn't found.
    """

    recall: float
    found: bool
    split: bool
    merged: bool


def find_vertebrae(prediction: np.ndarray, target: np.ndarray) -> tuple[dict[int, VertebraFinding], int]:
    """Hold a binary mask against the true vertebrae.

    Args:
        prediction: (X, Y, Z) bool.
        target: (X, Y, Z) uint8, VerSe's labels.

    Returns:
        True label -> finding, from head to foot; the number of false components.
    """
    from scipy.ndimage import label

    components, count = label(prediction)
    labels = _labels_of(target)
    size_vox = np.bincount(components[prediction], minlength=count + 1)[1:]
    true_vox = np.bincount(target[target > 0], minlength=256)[labels]
    shared_vox = _shared_voxels(components, target, count + 1)[1:, labels]
    share = shared_vox / true_vox  # (components, vertebrae)
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


def count_findings(prediction: np.ndarray, target: np.ndarray) -> dict[str, int]:
    """Arguments as of ``find_vertebrae``; how many ``vertebrae`` there are, ``found``, ``missed`` and so on."""
    of_vertebra, false_components = find_vertebrae(prediction, target)
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


def dice_of_vertebrae(prediction: np.ndarray, target: np.ndarray) -> dict[int, float]:
    """Dice of each true vertebra by its label, as the VerSe challenge has it: 0 where the prediction lacks it.

    Args:
        prediction, target: (X, Y, Z) uint8, VerSe's labels.

    Returns:
        True label -> Dice in [0, 1], from head to foot. A label that only the prediction has lowers no number here.
    """
    shared_vox = _shared_voxels(prediction, target, 256)
    predicted_vox, true_vox = (np.bincount(mask[mask > 0], minlength=256) for mask in (prediction, target))
    return {
        number: float(2 * shared_vox[number, number] / (predicted_vox[number] + true_vox[number]))
        for number in _labels_of(target)
    }


def _labels_of(target: np.ndarray) -> list[int]:
    """The labels that occur, from head to foot."""
    present = set(np.unique(target).tolist())
    return [number for number in ANATOMICAL_ORDER if number in present]


def _shared_voxels(regions: np.ndarray, target: np.ndarray, count: int) -> np.ndarray:
    """How many voxels each region below ``count`` shares with each label, 0 left out: (count, 256) int64."""
    both = (regions > 0) & (target > 0)
    pairs = regions[both].astype(np.int64) * 256 + target[both]
    return np.bincount(pairs, minlength=count * 256).reshape(count, 256)
