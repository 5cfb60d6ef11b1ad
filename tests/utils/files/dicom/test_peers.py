"""Voxel agreement with SimpleITK, nibabel and dcm2niix on ten series: places within 0.1 mm, HU equal."""

import subprocess

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

RAS = np.array([-1, -1, 1])  # of LPS
TILT = 3 * np.tan(np.radians(15))
# (row, column): directions in a slice. All but the tilted ones lie along their normal.
OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)
SERIES = {
    "axial": {},
    "sagittal": {"orientation": (0, 1, 0, 0, 0, -1), "step": (-3, 0, 0)},
    "coronal": {"orientation": (1, 0, 0, 0, 0, -1), "step": (0, 3, 0)},
    "tilted +15": {"step": (0, TILT, 3)},
    "tilted -15": {"step": (0, -TILT, 3)},
    "oblique": {"orientation": OBLIQUE, "step": tuple(3 * np.cross(OBLIQUE[:3], OBLIQUE[3:]))},
    "feet first": {"orientation": (-1, 0, 0, 0, 1, 0), "step": (0, 0, -3), "PatientPosition": "FFS"},
    "decubitus": {"orientation": (0, -1, 0, 1, 0, 0), "PatientPosition": "HFDL"},
    "0.625 rounded": {"positions": [(-20.0, 35.5, round(-100 + 0.625 * k, 1)) for k in range(7)]},
    "JPEG 2000": {"compress": JPEG2000Lossless},
    "JPEG-LS": {"compress": JPEGLSLossless},
    "RLE": {"compress": RLELossless},
    "multi-frame": None,
}


@pytest.fixture(params=SERIES, ids=str)
def series(request, dicom, tmp_path):
    """(folder, scan, HU); each in the order of the slices in space."""
    options = SERIES[request.param]
    if options is None:
        folder = dicom.write_enhanced(tmp_path / "ct" / "enhanced.dcm").parent
    else:
        folder = dicom.write_series(tmp_path / "ct", **options)
    scan = dicom.opened(folder)
    return folder, scan, dicom.voxels(scan)


def test_simpleitk_reads_each_slice_where_it_lies_here(series):
    _, scan, hu = series
    for k, one in enumerate(scan.series.stack.slices):
        image = sitk.ReadImage(str(one.file))
        if one.frames > 1:
            image = image[..., 0] if image.GetDimension() == 4 else image
            frame = one.frame
        else:
            frame = 0
        np.testing.assert_array_equal(hu[..., k], sitk.GetArrayViewFromImage(image)[frame].T)
        for i, j in ((0, 0), (scan.shape[0] - 1, 0), (scan.shape[0] - 1, scan.shape[1] - 1)):
            there_mm = np.array(image.TransformIndexToPhysicalPoint((i, j, frame))) * RAS
            assert np.linalg.norm(nib.affines.apply_affine(scan.affine, (i, j, k)) - there_mm) < 0.1


def test_nibabel_reads_of_dcm2niix_what_is_read_here(series, tmp_path, request):
    """Two headers differ: dcm2niix leaves the shear of a tilt out, and takes a rounded spacing from two slices."""
    dcm2niix = pytest.importorskip("dcm2niix", reason="dcm2niix is not installed: pip install dcm2niix")
    folder, scan, hu = series
    (tmp_path / "out").mkdir()
    subprocess.run([dcm2niix.bin, "-z", "n", "-o", tmp_path / "out", folder], check=True, capture_output=True)
    (path,) = (tmp_path / "out").glob("*.nii")
    image = nib.load(path)
    theirs = np.asanyarray(image.dataobj)
    affine = scan.affine.copy()
    if scan.tilt is not None:
        affine[:3, 2] = (0, 0, 3)
    elif "rounded" in request.node.name:
        affine[:3, 2:] = [[0, 20], [0, -35.5], [0.6, -100]]
    # Their array is turned; where in it each corner of ours lies tells how.
    to_theirs = np.linalg.inv(image.affine) @ affine
    last = np.array(scan.shape) - 1
    for index in np.array(np.meshgrid(*[(0, n) for n in last], indexing="ij")).reshape(3, -1).T:
        there = nib.affines.apply_affine(to_theirs, index)
        assert np.abs((there - there.round()) @ image.affine[:3, :3].T).max() < 0.1
    indices = np.stack(np.meshgrid(*map(np.arange, scan.shape), indexing="ij"), axis=-1)
    there = np.rint(nib.affines.apply_affine(to_theirs, indices)).astype(int)
    np.testing.assert_array_equal(hu, theirs[tuple(np.moveaxis(there, -1, 0))])
