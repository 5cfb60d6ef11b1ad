"""Scans from NIfTI, DICOM, NRRD, MetaImage or Analyze, in slabs of HU; arrays written as NIfTI on a scan's own grid."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from utils.constants import SLAB_SLICES
from utils.files.dicom.pixels import PADDING_HU
from utils.files.dicom.series import DicomSeries, open_series, series_slabs
from utils.files.find_scans import WHAT_TO_GIVE, ScanSource
from utils.files.images.label_table import label_table
from utils.files.images.packed import UnpackedImage
from utils.files.images.raw import RawImage
from utils.files.images.raw_headers import image_of_pair, is_raw_image, open_raw_image
from utils.geometry.straightening import Straightening
from verse_utils.check.headers import check_ct_grid, grid_warnings
from verse_utils.errors import UserError
from verse_utils.files.writing import written_aside
from verse_utils.hounsfield import count_hu, why_not_hu, why_too_great, why_unlike_ct
from verse_utils.images import check_varies, hu_slabs, open_image

_GRID_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


# Whether values are HU is told by one voxel in so many along I and along J.
_SAMPLE_STEP = 4


@dataclass(frozen=True)
class Scan:
    """A scan's grid and values, read in slabs so that no more than one need be in memory.

    Attributes:
        path: the file or folder it comes from.
        shape: (I, J, K) in stored order.
        affine: (4, 4) float64, voxel indices to RAS millimetres; sheared where the gantry was tilted.
        warnings: what the user should know, a line each; once all was read, also whether its values are HU.
        series: the DICOM series that it comes from, if any.
        tilt: for a DICOM series of a tilted gantry, the grid with right angles that files are written on.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    _grid: nib.Nifti1Header  # blank but for shape, spacing, qform and sform
    _slabs: Callable[[int, int, int], Iterator[tuple[int, np.ndarray]]]  # of first, last + 1, thickness along K
    warnings: list[str] = field(default_factory=list)
    series: DicomSeries | None = None
    tilt: Straightening | None = None
    _unpacked: UnpackedImage | None = None  # which is there as long as the scan is

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
        counts = count_hu(np.empty(0, np.int16))
        for first, slab in _ahead(self._slabs(k, k_stop, thickness)):
            if is_whole:
                limits_hu += [slab.min(), slab.max()]
                counts += count_hu(slab[::_SAMPLE_STEP, ::_SAMPLE_STEP])
            yield first - k, slab[i:i_stop, j:j_stop]
        if is_whole:
            check_varies(min(limits_hu), max(limits_hu), self.path)
            self._warn_of_intensities(counts, max(limits_hu))

    def _warn_of_intensities(self, counts: np.ndarray, greatest_hu: int) -> None:
        not_hu = why_not_hu(counts)
        reason = f"not HU ({not_hu}), the result will be wrong" if not_hu else why_unlike_ct(counts)
        for told in (reason, why_too_great(greatest_hu)):
            if told and (line := f"{self.path}: {told}") not in self.warnings:  # a scan may be read twice
                self.warnings.append(line)

    def save(self, array_IJK: np.ndarray, path: Path, names: Mapping[int, str] | None = None) -> None:
        """Write an array as NIfTI on exactly this scan's grid, whole or not at all.

        Of a tilted DICOM series, that is the grid of ``tilt``: few readers take a sheared one, and they disagree on it.

        Args:
            array_IJK: uint8 (a mask) or float32 (probabilities) of the scan's shape; its dtype is kept.
            path: ends in .nii.gz; its folder is made where it is absent.
            names: of a mask's labels, for viewers that show them (``label_table``).

        Raises:
            UserError: the file can't be written.
            ValueError: another shape, dtype or ending.
        """
        known = array_IJK.dtype in (np.uint8, np.float32) and path.name.endswith(".nii.gz")
        if not known or array_IJK.shape != self.shape:
            raise ValueError(f"{array_IJK.dtype} of shape {array_IJK.shape} can't be saved as {path.name}")
        array, affine = self.with_right_angles(array_IJK)
        grid = self._grid if self.tilt is None else _grid_header(self.tilt.shape, affine)
        _write(_on_grid(array, grid, names), path)

    def save_hu(self, path: Path) -> None:
        """Write the scan itself as NIfTI of int16 HU, slab by slab, on the grid on which ``save`` writes.

        Outside of the slices of a tilted gantry is air.

        Args:
            path: ends in .nii.gz; its folder is made where it is absent.

        Raises:
            UserError: the scan can't be read to its end, or the file can't be written.
        """
        shape, grid = self.shape, self._grid
        if self.tilt is not None:
            shape, grid = self.tilt.shape, _grid_header(self.tilt.shape, self.tilt.affine)
        with _packed(path) as stream:
            _on_grid(np.broadcast_to(np.int16(0), shape), grid).header.write_to(stream)
            for first, slab in self.slabs():
                slab_hu = slab if self.tilt is None else self.tilt.forward(slab, first, PADDING_HU)
                stream.write(slab_hu.tobytes(order="F"))

    def with_right_angles(self, array_IJK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An array of the scan's shape, 0 outside, and its affine: on the grid of ``tilt``, or as it is without one."""
        if self.tilt is None:
            return array_IJK, self.affine
        return self.tilt.forward(array_IJK, 0, 0), self.tilt.affine

    def save_on_slices(self, array_IJK: np.ndarray, path: Path, names: Mapping[int, str] | None = None) -> None:
        """Write an array on the slices of a tilted gantry themselves; arguments and errors as of ``save``.

        No qform can hold such a grid, so that there is a sform alone. SimpleITK refuses to read it.
        """
        _write(_on_grid(array_IJK, self._grid, names), path)


class _Analyze(NamedTuple):
    """The grid of an Analyze image."""

    shape: tuple[int, int, int]
    affine: np.ndarray


def _on_grid(array_IJK: np.ndarray, grid: nib.Nifti1Header, names: Mapping[int, str] | None = None) -> Any:
    header = grid.copy()
    header.set_data_dtype(array_IJK.dtype)
    # Those of a scan tell of the scan, at times the patient's name.
    header.extensions[:] = [] if names is None else [label_table(names)]
    image_class: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return image_class(array_IJK, None, header)  # None: the header's qform and sform stay as they are


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
    with _packed(path) as stream:
        image.to_stream(stream)


@contextmanager
def _packed(path: Path) -> Iterator[gzip.GzipFile]:
    """A stream into a gzip file that takes its place when it is whole."""
    with written_aside(path) as aside, aside.open("wb") as file, gzip.GzipFile("", "wb", 1, file, 0) as stream:
        yield stream


def open_scan(source: ScanSource, resample_series: bool = False) -> Scan:
    """Open a scan without reading its voxels.

    Args:
        source: of ``find_scans``.
        resample_series: put DICOM slices whose spacing varies on an even grid.

    Raises:
        UserError: no 3D greyscale image, no grid, too few slices; DICOM slices that make no volume.
    """
    if source.error:
        raise UserError(source.error)
    if source.slices:
        return _open_dicom(source, resample_series)
    if source.member is None:
        return _open_image(source.path, source.path)
    unpacked = UnpackedImage(source.member)
    return replace(_open_image(unpacked.path, source.path), _unpacked=unpacked)


def _open_image(path: Path, shown: Path) -> Scan:
    """Open an image file whose errors are to name another one: it may be unpacked from an archive."""
    if not path.exists():
        raise UserError(f"{shown}: no such file")
    if not path.is_file():
        raise UserError(f"{shown}: no file; {WHAT_TO_GIVE}")
    try:
        is_raw = is_raw_image(path)
    except OSError as error:
        raise UserError(f"{shown}: can't be read ({error.strerror}); fetch the file again") from None
    if is_raw:
        image = open_raw_image(path, shown)
        return _on_grid_of(image, shown, partial(image.hu_slabs, shown), [] if image.is_oriented else [_guess(shown)])
    if ".hdr" in path.name.lower() and not image_of_pair(path).is_file():
        raise UserError(f"{shown}: the file of its voxels, {image_of_pair(path).name}, isn't there; put it beside")
    return _open_nibabel(path, shown)


def _guess(path: Path) -> str:
    return f"{path}: doesn't tell how its axes lie in the patient, so that left and right are a guess"


def _open_nibabel(path: Path, shown: Path) -> Scan:
    """NIfTI, or Analyze on the grid that ITK gives it."""
    image: Any = open_image(path, shown)
    if isinstance(image, nib.Nifti1Pair):
        return _open_nifti(image, shown)
    if not isinstance(image, nib.analyze.AnalyzeImage):
        raise UserError(f"{shown}: no image that is read; {WHAT_TO_GIVE}")
    i, j, k = image.shape
    sizes_mm = nib.affines.voxel_sizes(image.affine)
    on_grid = _Analyze((i, j, k), np.diag([-sizes_mm[0], -sizes_mm[1], sizes_mm[2], 1]))
    return _on_grid_of(on_grid, shown, partial(hu_slabs, image, shown), [_guess(shown)])


def _open_nifti(image: Any, shown: Path) -> Scan:
    check_ct_grid(image, shown)
    grid = type(image.header)()
    grid.set_data_shape(image.shape)
    grid["pixdim"][:4] = image.header["pixdim"][:4]
    for name in _GRID_FIELDS:
        grid[name] = image.header[name]
    slabs = partial(hu_slabs, image, shown)
    return Scan(shown, image.shape, np.asarray(image.affine, np.float64), grid, slabs, grid_warnings(image, shown))


def _open_dicom(source: ScanSource, resample: bool) -> Scan:
    try:
        series = open_series(source.path, source.slices, resample)
    except UserError as error:  # a slice that is missing may be one that was left out
        remarks = [line.removeprefix(f"{source.path}: ") for line in source.remarks]
        raise UserError("; ".join([str(error), *remarks])) from None
    slabs = partial(series_slabs, series.stack)
    return replace(_on_grid_of(series, source.path, slabs, [*source.remarks, *series.warnings]), series=series)


def _on_grid_of(
    image: DicomSeries | RawImage | _Analyze,
    path: Path,
    slabs: Callable[[int, int, int], Iterator[tuple[int, np.ndarray]]],
    warnings: list[str],
) -> Scan:
    """A scan of a format that has no header of NIfTI's; a tilted gantry's is straightened."""
    check_ct_grid(image, path)
    tilt = Straightening.of(image.shape, image.affine)
    grid = _grid_header(image.shape, image.affine)
    if tilt is not None:
        grid.set_qform(None, code=0)  # which can hold no shear
        turned = f"gantry tilted by {tilt.degrees:.1f}°, slices shifted to right angles"
        warnings = [*warnings, f"{path}: {turned}; the mask lies on that grid, and once more on the slices"]
    return Scan(path, image.shape, image.affine, grid, slabs, warnings, tilt=tilt)


def _grid_header(shape: tuple[int, int, int], affine: np.ndarray) -> nib.Nifti1Header:
    grid = nib.Nifti1Header()
    grid.set_data_shape(shape)
    grid.set_qform(affine, code=1)
    grid.set_sform(affine, code=1)
    grid.set_xyzt_units("mm")
    return grid


def _ahead(slabs: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """The same, each unpacked by a thread while the one before is worked on."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, slabs, None)
        while (slab := upcoming.result()) is not None:
            upcoming = thread.submit(next, slabs, None)
            yield slab
