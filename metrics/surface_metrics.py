"""How far the surfaces of two masks lie apart.

All take (X, Y, Z) bool prediction and target, and the spacing in mm. A surface is the voxels of a mask that share a
face with the background, or with the outside of the volume. Distances run from the centre of each surface voxel to the
nearest one of the other surface, computed once for all metrics of a pair. MONAI finds both.

Both masks empty: distances 0, surface Dice 1. One empty: distances are the diagonal of the grid, which no prediction
can exceed, and surface Dice 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.boxes import mask_box

# Tolerances of the surface Dice: a voxel of the grid on which VerSe is scored, and three.
TOLERANCES_MM: tuple[int, ...] = (1, 3)


def measure_surfaces(prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    """All surface metrics of a pair.

    Returns:
        ``hd_mm``: the greatest distance of either direction (Hausdorff).
        ``hd95_mm``: the 95th percentile of the distances, the larger of both directions.
        ``mean_surface_distance_mm``: the mean over the distances of both directions together.
        ``surface_dice_1mm``, ``surface_dice_3mm``: share of both surfaces' voxels that lie no farther than that from
        the other surface, in [0, 1] (Nikolov et al. 2021, 10.2196/26151, with a voxel's weight the same everywhere).
    """
    to_target_mm, to_prediction_mm = surface_distances(prediction, target, spacing_mm)
    distances_mm = np.concatenate([to_target_mm, to_prediction_mm])
    return {
        "hd_mm": float(distances_mm.max()),
        "hd95_mm": float(max(np.percentile(to_target_mm, 95), np.percentile(to_prediction_mm, 95))),
        "mean_surface_distance_mm": float(distances_mm.mean()),
        **{f"surface_dice_{mm}mm": float((distances_mm <= mm).mean()) for mm in TOLERANCES_MM},
    }


def surface_distances(
    prediction: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm, as float64 of single precision: (N,) of the prediction's surface, (M,) of the target's.

    Empty masks have a single distance each, see above.
    """
    box = mask_box(prediction | target)
    if box is None:
        return np.zeros(1), np.zeros(1)
    if not prediction.any() or not target.any():
        diagonal_mm = np.linalg.norm(np.array(target.shape) * np.array(spacing_mm))
        return np.full(1, diagonal_mm), np.full(1, diagonal_mm)
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    # A rim of background: the surface of a mask that touches the volume's border is seen there too.
    edges = get_mask_edges(*(np.pad(mask[box.slices], 1) for mask in (prediction, target)), crop=False)
    spacing = [float(mm) for mm in spacing_mm]
    to_target_mm, to_prediction_mm = (get_surface_distance(*pair, spacing=spacing) for pair in (edges, edges[::-1]))
    return to_target_mm.astype(np.float64), to_prediction_mm.astype(np.float64)
