import bz2
import gzip
import os
import tracemalloc
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from verse_utils.cases import Case
from verse_utils.errors import FileError, GridError, UserError
from verse_utils.images import label_slabs, lacks_orientation, open_image, read_case, stored_slabs
from verse_utils.labels import VERTEBRA_NAMES
from verse_utils.numberings import NUMBERINGS

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


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 2), (1, 1), (0, 0)])
def test_units_of_length_are_read_as_itk_reads_them(tmp_path, unit, mm, qform, sform):
    """Another unit changes no place, header code or voxel; ITK's places are compared where a code tells any."""
    axes = np.linalg.qr([[1.0, 0.2, 0.1], [-0.2, 1, 0.3], [0, -0.3, 1]])[0]
    affine_mm = nib.affines.from_matvec(axes * np.linalg.det(axes) * [0.8, 0.7, 2.5], [30, -20, 100])
    stored = nib.load(save(tmp_path / "other.nii", CT, np.diag([1 / mm] * 3 + [1]) @ affine_mm, qform, sform))
    stored.header.set_xyzt_units(unit, "sec")
    path = tmp_path / "ct.nii"
    nib.save(stored, path)
    image = open_image(path)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (qform, sform)
    assert image.header.get_xyzt_units() == ("mm" if mm != 1 else unit, "sec")
    np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), [0.8, 0.7, 2.5], rtol=1e-5)
    np.testing.assert_array_equal(image.dataobj, CT)
    assert lacks_orientation(image) == (qform == sform == 0)
    if qform or sform:
        itk = SimpleITK.ReadImage(str(path))
        for corner in ((0, 0, 0), (3, 0, 0), (0, 4, 5)):
            place_mm = np.multiply(itk.TransformIndexToPhysicalPoint(corner), (-1, -1, 1))
            np.testing.assert_allclose(nib.affines.apply_affine(image.affine, corner), place_mm, atol=1e-3)


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("ct.nii.gz", bytes),
        ("ct.nii.gz", lambda whole: gzip.compress(gzip.compress(whole))),
        ("ct.nii", gzip.compress),
        ("ct", gzip.compress),
        ("ct.nii", bz2.compress),
    ],
)
def test_what_a_file_holds_counts_not_its_name(tmp_path, image_class, name, pack):
    whole = image_class(CT, np.diag([0.8, 0.7, 2.5, 1])).to_bytes()
    for file_name, content in ((name, whole), (f"cut_{name}", whole[:-9])):
        (tmp_path / file_name).write_bytes(pack(content))
    image = open_image(tmp_path / name)
    (slab,) = stored_slabs(image, tmp_path / name)
    np.testing.assert_array_equal(slab[1], CT)
    np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), [0.8, 0.7, 2.5])
    with pytest.raises(FileError, match=rf"claims {len(whole)} bytes .*, the file holds {len(whole) - 9}\)"):
        open_image(tmp_path / f"cut_{name}")


def test_sacrum_and_coccyx_are_background(tmp_path):
    mask = MASK.copy()
    mask[0, 0, :4] = (26, 27, 25, 28)
    assert read_case(case(tmp_path, mask=mask)).label[0, 0, :4].tolist() == [0, 0, 25, 28]


def test_grids_may_differ_by_less_than_a_quarter_of_a_voxel(tmp_path):
    near, far = np.eye(4), np.eye(4)
    near[0, 3], far[0, 3] = 0.2, 0.3
    read_case(case(tmp_path, mask_affine=near))
    with pytest.raises(UserError, match=r"mask\.nii\.gz.*0\.3 mm off"):
        read_case(case(tmp_path, mask_affine=far))
    with pytest.raises(UserError, match=r"mask\.nii\.gz: shape"):
        read_case(case(tmp_path, mask=MASK[:3]))


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
        read_case(case(tmp_path, image=image))


def test_dicom_of_another_name_is_told(tmp_path):
    (tmp_path / "ct.nii").write_bytes(bytes(128) + b"DICM" + bytes(900))
    with pytest.raises(FileError, match=r"it holds DICOM: name it \.dcm"):
        open_image(tmp_path / "ct.nii")


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
    assert open_image(save(tmp_path / "ct.nii.gz", CT[..., None])).shape == CT.shape


def test_broken_files_are_refused(tmp_path):
    whole = save(tmp_path / "whole.nii.gz", np.random.default_rng(0).integers(0, 999, (30, 30, 30)).astype(np.int16))
    mask = save(tmp_path / "mask.nii.gz", np.zeros((30, 30, 30), np.uint8))
    truncated = tmp_path / "truncated.nii.gz"
    truncated.write_bytes(whole.read_bytes()[:5000])
    text = tmp_path / "text.nii.gz"
    text.write_text("no image", encoding="utf-8")
    for path in (truncated, text, tmp_path / "absent.nii.gz"):
        with pytest.raises(UserError, match=path.name):
            read_case(Case("sub-a", "sub-a", "training", path, mask))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "ct.nii.gz"
    os.mkfifo(path)
    with pytest.raises(FileError, match=r"ct.nii.gz: a folder or a device, not a file"):
        open_image(path)


def test_a_spacing_of_zero_is_refused(tmp_path):
    image = nib.Nifti1Image(CT, None)
    image.header.set_sform(np.diag([0.0, 1, 1, 1]), code=1)
    image.header.set_qform(None, code=0)
    nib.save(image, tmp_path / "flat.nii.gz")
    with pytest.raises(UserError, match=r"flat\.nii\.gz.*spacing of zero"):
        open_image(tmp_path / "flat.nii.gz")


@pytest.fixture
def parts(tmp_path):
    """A case whose mask has a file for each vertebra; L1 and L2 share a voxel, L3 is empty, and the sacrum is there."""
    folder = tmp_path / "segmentations"
    folder.mkdir()
    label = np.zeros_like(MASK)
    label[0], label[2] = 20, 21
    for name, inside in {"L1": label == 20, "L2": label == 21, "L3": label == 22, "S1": label == 20}.items():
        part = inside.astype(np.uint8)
        part[0, 0, 0] = name != "L3"
        save(folder / f"vertebrae_{name}.nii.gz", part)
    (folder / "liver.nii.gz").write_bytes(b"never read")
    return Case("s1", "s1", "training", save(tmp_path / "ct.nii.gz", CT), folder), label


def test_a_mask_may_have_a_file_for_each_vertebra(parts):
    case, label = parts
    np.testing.assert_array_equal(read_case(case).label, label)
    slabs = list(label_slabs(case, thickness=4))
    assert [first for first, _ in slabs] == [0, 4]
    np.testing.assert_array_equal(np.concatenate([slab for _, slab in slabs], axis=2), label)
    assert [path.name for path in case.files] == [
        "ct.nii.gz",
        *(f"vertebrae_L{number}.nii.gz" for number in (1, 2, 3)),
    ]


def test_many_files_of_a_mask_take_no_more_memory_than_slabs(tmp_path):
    """Of 24 files of 1 MB each, no more than the slab that is worked on is held."""
    folder = tmp_path / "segmentations"
    folder.mkdir()
    for number, name in enumerate(list(VERTEBRA_NAMES.values())[:24]):
        part = np.zeros((64, 64, 256), np.uint8)
        part[..., 10 * number : 10 * number + 8] = 1
        save(folder / f"vertebrae_{name}.nii.gz", part)
    many = Case("s1", "s1", "training", folder / "ct.nii.gz", folder)
    tracemalloc.start()
    labels = [set(np.unique(slab)) for _, slab in label_slabs(many)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert set().union(*labels) == set(range(25))
    assert peak < 6e6, f"{peak / 1e6:.1f} MB"


def test_each_file_of_a_mask_is_checked(parts):
    case, _ = parts
    path = case.mask_path / "vertebrae_L2.nii.gz"
    for array, words in ((MASK[:3], "shape"), (MASK + np.arange(6, dtype=np.uint8), "20 and 21|not a binary mask")):
        save(path, array)
        with pytest.raises(UserError, match=rf"vertebrae_L2\.nii\.gz.*({words})"):
            read_case(case)
    path.rename(case.mask_path / "L1.nii.gz")
    with pytest.raises(UserError, match="the same vertebra as"):
        read_case(case)


def test_numbers_of_other_tools_become_verses(tmp_path):
    total = np.where(MASK > 0, 31, 5).astype(np.uint8)  # TotalSegmentator's L1 and liver
    other = replace(case(tmp_path, mask=total), numbering=NUMBERINGS["totalsegmentator"])
    np.testing.assert_array_equal(read_case(other).label, MASK)
    np.testing.assert_array_equal(np.concatenate([slab for _, slab in label_slabs(other)], axis=2), MASK)
    total[0, 0, 0] = 200
    other = replace(case(tmp_path, mask=total), numbering=NUMBERINGS["totalsegmentator"])
    with pytest.raises(UserError, match=r"mask\.nii\.gz: holds 200, which means nothing in .* totalsegmentator"):
        read_case(other)


@pytest.fixture
def noise(tmp_path):
    """A CT whose voxels hardly compress, so that each byte of the file counts."""
    values = np.random.default_rng(0).integers(-999, 999, (30, 30, 30)).astype(np.int16)
    return save(tmp_path / "noise.nii.gz", values)


def read_whole(path):
    return [values for _, values in stored_slabs(open_image(path), path, thickness=7)]


def test_a_flipped_bit_is_found_though_all_voxels_could_be_read(noise):
    content = bytearray(noise.read_bytes())
    content[len(content) // 2] ^= 16
    noise.write_bytes(content)
    with pytest.raises(FileError, match=r"noise\.nii\.gz.*can't be read"):
        read_whole(noise)


@pytest.mark.parametrize("lost", [1, 4, 8, 500])
def test_a_cut_trailer_is_found(noise, lost):
    noise.write_bytes(noise.read_bytes()[:-lost])
    with pytest.raises(FileError, match=r"noise\.nii\.gz.*can't be read"):
        read_whole(noise)


def test_a_wrong_checksum_is_found(noise):
    content = noise.read_bytes()
    noise.write_bytes(content[:-8] + b"1234" + content[-4:])
    with pytest.raises(FileError, match=r"noise\.nii\.gz.*CRC"):
        read_whole(noise)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize(("columns", "words"), [(27952, "holds 54352"), (29, "holds more than")])
def test_a_header_that_does_not_fit_its_file_is_refused_before_memory_is_taken(tmp_path, ending, columns, words):
    values = np.zeros((30, 30, 30), np.int16)
    content = bytearray(gzip.decompress(save(tmp_path / "ct.nii.gz", values).read_bytes()))
    content[42:44] = columns.to_bytes(2, "little")  # dim[1] (NIfTI-1)
    path = tmp_path / f"claims{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=rf"claims.*{words}"):
            open_image(path)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_gzip_in_several_members_is_whole(tmp_path, noise):
    content = gzip.decompress(noise.read_bytes())
    path = tmp_path / "members.nii.gz"
    path.write_bytes(gzip.compress(content[:9999]) + gzip.compress(content[9999:]) + gzip.compress(b""))
    np.testing.assert_array_equal(np.concatenate(read_whole(path), 2), np.concatenate(read_whole(noise), 2))


@pytest.mark.parametrize(("place", "value"), [(70, 77), (110, 0x4280), (70, 128)])
def test_headers_that_nibabel_refuses_are_one_line(tmp_path, place, value):
    """An unknown datatype, voxels from byte 64 on, and colour."""
    content = bytearray(gzip.decompress(save(tmp_path / "ct.nii.gz", CT).read_bytes()))
    content[place : place + 2] = value.to_bytes(2, "little")
    path = tmp_path / "odd.nii"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"odd\.nii") as error:
        read_whole(path)
    assert "\n" not in str(error.value)


def test_two_nearly_parallel_axes_are_no_grid(tmp_path):
    affine = np.eye(4)
    affine[:3, 1] = (1, 0.1, 0)
    with pytest.raises(GridError, match=r"ct\.nii\.gz.*nearly parallel"):
        open_image(save(tmp_path / "ct.nii.gz", CT, affine, qform=0))


@pytest.mark.parametrize(("place", "lacks"), [("sform", False), ("qform", False), ("no form", True)])
@pytest.mark.parametrize("code", [99, 6, 32767, -1])
def test_codes_that_no_standard_knows_count_as_itk_counts_them(tmp_path, place, lacks, code):
    path = save(tmp_path / "ct.nii", CT, np.diag([-2.0, 3.0, -4.0, 1.0])[[1, 2, 0, 3]], qform=1, sform=1)
    content = bytearray(path.read_bytes())
    codes = {"qform": code if place == "qform" else 0, "sform": code if place == "sform" else 0}
    content[252:256] = np.array([codes["qform"], codes["sform"]], "<i2").tobytes()
    path.write_bytes(content)
    image = open_image(path)
    assert lacks_orientation(image) == (lacks or code < 0)
    if not lacks and code > 0:
        itk = SimpleITK.ReadImage(str(path))
        lps = np.column_stack([np.reshape(itk.GetDirection(), (3, 3)) * itk.GetSpacing(), itk.GetOrigin()])
        np.testing.assert_allclose(image.affine[:3], lps * [[-1], [-1], [1]], atol=1e-5)


@pytest.mark.parametrize(("qform", "sform", "lacks"), [(0, 0, True), (1, 0, False), (0, 2, False)])
def test_a_scan_without_codes_has_no_orientation(tmp_path, qform, sform, lacks):
    assert lacks_orientation(open_image(save(tmp_path / "ct.nii.gz", CT, qform=qform, sform=sform))) is lacks
