"""Read a case's CT and mask from NIfTI, with every check that keeps wrong geometry and values out."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np

from verse_utils.cases import Case
from verse_utils.errors import FileError, GridError, IntensityError
from verse_utils.files.unpacked import check_claim, open_unpacked, unpacked_size
from verse_utils.numberings import VERSE, Numbering, paint_part, to_labels

# Two grids are one where their corners lie closer than this share of a voxel.
CORNER_TOLERANCE_VOX = 0.25

# The least that can show a spine along any axis.
LEAST_SLICES = 4

# Volume of the box that the directions of the three axes span: 1 at right angles, 0 where they lie in one plane.
_LEAST_BOX_OF_AXES = 0.2

# How many mm a NIfTI's unit of space is, by its code (metre, micron); the others are mm, or not told and taken for it.
_MM_OF_UNIT = {1: 1000.0, 3: 0.001}

# The code that says the least of a sform or qform, for those that no standard knows.
_ALIGNED = 2

_NIFTI_CLASSES: tuple[Any, ...] = (nib.Nifti2Image, nib.Nifti1Image)

# Whatever nibabel, numpy and the unpackers raise on a damaged file.
_READ_ERRORS = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.spatialimages.HeaderTypeError,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


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


def open_image(path: Path, shown: Path | None = None) -> nib.Nifti1Image:
    """Open a 3D NIfTI file without reading its voxels; further axes of length 1 are dropped.

    Args:
        path: of the file.
        shown: named in errors, if not the path.

    Raises:
        FileError: not an image, not 3D, colour, an axis of no length, or more or fewer voxels than the header claims.
        GridError: a grid that is no grid.
    """
    path = Path(path)
    shown = shown or path
    if path.exists() and not path.is_file():  # a named pipe would be waited for without end
        raise FileError(f"{shown}: a folder or a device, not a file; give a NIfTI file")
    try:
        with _silent(), np.errstate(all="ignore"):  # our line says it, with the file's name
            image = _load(path)
            image, lacks_spacing = _as_stored(image)
            image = _in_mm(image)
            shape = image.shape
            while len(shape) > 3 and shape[-1] == 1:
                shape = shape[:-1]
            if shape != image.shape:
                voxels = nib.arrayproxy.reshape_dataobj(image.dataobj, shape)
                image = type(image)(voxels, image.affine, image.header)
            dtype, affine = image.get_data_dtype(), image.affine
    except FileNotFoundError:
        raise FileError(f"{shown}: no such file") from None
    except _READ_ERRORS as error:
        raise FileError(f"{shown}: can't be read as an image ({_reason(error)}); fetch the file again") from None
    if len(shape) != 3:
        raise FileError(f"{shown}: has {len(shape)} axes {shape}, not 3; give a single volume")
    if min(shape) < 1:
        raise FileError(f"{shown}: has no voxels (shape {shape}); fetch the file again")
    if dtype.fields is not None or dtype.kind == "c":
        raise FileError(f"{shown}: voxels are {dtype}, not numbers in HU; give a greyscale CT")
    check_affine(affine, shown, lacks_spacing)
    _check_size(image, shown)
    opened: nib.Nifti1Image = image
    return opened


def _load(path: Path) -> Any:
    """A NIfTI of either version by its content, whatever it is named; another of nibabel's formats by its name."""
    with open_unpacked(path) as stream:
        start = stream.read(nib.Nifti2Header.sizeof_hdr)
    for image_class in _NIFTI_CLASSES:
        header_class = image_class.header_class
        block = start[: header_class.sizeof_hdr]
        is_nifti = header_class.may_contain_header(block)
        if is_nifti and header_class(block, check=False)["magic"] == header_class.single_magic:
            with open_unpacked(path) as stream:
                header = header_class.from_fileobj(stream)
            files = image_class.make_file_map({"image": str(path)})
            voxels = nib.arrayproxy.ArrayProxy(path, header)
            return image_class(voxels, header.get_best_affine(), header, file_map=files)
    if start[128:132] == b"DICM":
        raise ValueError("it holds DICOM: name it .dcm")
    return nib.load(path)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep nibabel from logging what it thinks of a header, and from warning of it."""
    logger, before = nib.imageglobals.logger, nib.imageglobals.logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _as_stored(image: Any) -> tuple[Any, bool]:
    """A NIfTI with what nibabel takes for something else, without a word, as the standard and ITK read it.

    Returns:
        The image, where a sform or qform counts whatever its code above 0 means; and whether its grid hangs on a
        spacing that is stored as 0, which nibabel takes for 1 mm.
    """
    if not isinstance(image, nib.Nifti1Pair) or image.header["sform_code"] > 0:
        return image, False
    files: Any = image.file_map
    with open_unpacked(Path(files["header" if "header" in files else "image"].filename)) as file:
        stored = type(image.header).from_fileobj(file, check=False)
    if unknown := [name for name in ("sform_code", "qform_code") if stored[name] > 0 and image.header[name] == 0]:
        header: Any = image.header.copy()
        for name in unknown:
            header[name] = _ALIGNED
        image = type(image)(image.dataobj, header.get_best_affine(), header)
    # Of a spacing, the sign means nothing, to nibabel and ITK.
    return image, not image.header["sform_code"] > 0 and not (np.abs(stored["pixdim"][1:4]) > 0).all()


def _in_mm(image: Any) -> Any:
    """The image with a grid in mm, whatever unit of space a NIfTI's header tells; ITK reads it so, nibabel doesn't."""
    factor = _MM_OF_UNIT.get(int(image.header["xyzt_units"]) & 7) if isinstance(image, nib.Nifti1Pair) else None
    if factor is None:
        return image
    header = image.header.copy()
    header["pixdim"][1:4] *= factor
    for name in ("srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"):
        header[name] *= factor
    header.set_xyzt_units("mm", header.get_xyzt_units()[1])
    return type(image)(image.dataobj, header.get_best_affine(), header)


def check_affine(affine: np.ndarray, path: Path, lacks_spacing: bool = False) -> None:
    """Raise GridError unless an affine (4, 4) gives three axes in space."""
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0) if np.isfinite(affine).all() else np.zeros(3)
    if lacks_spacing or not (np.isfinite(lengths) & (lengths > 1e-6)).all():
        raise GridError(f"{path}: its header gives no grid (a spacing of zero or NaN); repair the header")
    if abs(np.linalg.det(axes / lengths)) < _LEAST_BOX_OF_AXES:
        raise GridError(f"{path}: its header gives no grid (two axes are nearly parallel); repair the header")


def _check_size(image: Any, path: Path) -> None:
    """Raise FileError unless a file holds as many bytes as its header claims, before memory is taken for them."""
    voxels = image.dataobj
    if not isinstance(image, nib.analyze.AnalyzeImage) or not isinstance(voxels, nib.arrayproxy.ArrayProxy):
        return
    claimed = voxels.offset + int(np.prod(voxels.shape, dtype=object)) * voxels.dtype.itemsize
    try:
        held = unpacked_size(Path(voxels.file_like), claimed)
    except _READ_ERRORS as error:
        raise FileError(f"{path}: voxels can't be read ({_reason(error)}); fetch the file again") from None
    check_claim(path, claimed, held, f"{voxels.shape} {voxels.dtype}")


def lacks_orientation(image: Any) -> bool:
    """Whether a NIfTI has neither sform nor qform, so that nibabel guesses the directions of its axes."""
    header = image.header
    return isinstance(header, nib.Nifti1Header) and not (header["sform_code"] > 0 or header["qform_code"] > 0)


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
    """Raise GridError unless both images have one shape and corners within a quarter of a voxel.

    Args:
        image, mask: two images, whose paths are named in the message.
        partner: what the image is to the mask, for the message; and its remedy.
    """
    if image.shape != mask.shape:
        raise GridError(
            f"{mask_path}: shape {mask.shape} is not that of {partner} {image_path}, {image.shape}; {remedy}"
        )
    off_mm = corner_distance_mm(image.shape, image.affine, mask.affine)
    if off_mm > CORNER_TOLERANCE_VOX * float(np.min(nib.affines.voxel_sizes(image.affine))):
        raise GridError(
            f"{mask_path}: its grid lies up to {off_mm:.1f} mm off that of {partner} {image_path}; {remedy}"
        )


def corner_distance_mm(shape: tuple[int, ...], affine: np.ndarray, other: np.ndarray) -> float:
    """How far the corners of a grid of a shape (I, J, K) lie apart by two affines (4, 4), at most."""
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], indexing="ij")).reshape(3, -1)
    difference = affine - other
    return float(np.linalg.norm(difference[:3, :3] @ corners + difference[:3, 3:], axis=0).max())


def check_grids(case: Case, image: OnGrid) -> None:
    """Raise UserError unless each file of a case's mask lies on the grid of its CT."""
    for path in case.files[1:]:
        check_same_grid(image, open_image(path), case.image_path, path)


def read_case(case: Case) -> CaseImages:
    """Read and check a case's CT and mask. Raises UserError naming the file and the remedy."""
    image = open_image(case.image_path)
    check_grids(case, image)
    image_hu, label = np.empty(image.shape, np.int16, order="F"), np.empty(image.shape, np.uint8, order="F")
    for (first, slab_hu), (_, slab_label) in zip(hu_slabs(image, case.image_path), label_slabs(case), strict=True):
        image_hu[..., first : first + slab_hu.shape[2]] = slab_hu
        label[..., first : first + slab_hu.shape[2]] = slab_label
    check_varies(image_hu.min(), image_hu.max(), case.image_path)
    return CaseImages(image_hu, label, image.affine)


def hu_slabs(
    image: Any, path: Path, start: int = 0, stop: int | None = None, thickness: int = 16
) -> Iterator[tuple[int, np.ndarray]]:
    """The slabs of a CT in int16 HU; arguments as of ``stored_slabs``. Raises UserError."""
    for first, values in stored_slabs(image, path, start, stop, thickness):
        yield first, to_hu(values, path)


def label_slabs(case: Case, thickness: int = 16) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first index along K, (I, J, ``thickness`` or less) uint8 raw VerSe labels) of a case's mask, in one pass.

    Where each vertebra has a file, all are read at once, so that a slab of two of them is in memory at a time.

    Raises:
        UserError: no mask in the case's numbering, or damaged.
    """
    parts = case.mask_parts
    if not parts:
        for first, values in _mask_slabs(case.mask_path, thickness):
            yield first, to_labels(values, case.mask_path, case.numbering)
        return
    first_slabs = _mask_slabs(parts[0][0], thickness)
    others = [(_mask_slabs(path, thickness), number, path) for path, number in parts[1:]]
    for first, values in first_slabs:
        label = np.zeros(values.shape, np.uint8)
        paint_part(label, values, parts[0][1], parts[0][0])
        for slabs, number, path in others:
            paint_part(label, next(slabs)[1], number, path)
        yield first, label


def _mask_slabs(path: Path, thickness: int) -> Iterator[tuple[int, np.ndarray]]:
    return stored_slabs(open_image(path), path, thickness=thickness)


def to_hu(values: np.ndarray, path: Path) -> np.ndarray:
    """Round and clip stored values to int16 HU, of any shape. Raises IntensityError for NaN and infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise IntensityError(f"{path}: holds NaN or infinite values; export the CT again")
    if values.dtype != np.int16:
        limits = np.iinfo(np.int16)
        values = np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)
    return values


def check_varies(low: float, high: float, path: Path) -> None:
    """Raise IntensityError where a CT's lowest value, in HU, is its highest."""
    if low == high:
        raise IntensityError(f"{path}: constant, every voxel is {low:g}; export the CT again")


def check_slice_counts(shape: tuple[int, ...], path: Path) -> None:
    """Raise GridError where a scan (I, J, K) is too thin along an axis to show a spine."""
    size, axis = min(zip(shape, "IJK", strict=True))
    if size < LEAST_SLICES:
        raise GridError(f"{path}: has only {size} slices along {axis}: too few for a spine, give the whole series")


def read_mask(path: Path, numbering: Numbering = VERSE) -> np.ndarray:
    """Read a mask: (I, J, K) uint8 raw VerSe labels without sacrum and coccyx. Raises UserError."""
    image = open_image(path)
    label = np.empty(image.shape, np.uint8, order="F")
    for first, values in stored_slabs(image, path):
        label[..., first : first + values.shape[2]] = to_labels(values, path, numbering)
    return label


def stored_slabs(
    image: Any, path: Path, start: int = 0, stop: int | None = None, thickness: int = 16
) -> Iterator[tuple[int, np.ndarray]]:
    """Read an opened image slab by slab, in one pass over its file.

    With the last slab, the file is read to its end: only there gzip's checksum tells that a bit was flipped.

    Args:
        image: of ``open_image``.
        path: named in errors.
        start, stop: slices along K, all of them by default.
        thickness: slices in a slab.

    Yields:
        (first K, (I, J, ``thickness`` or fewer) stored values, scaled as the header says).

    Raises:
        FileError: damaged.
    """
    voxels = image.dataobj
    layout = (voxels.shape, voxels.dtype, voxels.offset, voxels.slope, voxels.inter)
    size = voxels.shape[2]
    stop = size if stop is None else stop
    try:
        # One open stream for the pass: a gzip stream that is reopened is unpacked from its beginning again.
        with open_unpacked(Path(voxels.file_like)) as stream:
            stored = nib.arrayproxy.ArrayProxy(stream, layout, mmap=False)
            for first in range(start, stop, thickness):
                with np.errstate(all="ignore"):  # a slope without sense
                    slab = [np.asanyarray(stored[:, :, first : min(first + thickness, stop)])]
                if first + thickness >= size:
                    while stream.read(1 << 20):
                        pass
                yield first, slab.pop()  # not held here, where another of many files is read next
    except _READ_ERRORS as error:
        raise FileError(f"{path}: voxels can't be read ({_reason(error)}); fetch the file again") from None


def _reason(error: Exception) -> str:
    """The first line of an error, short enough for one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
