"""A tilted gantry, from DICOM slices to masks on disk: each reader places each voxel alike."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from utils.files.find_scans import ScanSource
from utils.files.scans import open_scan
from utils.files.straight_scan import StraightScan, straight_scan

HEAD = Path(__file__).parents[4] / "shared" / "data" / "other" / "tilted_head" / "S21610" / "S3010"
RAS = np.array([-1, -1, 1])  # of LPS


def corners(shape):
    return np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1).T


@pytest.fixture(params=[16.5, -25.0, "head"])
def tilted(request, dicom, tmp_path):
    """(scan, tilt in degrees) of DICOM slices: one made with either sign, one real."""
    if request.param != "head":
        step = (0, 3 * np.tan(np.radians(request.param)), 3)
        return dicom.opened(dicom.write_series(tmp_path / "ct", step=step)), abs(request.param)
    if not HEAD.exists():
        pytest.skip("the real scans are not here")
    return dicom.opened(HEAD), 16.5


def test_voxels_lie_where_their_slices_say(tilted):
    """SimpleITK reads each slice alone, with its own position."""
    scan, degrees = tilted
    assert scan.tilt.degrees == pytest.approx(degrees, abs=0.05)
    assert f"gantry tilted by {scan.tilt.degrees:.1f}°" in scan.warnings[-1]
    for k in (0, 3, scan.shape[2] - 1):
        image = sitk.ReadImage(str(scan.series.stack.slices[k].file))
        for i, j in ((0, 0), (scan.shape[0] - 1, scan.shape[1] - 1)):
            there_mm = np.array(image.TransformIndexToPhysicalPoint((i, j, 0))) * RAS
            assert np.linalg.norm(nib.affines.apply_affine(scan.affine, (i, j, k)) - there_mm) < 0.1
        ((_, slab),) = scan.slabs((slice(None), slice(None), slice(k, k + 1)))
        np.testing.assert_array_equal(slab[..., 0], sitk.GetArrayViewFromImage(image)[0].T)


def test_a_saved_mask_lies_alike_for_all_readers(tilted, tmp_path):
    scan, _ = tilted
    mask = np.concatenate([slab > np.int16(-700) for _, slab in scan.slabs()], axis=2).astype(np.uint8)
    scan.save(mask, tmp_path / "m_vertebrae.nii.gz")
    of_nibabel, of_itk = nib.load(tmp_path / "m_vertebrae.nii.gz"), sitk.ReadImage(tmp_path / "m_vertebrae.nii.gz")
    ours = open_scan(ScanSource(tmp_path / "m_vertebrae.nii.gz", "m"))
    assert (of_nibabel.header["qform_code"], of_nibabel.header["sform_code"]) == (1, 1)
    assert of_nibabel.shape == of_itk.GetSize() == ours.shape
    for index in corners(ours.shape):
        places = [
            nib.affines.apply_affine(of_nibabel.get_sform(), index),
            nib.affines.apply_affine(of_nibabel.get_qform(), index),
            nib.affines.apply_affine(ours.affine, index),
            np.array(of_itk.TransformIndexToPhysicalPoint(index.tolist())) * RAS,
        ]
        assert np.ptp(places, axis=0).max() < 0.1
    # Every voxel of the mask lies within half a pixel of its place in its slice.
    found = np.asarray(of_nibabel.dataobj)
    assert found.sum() == mask.sum()
    pixel_mm = nib.affines.voxel_sizes(scan.affine)[:2]
    for k in range(0, scan.shape[2], 10):
        there = np.argwhere(found[..., k]).mean(axis=0)
        here = np.argwhere(mask[..., k]).mean(axis=0)
        apart_mm = nib.affines.apply_affine(ours.affine, [*there, k]) - nib.affines.apply_affine(
            scan.affine, [*here, k]
        )
        assert np.linalg.norm(apart_mm) <= 0.5 * np.linalg.norm(pixel_mm) + 1e-3


def test_the_mask_on_the_slices_says_that_no_qform_holds_their_grid(tilted, tmp_path):
    scan, _ = tilted
    mask = np.zeros(scan.shape, np.uint8)
    mask[2:5, 1:4, ::2] = 1
    scan.save_on_slices(mask, tmp_path / "m_vertebrae_slices.nii.gz")
    saved = nib.load(tmp_path / "m_vertebrae_slices.nii.gz")
    assert (saved.header["qform_code"], saved.header["sform_code"]) == (0, 1)
    np.testing.assert_array_equal(np.asarray(saved.dataobj), mask)
    for index in corners(scan.shape):
        apart_mm = nib.affines.apply_affine(saved.affine, index) - nib.affines.apply_affine(scan.affine, index)
        assert np.linalg.norm(apart_mm) < 0.1
    with pytest.raises(RuntimeError, match="orthonormal"):  # better than a wrong place
        sitk.ReadImage(tmp_path / "m_vertebrae_slices.nii.gz")


def test_slabs_of_a_region_are_those_of_the_whole(dicom, tmp_path):
    scan = dicom.opened(dicom.write_series(tmp_path, step=(0, -1.2, 3)))
    straight = straight_scan(scan)
    assert isinstance(straight, StraightScan)
    whole = np.concatenate([slab for _, slab in straight.slabs()], axis=2)
    assert whole.shape == straight.shape
    region = (slice(3, 30), slice(2, 40), slice(2, 6))
    slabs = list(straight.slabs(region, 2))
    assert [first for first, _ in slabs] == [0, 2]
    np.testing.assert_array_equal(np.concatenate([slab for _, slab in slabs], axis=2), whole[region])
    np.testing.assert_array_equal(straight.straightening.undo(whole), dicom.HU)


def test_a_scan_with_right_angles_is_read_as_it_is(dicom, tmp_path):
    scan = dicom.opened(dicom.write_series(tmp_path))
    assert straight_scan(scan) is scan and scan.tilt is None
