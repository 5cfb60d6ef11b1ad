"""Centres of vertebral bodies, as VerSe's ``*_ctd.json`` lists them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from verse_utils.errors import UserError


@dataclass(frozen=True)
class Centroids:
    """Body centres in voxels of an array with the given axis codes.

    Attributes:
        direction: axis codes of that array, as ("P", "I", "R").
        points_vox: label -> (3,) float64 voxel coordinates.
    """

    direction: tuple[str, str, str]
    points_vox: dict[int, np.ndarray]

    def to_world(self, affine: np.ndarray, shape: tuple[int, ...]) -> dict[int, np.ndarray]:
        """Map to RAS millimetres.

        Args:
            affine: (4, 4) of the stored image.
            shape: (I, J, K) of the stored image. The list's axes are turned to the image's where they differ.

        Returns:
            label -> (3,) float64 in mm.
        """
        listed = nib.orientations.axcodes2ornt(self.direction)
        stored = nib.io_orientation(affine)
        turn = nib.orientations.ornt_transform(stored, listed)  # stored array -> listed array
        listed_to_stored = nib.orientations.inv_ornt_aff(turn, shape)
        return {
            label: nib.affines.apply_affine(affine @ listed_to_stored, point)
            for label, point in self.points_vox.items()
        }


def read_centroids(path: Path) -> Centroids:
    """Read a centroid list; entries with NaN are skipped.

    Raises:
        UserError: not JSON, or no list that starts with a direction.
    """
    try:
        header, *entries = json.loads(Path(path).read_text(encoding="utf-8"))
        direction = tuple(header["direction"])
        nib.orientations.axcodes2ornt(direction)
        points = {
            int(entry["label"]): np.array([float(entry[axis]) for axis in "XYZ"])
            for entry in entries
            if not any(math.isnan(float(entry[axis])) for axis in "XYZ")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a VerSe centroid list ({error!r}); fetch the file again") from None
    return Centroids(direction, points)


def write_centroids(path: Path, centroids: Centroids) -> None:
    """Write a centroid list in VerSe's form."""
    entries = [
        {"label": label, **{axis: round(float(value), 1) for axis, value in zip("XYZ", point, strict=True)}}
        for label, point in centroids.points_vox.items()
    ]
    Path(path).write_text(json.dumps([{"direction": list(centroids.direction)}, *entries]), encoding="utf-8")
