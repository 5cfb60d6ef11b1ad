"""Scans to segment: find NIfTI files and DICOM folders, read them in slabs of HU, write arrays on their grid."""

from __future__ import annotations

import glob
import gzip
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from utils.constants import SLAB_SLICES
from utils.misc import written_aside
from verse_utils.errors import UserError
from verse_utils.images import check_varies, open_image, read_voxels, to_hu, to_labels

# The least that can show a spine along any axis.
LEAST_SLICES = 4
# DICOM slices closer than this lie on one position; a gap may differ from the median by this share.
SAME_POSITION_MM = 0.01
GAP_TOLERANCE = 0.1

_NIFTI_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
# Names of masks and of this project's results, which lie beside scans and are none.
_MASK_NAME = re.compile(r"_(msk|mask|seg|label|labels|vertebrae|probabilities)\.nii(\.gz)?$", re.IGNORECASE)
_WHAT_TO_GIVE = "give NIfTI files (.nii, .nii.gz), folders of them or folders of DICOM slices"
_GRID_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


@dataclass(frozen=True)
class ScanSource:
    """Where a scan lies: a NIfTI file or a folder of DICOM slices, and the name of its output, without ending."""

    path: Path
    name: str


def find_scans(inputs: Sequence[str]) -> list[ScanSource]:
    """Find the scans that a user means, in order, without duplicates, with distinct names. Opens no image.

    Args:
        inputs: files, folders of NIfTI files, folders of DICOM slices (a slice stands for its folder), folders of
            such folders, or glob patterns. Any other file that is named is taken too, and refused by ``open_scan``.

    Raises:
        UserError: an input doesn't exist or holds no scan.
    """
    paths = list({path.resolve(): path for text in inputs for path in _scans_of_input(text)}.values())
    return [ScanSource(path, name) for path, name in zip(paths, _distinct_names(paths), strict=True)]


def _scans_of_input(text: str) -> list[Path]:
    path = Path(text)
    if path.is_file():
        return [path.parent if _is_dicom(path) else path]
    if path.is_dir():
        scans = _scans_in_folder(path)
    elif glob.has_magic(text):
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        scans = _scans_among(matches) + [scan for path in matches if path.is_dir() for scan in _scans_in_folder(path)]
    else:
        raise UserError(f"{text}: no such file or folder; {_WHAT_TO_GIVE}")
    if not scans:
        raise UserError(f"{text}: no scan found here; {_WHAT_TO_GIVE}")
    return scans


def _scans_in_folder(folder: Path) -> list[Path]:
    """The scans directly in a folder or, where there is none, directly in its subfolders; hidden files are none."""
    return _scans_among(folder.glob("[!.]*")) or _scans_among(folder.glob("[!.]*/[!.]*"))


def _scans_among(paths: Iterable[Path]) -> list[Path]:
    """The NIfTI files among paths that aren't named as masks, and the folders of DICOM slices without NIfTI; sorted."""
    files = [path for path in paths if path.is_file() and not _MASK_NAME.search(path.name)]
    images = {path for path in files if _NIFTI_ENDING.search(path.name)}
    folders = {path.parent for path in files if _is_dicom(path)}
    return sorted(images | (folders - {path.parent for path in images}))


def _is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM object by its ending or its first bytes (DICOM PS3.10, 7.1); an index isn't."""
    if path.name.upper() == "DICOMDIR" or _NIFTI_ENDING.search(path.name):
        return False
    try:
        with path.open("rb") as stream:
            return path.suffix.lower() == ".dcm" or stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name for each path; like names get up to three parent folders in front, then ``_2``."""
    parts = [_NIFTI_ENDING.sub("", os.path.abspath(path)).split(os.sep) for path in paths]
    names = [own[-1] for own in parts]
    for parents in (1, 2, 3):
        counts = Counter(names)
        pairs = zip(parts, names, strict=True)
        names = ["_".join(own[-1 - parents :]) if counts[name] > 1 else name for own, name in pairs]
    for position in range(len(names)):
        while names[position] in names[:position]:
            names[position] += "_2"
    return names


@dataclass(frozen=True)
class Scan:
    """A scan's grid and values, read in slabs so that no more than one need be in memory.

    Attributes:
        path: the file or folder it comes from.
        shape: (I, J, K) in stored order.
        affine: (4, 4) float64, voxel indices to RAS millimetres.
        warnings: what the user should know, a line each.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    _grid: nib.Nifti1Header  # blank but for shape, spacing, qform and sform
    _slabs: Callable[[int, int, int], Iterator[tuple[int, np.ndarray]]]  # of first, last + 1, thickness along K
    warnings: list[str] = field(default_factory=list)

    @property
    def voxel_count(self) -> int:
        """The number of voxels."""
        return int(np.prod(self.shape))

    def slabs(
        self, region: tuple[slice, slice, slice] | None = None, thickness: int = SLAB_SLICES
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield, in one pass, the slabs of a region (slices along I, J, K), or of all of the scan.

        Yields:
            (first index along K in the region, (I, J, ``thickness`` or less) int16 HU, read-only), in stored order.

        Raises:
            UserError: damaged; NaN or infinite values; a constant scan, after its last slab, where all is read.
            ValueError: a slice has a step.
        """
        bounds = [part.indices(size) for part, size in zip(region or (slice(None),) * 3, self.shape, strict=True)]
        if any(step != 1 for _, _, step in bounds):
            raise ValueError(f"slices of a region have no steps, got {region}")
        (i, i_stop, _), (j, j_stop, _), (k, k_stop, _) = bounds
        is_whole = (i_stop - i, j_stop - j, k_stop - k) == self.shape
        limits_hu = []
        for first, slab in _ahead(self._slabs(k, k_stop, thickness)):
            if is_whole:
                limits_hu += [slab.min(), slab.max()]
            yield first - k, slab[i:i_stop, j:j_stop]
        if is_whole:
            check_varies(min(limits_hu), max(limits_hu), self.path)

    def save(self, array_IJK: np.ndarray, path: Path) -> None:
        """Write an array as NIfTI on exactly this scan's grid, whole or not at all.

        Args:
            array_IJK: uint8 (a mask) or float32 (probabilities) of the scan's shape; its dtype is kept.
            path: ends in .nii.gz; its folder is made where it is absent.

        Raises:
            UserError: the file can't be written.
            ValueError: another shape, dtype or ending.
        """
        known = array_IJK.dtype in (np.uint8, np.float32) and path.name.endswith(".nii.gz")
        if not known or array_IJK.shape != self.shape:
            raise ValueError(f"{array_IJK.dtype} of shape {array_IJK.shape} can't be saved as {path.name}")
        header = self._grid.copy()
        header.set_data_dtype(array_IJK.dtype)
        image_class: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        image = image_class(array_IJK, None, header)  # None: the header's qform and sform stay as they are
        _write(image, path)


def save_mask(mask_XYZ: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a mask as NIfTI, whole or not at all.

    Args:
        mask_XYZ: uint8.
        affine: (4, 4), voxel indices to RAS millimetres.
        path: ends in .nii.gz; its folder is made where it is absent.

    Raises:
        UserError: the file can't be written.
    """
    image = nib.Nifti1Image(mask_XYZ.astype(np.uint8, copy=False), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, "aligned")
    _write(image, path)


def _write(image: Any, path: Path) -> None:
    with written_aside(path) as aside, aside.open("wb") as file, gzip.GzipFile("", "wb", 1, file, 0) as stream:
        image.to_stream(stream)


def open_scan(source: ScanSource) -> Scan:
    """Open a scan without reading its voxels (of DICOM slices, the headers are read).

    Raises:
        UserError: no 3D greyscale image, no grid, too few slices; DICOM slices that make no volume.
    """
    if source.path.is_dir():
        return _open_dicom(source.path)
    if source.path.exists() and not _NIFTI_ENDING.search(source.path.name):
        raise UserError(f"{source.path}: no NIfTI file; {_WHAT_TO_GIVE}")
    return _open_nifti(source.path)


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    size, axis = min(zip(shape, "IJK", strict=True))
    if size < LEAST_SLICES:
        raise UserError(f"{path}: has only {size} slices along {axis}: too few for a spine, give the whole series")


def _open_nifti(path: Path) -> Scan:
    image: Any = open_image(path)
    _check_shape(path, image.shape)
    grid = type(image.header)()
    grid.set_data_shape(image.shape)
    grid["pixdim"][:4] = image.header["pixdim"][:4]
    for name in _GRID_FIELDS:
        grid[name] = image.header[name]
    slabs = partial(_nifti_slabs, path, image.dataobj)
    return Scan(path, image.shape, np.asarray(image.affine, np.float64), grid, slabs)


def label_slabs(path: Path, thickness: int = SLAB_SLICES) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first index along K, (I, J, ``thickness`` or less) uint8 raw VerSe labels) of a NIfTI mask, in one pass.

    Raises:
        UserError: no mask of VerSe's labels, or damaged.
    """
    voxels: Any = open_image(path).dataobj
    for first, values in _stored_slabs(path, voxels, 0, voxels.shape[2], thickness):
        yield first, to_labels(values, path)


def _nifti_slabs(path: Path, voxels: Any, start: int, stop: int, thickness: int) -> Iterator[tuple[int, np.ndarray]]:
    for first, values in _stored_slabs(path, voxels, start, stop, thickness):
        yield first, to_hu(values, path)


def _stored_slabs(path: Path, voxels: Any, start: int, stop: int, thickness: int) -> Iterator[tuple[int, np.ndarray]]:
    # One open stream for the pass: a gzip stream that is reopened is unpacked from its beginning again.
    layout = (voxels.shape, voxels.dtype, voxels.offset, voxels.slope, voxels.inter)
    stored = nib.arrayproxy.ArrayProxy(path, layout, keep_file_open=True)
    for first in range(start, stop, thickness):
        index = (slice(None), slice(None), slice(first, min(first + thickness, stop)))
        yield first, read_voxels(stored, path, index)


def _ahead(slabs: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """The same, each unpacked by a thread while the one before is worked on."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, slabs, None)
        while (slab := upcoming.result()) is not None:
            upcoming = thread.submit(next, slabs, None)
            yield slab


class _Slice(NamedTuple):
    """The header of a DICOM slice; millimetres are LPS."""

    path: Path
    series: str
    description: str
    size: tuple[int, int]  # columns, rows
    position_mm: np.ndarray  # (3,): of the first pixel's centre
    steps_mm: np.ndarray  # (2, 3): from a column to the next, from a row to the next


def _open_dicom(folder: Path) -> Scan:
    series: dict[str, list[_Slice]] = {}
    files = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    for one in filter(None, map(_slice_header, files)):
        series.setdefault(one.series, []).append(one)
    if not series:
        raise UserError(f"{folder}: no DICOM slice can be read; give the folder of a CT series, a file a slice")
    slices, *others = sorted(series.values(), key=len, reverse=True)
    shape = (*slices[0].size, len(slices))
    _check_shape(folder, shape)
    slices = _in_order(folder, slices)
    first, last = slices[0], slices[-1]
    steps_mm = np.column_stack([*first.steps_mm, (last.position_mm - first.position_mm) / (len(slices) - 1)])
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ nib.affines.from_matvec(steps_mm, first.position_mm)  # LPS to RAS
    grid = nib.Nifti1Header()
    grid.set_data_shape(shape)
    grid.set_qform(affine, code=1)
    grid.set_sform(affine, code=1)
    grid.set_xyzt_units("mm")
    warnings = []
    if others:
        names = ", ".join(f"{one[0].description or one[0].series} ({len(one)} slices)" for one in others)
        warnings.append(f"{folder}: {len(others)} other series left out: {names}")
    known = {one.path for members in series.values() for one in members}
    if unknown := [path.name for path in files if _is_dicom(path) and path not in known]:
        warnings.append(f"{folder}: {len(unknown)} DICOM files can't be read as slices, {unknown[0]} the first")
    slabs = partial(_dicom_slabs, [one.path for one in slices])
    return Scan(folder, shape, affine, grid, slabs, warnings)


def _slice_header(path: Path) -> _Slice | None:
    """A file's header, or None where it isn't one greyscale slice with a place in space."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        columns, rows, frames = reader.GetSize()
        place = [reader.GetMetaData(tag) for tag in ("0020|0032", "0020|0037", "0028|0030")]
        position_mm, directions, spacing_mm = (np.array(text.split("\\"), float) for text in place)
        steps_mm = directions.reshape(2, 3) * spacing_mm[::-1, None]  # the spacing of rows comes first
        series = reader.GetMetaData("0020|000e").strip()
    except (RuntimeError, ValueError):
        return None
    normal = np.cross(*steps_mm)
    if frames > 1 or reader.GetNumberOfComponents() > 1 or position_mm.shape != (3,) or not normal.any():
        return None
    description = reader.GetMetaData("0008|103e") if reader.HasMetaDataKey("0008|103e") else ""
    description = " ".join(description.encode(errors="replace").decode().split())  # may be Latin-1: "Wirbels?ule"
    return _Slice(path, series, description, (columns, rows), position_mm, steps_mm)


def _in_order(folder: Path, slices: list[_Slice]) -> list[_Slice]:
    """Sort slices by their position along the normal. Raises UserError where they make no even stack."""
    first = slices[0]
    for one in slices:
        if one.size != first.size or not np.allclose(one.steps_mm, first.steps_mm, atol=1e-3):
            raise UserError(f"{one.path}: size, spacing or orientation differ from {first.path.name}; give one series")
    normal = np.cross(*(step_mm / np.linalg.norm(step_mm) for step_mm in first.steps_mm))
    slices = sorted(slices, key=lambda one: float(one.position_mm @ normal))
    gaps_mm = np.diff([one.position_mm @ normal for one in slices])
    at = int(np.argmin(gaps_mm))
    if gaps_mm[at] < SAME_POSITION_MM:
        names = f"{slices[at].path.name} and {slices[at + 1].path.name}"
        raise UserError(f"{folder}: {names} lie on one position; export the series again, one phase alone")
    spacing_mm = np.median(gaps_mm)
    at = int(np.argmax(np.abs(gaps_mm - spacing_mm)))
    if abs(gaps_mm[at] - spacing_mm) > GAP_TOLERANCE * spacing_mm:
        axis = np.argmax(np.abs(normal))
        what = "slice missing" if gaps_mm[at] > spacing_mm else "slices too close"
        places = f"{'xyz'[axis]} = {slices[at].position_mm[axis]:.1f} and {slices[at + 1].position_mm[axis]:.1f} mm"
        sizes = f"spacing {spacing_mm:.1f}, gap {gaps_mm[at]:.1f}"
        raise UserError(f"{folder}: {what} between {places} ({sizes}); export the series again")
    return slices


def _dicom_slabs(files: list[Path], start: int, stop: int, thickness: int) -> Iterator[tuple[int, np.ndarray]]:
    import SimpleITK as sitk

    for first in range(start, stop, thickness):
        slab_hu = []
        for path in files[first : min(first + thickness, stop)]:
            try:  # GDCM applies the slice's rescale slope and intercept
                values = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
            except RuntimeError:
                raise UserError(f"{path}: voxels can't be read; fetch the file again") from None
            slab_hu.append(to_hu(values[0], path))
        yield first, np.stack(slab_hu).T
