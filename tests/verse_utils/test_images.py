import nibabel as nib
import numpy as np
import pytest

from verse_utils.cases import Case
from verse_utils.errors import UserError
from verse_utils.images import check_case, open_image, read_case, read_hu

CT = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
MASK = (CT % 3 == 0).astype(np.uint8) * 20


def save(path, array, affine=None, qform=1, sform=1):
    affine = np.eye(4) if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine if qform else None, code=qform)
    image.set_sform(affine if sform else None, code=sform)
    nib.save(image, path)
    return path


def case(tmp_path, image=CT, mask=MASK, image_affine=None, mask_affine=None):
    ct = save(tmp_path / "ct.nii.gz", image, image_affine, qform=1, sform=0)
    label = save(tmp_path / "mask.nii.gz", mask, mask_affine, qform=0, sform=2)
    return Case("sub-a", "sub-a", "training", ct, label)


def test_header_codes_may_differ_and_float_masks_are_rounded(tmp_path):
    images = read_case(case(tmp_path, mask=MASK.astype(np.float64)))
    np.testing.assert_array_equal(images.image_hu, CT)
    np.testing.assert_array_equal(images.label, MASK)
    assert images.label.dtype == np.uint8 and images.image_hu.dtype == np.int16


def test_sacrum_and_coccyx_are_background(tmp_path):
    mask = MASK.copy()
    mask[0, 0, :4] = (26, 27, 25, 28)
    assert read_case(case(tmp_path, mask=mask)).label[0, 0, :4].tolist() == [0, 0, 25, 28]


def test_grids_may_differ_by_less_than_a_quarter_of_a_voxel(tmp_path):
    near, far = np.eye(4), np.eye(4)
    near[0, 3], far[0, 3] = 0.2, 0.3
    check_case(case(tmp_path, mask_affine=near))
    with pytest.raises(UserError, match=r"mask\.nii\.gz.*0\.3 mm off"):
        check_case(case(tmp_path, mask_affine=far))
    with pytest.raises(UserError, match=r"mask\.nii\.gz: shape"):
        check_case(case(tmp_path, mask=MASK[:3]))


@pytest.mark.parametrize(
    ("mask", "words"), [(MASK + 0.3, "whole numbers"), (MASK * 2.0, "labels"), (MASK * np.nan, "whole numbers")]
)
def test_masks_of_other_values_are_refused(tmp_path, mask, words):
    with pytest.raises(UserError, match=rf"mask\.nii\.gz.*{words}"):
        read_case(case(tmp_path, mask=mask))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((4, 5, 6), np.nan, np.float32), "NaN"),
        (np.full((4, 5, 6), 7, np.int16), "constant"),
        (CT[0], "2 axes"),
        (np.stack([CT, CT], axis=3), "4 axes"),
        (np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "greyscale"),
    ],
)
def test_what_is_no_ct_is_refused(tmp_path, image, words):
    with pytest.raises(UserError, match=rf"ct\.nii\.gz.*{words}"):
        read_hu(save(tmp_path / "ct.nii.gz", image))


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
    assert open_image(save(tmp_path / "ct.nii.gz", CT[..., None])).shape == CT.shape


def test_broken_files_are_refused(tmp_path):
    whole = save(tmp_path / "whole.nii.gz", np.random.default_rng(0).integers(0, 999, (30, 30, 30)).astype(np.int16))
    truncated = tmp_path / "truncated.nii.gz"
    truncated.write_bytes(whole.read_bytes()[:5000])
    text = tmp_path / "text.nii.gz"
    text.write_text("no image", encoding="utf-8")
    for path in (truncated, text, tmp_path / "absent.nii.gz"):
        with pytest.raises(UserError, match=path.name):
            read_hu(path)


def test_a_spacing_of_zero_is_refused(tmp_path):
    image = nib.Nifti1Image(CT, None)
    image.header.set_sform(np.diag([0.0, 1, 1, 1]), code=1)
    image.header.set_qform(None, code=0)
    nib.save(image, tmp_path / "flat.nii.gz")
    with pytest.raises(UserError, match=r"flat\.nii\.gz.*spacing of zero"):
        open_image(tmp_path / "flat.nii.gz")
