"""Centres of vertebral bodies, as VerSe's ``*_ctd.json`` lists them.

Lists of the MICCAI layout don't say their axes. They are at 1 mm, and count

- in VerSe20 (``*_iso-ctd.json``) from the anterior, superior, left corner (osf.io/b2wxj/wiki: "with coordinate origin
  at 'X'= anterior, 'Y'= superior, and 'Z'= left (ASL)"), so that X grows backward, Y downward and Z to the right;
- in VerSe19 (``*_ctd.json``) X downward, Y backward and Z to the left.

Both are read so by ``preprocess_landmarks.py`` of github.com/christianpayer/MedicalDataAugmentationTool-VerSe, whose
team won VerSe19.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from verse_utils.errors import UserError
from verse_utils.files.text import read_text
from verse_utils.names import parse_file_name


@dataclass(frozen=True)
class Centroids:
    """Body centres in voxels of an array with the given axis codes.

    Attributes:
        direction: axis codes of that array, as ("P", "I", "R").
        points_vox: label -> (3,) float64 voxel coordinates.
        spacing_mm: of that array along each axis, if it is not that of the stored image.
    """

    direction: tuple[str, str, str]
    points_vox: dict[int, np.ndarray]
    spacing_mm: float | None = None

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
        if self.spacing_mm is not None:
            stored_mm = np.empty(3)
            stored_mm[turn[:, 0].astype(int)] = nib.affines.voxel_sizes(affine)
            listed_to_stored = listed_to_stored @ np.diag([*(self.spacing_mm / stored_mm), 1])
        return {
            label: nib.affines.apply_affine(affine @ listed_to_stored, point)
            for label, point in self.points_vox.items()
        }


def read_centroids(path: Path) -> Centroids:
    """Read a centroid list; entries with NaN are skipped.

    Raises:
        UserError: not JSON, or no list that starts with a direction; lists of the MICCAI layout need none.
    """
    path = Path(path)
    miccai_direction = _miccai_direction(path.name)
    try:
        header, *entries = json.loads(read_text(path))
        if miccai_direction and "direction" not in header:
            header, entries = {"direction": miccai_direction}, [header, *entries]
        direction = tuple(header["direction"])
        nib.orientations.axcodes2ornt(direction)
        points = {
            int(entry["label"]): np.array([float(entry[axis]) for axis in "XYZ"])
            for entry in entries
            if not any(math.isnan(float(entry[axis])) for axis in "XYZ")
        }
        if not all(np.isfinite(point).all() for point in points.values()):
            raise ValueError("a coordinate is infinite")
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a VerSe centroid list ({error!r}); fetch the file again") from None
    return Centroids(direction, points, 1.0 if miccai_direction else None)


def _miccai_direction(name: str) -> tuple[str, str, str] | None:
    """Axis codes of a list of the MICCAI layout; None for other names."""
    if name.startswith("sub-") or parse_file_name(name) is None:
        return None
    return ("P", "I", "R") if name.lower().endswith("iso-ctd.json") else ("I", "P", "L")


def write_centroids(path: Path, centroids: Centroids) -> None:
    """Write a centroid list in VerSe's form."""
    entries = [
        {"label": label, **{axis: round(float(value), 1) for axis, value in zip("XYZ", point, strict=True)}}
        for label, point in centroids.points_vox.items()
    ]
    Path(path).write_text(json.dumps([{"direction": list(centroids.direction)}, *entries]), encoding="utf-8")
