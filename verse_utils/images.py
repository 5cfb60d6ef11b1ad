"""Read a case's CT and mask from NIfTI, with every check that keeps wrong geometry and values out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np

from verse_utils.cases import Case
from verse_utils.errors import UserError
from verse_utils.labels import COCCYX, SACRUM, T13

# Two grids are one where their corners lie closer than this share of a voxel.
CORNER_TOLERANCE_VOX = 0.25

_READ_ERRORS = (nib.filebasedimages.ImageFileError, OSError, EOFError, zlib.error, ValueError)


@dataclass(frozen=True)
class CaseImages:
    """A case's arrays on the stored grid.

    Attributes:
        image_hu: (I, J, K) int16, HU.
        label: (I, J, K) uint8, raw VerSe labels with sacrum and coccyx set to 0.
        affine: (4, 4) float64, voxel indices to RAS millimetres.
    """

    image_hu: np.ndarray
    label: np.ndarray
    affine: np.ndarray


def open_image(path: Path) -> nib.Nifti1Image:
    """Open a 3D NIfTI file without reading its voxels; a fourth axis of length 1 is dropped.

    Raises:
        UserError: not an image, not 3D, colour, an axis of no length, or a grid that is no grid.
    """
    try:
        image: Any = nib.load(path)  # NIfTI of either version, or another of nibabel's formats
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except _READ_ERRORS as error:
        raise UserError(f"{path}: can't be read as an image ({_reason(error)}); fetch the file again") from None
    if image.ndim == 4 and image.shape[3] == 1:
        image = type(image)(nib.arrayproxy.reshape_dataobj(image.dataobj, image.shape[:3]), image.affine, image.header)
    if image.ndim != 3:
        raise UserError(f"{path}: has {image.ndim} axes {image.shape}, not 3; give a single volume")
    if min(image.shape) < 1:
        raise UserError(f"{path}: has no voxels (shape {image.shape}); fetch the file again")
    if image.get_data_dtype().fields is not None or image.get_data_dtype().kind == "c":
        raise UserError(f"{path}: voxels are {image.get_data_dtype()}, not numbers in HU; give a greyscale CT")
    affine = image.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6 or _lacks_spacing(image):
        raise UserError(f"{path}: its header gives no grid (a spacing of zero or NaN); repair the header")
    return image


def _lacks_spacing(image: Any) -> bool:
    """Whether a NIfTI's grid hangs on a spacing that is stored as 0, which nibabel takes for 1 mm without a word."""
    if not isinstance(image, nib.Nifti1Pair) or image.header["sform_code"] > 0:
        return False
    with image.file_map["header" if "header" in image.file_map else "image"].get_prepare_fileobj("rb") as file:
        stored = type(image.header).from_fileobj(file, check=False)
    return not (stored["pixdim"][1:4] > 0).all()


class OnGrid(Protocol):
    """Whatever lies on a grid: an image of nibabel's, or a scan."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(I, J, K)."""

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), to RAS mm."""


def check_same_grid(
    image: OnGrid,
    mask: OnGrid,
    image_path: Path,
    mask_path: Path,
    partner: str = "its CT",
    remedy: str = "resample the mask to the CT or leave the case out with --exclude",
) -> None:
    """Raise UserError unless both images have one shape and corners within a quarter of a voxel.

    Args:
        image, mask: two images, whose paths are named in the message.
        partner: what the image is to the mask, for the message; and its remedy.
    """
    if image.shape != mask.shape:
        raise UserError(
            f"{mask_path}: shape {mask.shape} is not that of {partner} {image_path}, {image.shape}; {remedy}"
        )
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in image.shape], indexing="ij")).reshape(3, -1)
    distances = np.linalg.norm(
        (image.affine - mask.affine)[:3, :3] @ corners + (image.affine - mask.affine)[:3, 3:], axis=0
    )
    voxel_mm = float(np.min(nib.affines.voxel_sizes(image.affine)))
    if distances.max() > CORNER_TOLERANCE_VOX * voxel_mm:
        raise UserError(
            f"{mask_path}: its grid lies up to {distances.max():.1f} mm off that of {partner} {image_path}; {remedy}"
        )


def check_case(case: Case) -> None:
    """Check a case's headers, without reading voxels. Raises UserError."""
    check_same_grid(open_image(case.image_path), open_image(case.mask_path), case.image_path, case.mask_path)


def read_case(case: Case) -> CaseImages:
    """Read and check a case's CT and mask. Raises UserError naming the file and the remedy."""
    image, mask = open_image(case.image_path), open_image(case.mask_path)
    check_same_grid(image, mask, case.image_path, case.mask_path)
    label = to_labels(read_voxels(mask.dataobj, case.mask_path), case.mask_path)
    return CaseImages(_read_hu(image, case.image_path), label, image.affine)


def read_hu(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a CT: (I, J, K) int16 HU and its (4, 4) affine. Raises UserError."""
    image = open_image(path)
    return _read_hu(image, path), image.affine


def _read_hu(image: nib.Nifti1Image, path: Path) -> np.ndarray:
    values = read_voxels(image.dataobj, path)
    values_hu = to_hu(values, path)
    check_varies(values.min(), values.max(), path)
    return values_hu


def to_hu(values: np.ndarray, path: Path) -> np.ndarray:
    """Round and clip stored values to int16 HU, of any shape. Raises UserError for NaN and infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path}: holds NaN or infinite values; export the CT again")
    if values.dtype != np.int16:
        limits = np.iinfo(np.int16)
        values = np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
    return values


def check_varies(low: float, high: float, path: Path) -> None:
    """Raise UserError where a CT's lowest value is its highest."""
    if low == high:
        raise UserError(f"{path}: constant, every voxel is {low:g}; export the CT again")


def read_mask(path: Path) -> np.ndarray:
    """Read a mask: (I, J, K) uint8 raw VerSe labels without sacrum and coccyx. Raises UserError."""
    return to_labels(read_voxels(open_image(path).dataobj, path), path)


def to_labels(values: np.ndarray, path: Path) -> np.ndarray:
    """Stored values of a mask, of any shape, to uint8 raw VerSe labels without sacrum and coccyx. Raises UserError."""
    if values.dtype.kind == "f":  # VerSe's masks are often float64
        rounded = np.rint(values)
        if not np.allclose(values, rounded, atol=1e-3):  # also False for NaN
            raise UserError(f"{path}: holds values that are not whole numbers; give a mask of vertebra numbers")
        values = rounded
    if values.min() < 0 or values.max() > T13:
        labels = f"labels {values.min():g} to {values.max():g}"
        raise UserError(f"{path}: {labels} leave VerSe's 0 to {T13}; give a mask of VerSe's labels, or of 0 and 1")
    label = values.astype(np.uint8)
    label[(label == SACRUM) | (label == COCCYX)] = 0
    return label


def read_voxels(dataobj: Any, path: Path, index: tuple = ()) -> np.ndarray:
    """Read the voxels at an index (all of them by default) from an image's ``dataobj``. Raises UserError."""
    try:
        return np.asanyarray(dataobj[index])
    except _READ_ERRORS as error:
        raise UserError(f"{path}: voxels can't be read ({_reason(error)}); fetch the file again") from None


def _reason(error: Exception) -> str:
    """The first line of an error, short enough for one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
