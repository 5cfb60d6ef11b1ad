"""How well a mask agrees with its reference: shared voxels, volumes, and distances between surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from metrics.metric import DISTANCE_MM, MetricTable, Pair, WhenEmpty
from utils.geometry.boxes import mask_box


class MaskPair(Pair):
    """A predicted mask and its reference; what several metrics need is computed once.

    Args:
        prediction, reference: (X, Y, Z); all but 0 is foreground.
        spacing_mm: of the grid, along X, Y, Z.
    """

    def __init__(self, prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> None:
        self.prediction, self.reference = (mask.astype(bool, copy=False) for mask in (prediction, reference))
        self.shape, self.spacing_mm = reference.shape, spacing_mm

    @property
    def are_empty(self) -> tuple[bool, bool]:
        return not self.prediction_vox, not self.reference_vox

    @cached_property
    def prediction_vox(self) -> int:
        """Voxels of the prediction."""
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def reference_vox(self) -> int:
        """Voxels of the reference."""
        return int(np.count_nonzero(self.reference))

    @cached_property
    def shared_vox(self) -> int:
        """Voxels of both."""
        return int(np.count_nonzero(self.prediction & self.reference))

    @cached_property
    def surface_distances_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances from the prediction's surface to the reference's, and back; neither mask may be empty.

        A surface is the voxels of a mask that share a face with the background, or with the outside of the volume.
        Distances run from the centre of each surface voxel to the nearest one of the other surface. MONAI finds both.

        Returns:
            (N,) and (M,) float64, of single precision.
        """
        from monai.metrics.utils import get_mask_edges, get_surface_distance

        box = mask_box(self.prediction | self.reference)
        assert box is not None
        edges = get_mask_edges(self.prediction[box.slices], self.reference[box.slices], crop=False)
        spacing = [float(mm) for mm in self.spacing_mm]
        there, back = (get_surface_distance(*pair, spacing=spacing) for pair in (edges, edges[::-1]))
        return there.astype(np.float64), back.astype(np.float64)

    @cached_property
    def all_distances_mm(self) -> np.ndarray:
        """The distances of both directions together, (N + M,) float64."""
        return np.concatenate(self.surface_distances_mm)


MASK_METRICS = MetricTable(MaskPair)


@MASK_METRICS.metric("Dice", is_main=True)
def dice(pair: MaskPair) -> float:
    """Twice the volume that prediction and reference share, over the sum of both volumes.

    Two empty masks agree (1), as in VerSe's protocol.
    """
    return 2 * pair.shared_vox / (pair.prediction_vox + pair.reference_vox)


@MASK_METRICS.metric("IoU")
def iou(pair: MaskPair) -> float:
    """The volume that prediction and reference share, over the volume that either holds."""
    return pair.shared_vox / (pair.prediction_vox + pair.reference_vox - pair.shared_vox)


@MASK_METRICS.metric("Precision", is_main=True)
def precision(pair: MaskPair) -> float:
    """Share of the prediction that lies in the reference."""
    return pair.shared_vox / pair.prediction_vox


@MASK_METRICS.metric("Recall", is_main=True)
def recall(pair: MaskPair) -> float:
    """Share of the reference that was found."""
    return pair.shared_vox / pair.reference_vox


@MASK_METRICS.metric(
    "Volume difference",
    unit="ml",
    higher_is_better=None,
    both_empty=0.0,
    one_empty=WhenEmpty.COMPUTED,
)
def volume_difference_ml(pair: MaskPair) -> float:
    """Volume of the prediction minus that of the reference."""
    return (pair.prediction_vox - pair.reference_vox) * float(np.prod(pair.spacing_mm)) / 1000


@MASK_METRICS.metric("HD", **DISTANCE_MM)
def hd_mm(pair: MaskPair) -> float:
    """Largest distance from a point of one surface to the other surface (Hausdorff distance)."""
    return float(pair.all_distances_mm.max())


@MASK_METRICS.metric("HD95", **DISTANCE_MM, is_main=True)
def hd95_mm(pair: MaskPair) -> float:
    """95 % of the points on each surface lie at most this far from the other surface."""
    return float(max(np.percentile(distances_mm, 95) for distances_mm in pair.surface_distances_mm))


@MASK_METRICS.metric("Mean surface distance", **DISTANCE_MM)
def mean_surface_distance_mm(pair: MaskPair) -> float:
    """Mean distance from the points of each surface to the other surface."""
    return float(pair.all_distances_mm.mean())


# Tolerances: a voxel of the grid on which VerSe is scored, and three. Nikolov et al. 2021 (10.2196/26151), with the
# same weight for every voxel.


@MASK_METRICS.metric("Surface Dice, 1 mm")
def surface_dice_1mm(pair: MaskPair) -> float:
    """Share of both surfaces that lies at most 1 mm from the other surface."""
    return float((pair.all_distances_mm <= 1).mean())


@MASK_METRICS.metric("Surface Dice, 3 mm")
def surface_dice_3mm(pair: MaskPair) -> float:
    """Share of both surfaces that lies at most 3 mm from the other surface."""
    return float((pair.all_distances_mm <= 3).mean())
