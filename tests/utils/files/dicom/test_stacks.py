"""Where slices lie: one affine for a whole stack, or the slice that leaves it."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from verse_utils.errors import UserError

CORONAL, SAGITTAL = (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)  # its normal is (0.36, -0.48, 0.8)
MANY = np.random.default_rng(0).integers(-1000, 1500, (6, 5, 60)).astype(np.int16)


def heights(dicom, folder, heights_mm, hu=None, **tags):
    """Axial slices at given heights."""
    hu = MANY[..., : len(heights_mm)] if hu is None else hu
    return dicom.write_series(folder, hu, positions=[(-20.0, 35.5, z) for z in heights_mm], **tags)


@pytest.mark.parametrize(
    ("orientation", "sense", "spacing_mm"),
    [
        ((1, 0, 0, 0, 1, 0), 1, 0.625),
        ((1, 0, 0, 0, 1, 0), -1, 1.25),
        (CORONAL, -1, 0.625),
        (SAGITTAL, 1, 1.25),
        (OBLIQUE, -1, 0.625),
    ],
)
def test_positions_rounded_to_a_decimal_are_taken(dicom, tmp_path, orientation, sense, spacing_mm):
    """The affine lies within 0.1 mm of the true positions."""
    normal = np.cross(orientation[:3], orientation[3:])
    true_mm = np.array([-20.03, 35.57, -100.04]) + sense * spacing_mm * np.arange(60)[:, None] * normal
    dicom.write_series(tmp_path, MANY, positions=true_mm.round(1), orientation=orientation)
    scan = dicom.opened(tmp_path)
    k = np.arange(60) if sense == 1 else 59 - np.arange(60)
    found_mm = nib.affines.apply_affine(scan.affine, np.stack([0 * k, 0 * k, k], 1)) * (-1, -1, 1)
    assert np.linalg.norm(found_mm - true_mm, axis=1).max() < 0.1
    np.testing.assert_array_equal(dicom.voxels(scan), MANY if sense == 1 else MANY[..., ::-1])
    assert scan.tilt is None and scan.warnings == []


@pytest.mark.parametrize(
    ("heights_mm", "words"),
    [
        # Two spacings: no word of a missing slice.
        ([3 * k for k in range(10)] + [27 + 5 * k for k in range(1, 10)], r"several spacings, 3\.0 and 5\.0 mm"),
        ([5 * k for k in range(10)] + [45 + 2.5 * k for k in range(1, 20)], r"several spacings, 2\.5 and 5\.0 mm"),
        ([3 * k for k in range(10)] + [27 + 6 * k for k in range(1, 10)], r"several spacings, 3\.0 and 6\.0 mm"),
        ([3 * k for k in range(20) if k != 7], r"slice missing between z = 18\.0 and 24\.0 mm .*before IM007\.dcm"),
        ([0.625 * k for k in range(60) if k != 1], r"slice missing between z = 0\.0 and 1\.2 mm"),
        ([0.625 * k for k in range(60) if k != 58], r"slice missing between z = 35\.6 and 36\.9 mm"),
        ([3 * k for k in range(20) if k not in (7, 8)], r"2 slices missing between z = 18\.0 and 27\.0 mm"),
        ([3 * k + (1.3 if k == 9 else 0) for k in range(20)], r"between z = .*\(spacing 3\.0, gap [14]\.[37]\)"),
        ([0, 3, 6, 3, 9, 12], "IM001.dcm and IM003.dcm lie on one position"),
    ],
)
def test_a_stack_that_no_affine_describes_is_refused_by_what_leaves_it(dicom, tmp_path, heights_mm, words):
    heights(dicom, tmp_path, heights_mm)
    with pytest.raises(UserError, match=rf"^{tmp_path}: .*{words}") as error:
        dicom.opened(tmp_path)
    assert ("missing" in str(error.value)) == ("missing" in words)


def test_a_slice_beside_the_line_of_the_others_is_named(dicom, tmp_path):
    positions = [(-20.0 + (0.9 if k == 4 else 0), 35.5, 3.0 * k) for k in range(12)]
    dicom.write_series(tmp_path, MANY[..., :12], positions=positions)
    with pytest.raises(UserError, match=r"IM004\.dcm lies 0\.8 mm off the line of the others"):
        dicom.opened(tmp_path)


def test_uneven_slices_are_resampled_where_this_is_asked_for(dicom, tmp_path):
    """A ramp along z stays one: HU = 10 z - 1000."""
    heights_mm = [3.0 * k for k in range(8)] + [21 + 5.0 * k for k in range(1, 7)]
    ramp = np.broadcast_to(10 * np.array(heights_mm) - 1000, (6, 5, 14)).round().astype(np.int16)
    heights(dicom, tmp_path, heights_mm, ramp)
    with pytest.raises(UserError, match="--resample_series"):
        dicom.opened(tmp_path)
    scan = dicom.opened(tmp_path, resample_series=True)
    assert scan.shape == (6, 5, 18)  # 0 to 51 mm
    np.testing.assert_allclose(scan.affine[:, 2:], [[0, 20], [0, -35.5], [3, 0], [0, 1]], atol=1e-9)
    np.testing.assert_allclose(dicom.voxels(scan)[3, 4], 30 * np.arange(18) - 1000, atol=1)
    assert scan.warnings[0] == f"{tmp_path}: slices 3.0 and 5.0 mm apart, resampled to 3 mm"
    assert np.array_equal(
        np.concatenate([slab for _, slab in scan.slabs((slice(None), slice(None), slice(5, 12)), 2)], axis=2),
        dicom.voxels(scan)[..., 5:12],
    )


def test_even_slices_are_never_resampled(dicom, tmp_path):
    dicom.write_series(tmp_path)
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path, resample_series=True)), dicom.HU)


def test_copies_of_a_slice_are_left_out(dicom, tmp_path):
    dicom.write_series(tmp_path)
    shutil.copy(tmp_path / "IM003.dcm", tmp_path / "IM003 (1).dcm")
    shutil.copy(tmp_path / "IM003.dcm", tmp_path / "IM003 (2).dcm")
    resent = dicom.read(tmp_path / "IM006.dcm")
    resent.InstitutionName = "another archive"
    resent.save_as(tmp_path / "again.dcm")
    scan = dicom.opened(tmp_path)
    np.testing.assert_array_equal(dicom.voxels(scan), dicom.HU)
    (line,) = scan.warnings
    assert line.startswith(f"{tmp_path}: 3 copies of slices left out, ")


def test_frames_are_read_as_their_functional_groups_say(dicom, tmp_path):
    order, slopes = [3, 0, 6, 1, 5, 2, 4], [1, 1, 1, 2, 1, 1, 1]
    even = dicom.HU // 2 * 2
    dicom.write_enhanced(tmp_path / "a" / "ct.dcm", even, order, slopes=slopes)
    scan = dicom.opened(tmp_path / "a")
    np.testing.assert_array_equal(dicom.voxels(scan), even)
    expected = [[-0.7, 0, 0, 20], [0, -0.8, 0, -35.5], [0, 0, 3, -100], [0, 0, 0, 1]]
    np.testing.assert_allclose(scan.affine, expected, atol=1e-9)
    dicom.write_enhanced(tmp_path / "two phases" / "ct.dcm", order=[0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path / "two phases")), dicom.HU[..., :4])  # copies
    localizer = dicom.item(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])
    dicom.write_enhanced(tmp_path / "scout" / "ct.dcm", CTImageFrameTypeSequence=localizer)
    broken = dicom.write_enhanced(tmp_path / "broken" / "ct.dcm")
    ds = dicom.read(broken)
    del ds.PerFrameFunctionalGroupsSequence[2:]
    ds.save_as(broken)
    with pytest.raises(UserError, match="7 frames, but places of 2"):
        dicom.opened(tmp_path / "broken")
