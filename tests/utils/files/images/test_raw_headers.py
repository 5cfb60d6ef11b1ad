"""NRRD, MetaImage and Analyze: the grid as SimpleITK has it, found in folders and archives, refused in one line."""

import zipfile

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from utils.files.find_scans import find_scans
from utils.files.scans import open_scan
from verse_utils.errors import UserError

CT = np.random.default_rng(7).integers(-1000, 1500, (6, 7, 8)).astype(np.int16)
ENDINGS = ("nrrd", "nhdr", "mha", "mhd")
OBLIQUE = nib.eulerangles.euler2mat(0.3, -0.2, 0.1)


def write(path, packed=False, direction=None, codes="LPS", array=CT, **facts):
    """An image of SimpleITK's, as it is stored in a file (LPS)."""
    image = SimpleITK.GetImageFromArray(array.T, isVector=False)
    if array.ndim == 3:
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((10.5, -20.25, 300))
        image.SetDirection((np.eye(3) if direction is None else direction).ravel())
        image = SimpleITK.DICOMOrient(image, codes)
    for key, value in facts.items():
        image.SetMetaData(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, path, packed)
    return image


def changed(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))


def opened(path):
    (source,) = find_scans([str(path)])
    return open_scan(source)


def voxels(scan, region=None):
    return np.concatenate([slab for _, slab in scan.slabs(region)], axis=2)


def assert_agrees(scan, image):
    """Every corner's place and every voxel are SimpleITK's; its places are LPS."""
    assert scan.shape == image.GetSize()
    for corner in np.ndindex(2, 2, 2):
        index = [int(n) for n in np.array(corner) * (np.array(scan.shape) - 1)]
        place = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose(nib.affines.apply_affine(scan.affine, index), place, atol=1e-3)
    np.testing.assert_array_equal(voxels(scan), SimpleITK.GetArrayViewFromImage(image).T)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("direction", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_each_grid_is_that_of_simpleitk_and_the_mask_has_it_too(tmp_path, ending, direction):
    dtypes = {"LPS": "i2", "RAS": "i2", "PIR": "f4", "SAL": "u2", "ILA": "i4", "ASR": "f8"}
    for codes, dtype in dtypes.items():
        image = write(tmp_path / f"ct.{ending}", codes == "RAS", direction, codes, abs(CT).astype(dtype))
        scan = opened(tmp_path / f"ct.{ending}")
        assert scan.warnings == []
        assert_agrees(scan, image)
    np.testing.assert_array_equal(voxels(scan, np.s_[1:4, :, 3:]), voxels(scan)[1:4, :, 3:])
    scan.save((CT % 2).astype(np.uint8).reshape(scan.shape), tmp_path / "mask.nii.gz")
    mask = SimpleITK.ReadImage(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "old", "new", "is_guess"),
    [
        ("ct.nrrd", b"left-posterior-superior", b"right-anterior-superior", False),
        ("ct.nrrd", b"left-posterior-superior", b"LAS", False),
        ("ct.nrrd", b"left-posterior-superior", b"scanner-xyz", True),
        ("ct.mha", b"\nTransformMatrix", b"\nComment", True),
        ("ct.mha", b"\nTransformMatrix", b"\nRotation", False),
        ("ct.mha", b"\nOffset", b"\nPosition", False),
        ("ct.mha", b"BinaryDataByteOrderMSB = False", b"BinaryDataByteOrderMSB = True", False),
        ("ct.nrrd", b"endian: little", b"endian: big", False),
        ("ct.nrrd", b"type: short", b"type: signed short int", False),
        ("ct.nhdr", b"data file", b"byte skip: -1\ndata file", False),
        ("ct.mhd", b"ElementType", b"HeaderSize = -1\nElementType", False),
    ],
)
def test_other_words_of_the_headers_mean_what_simpleitk_takes_them_for(tmp_path, name, old, new, is_guess):
    write(tmp_path / name, direction=OBLIQUE)
    changed(tmp_path / name, old, new)
    scan = opened(tmp_path / name)
    assert any("left and right are a guess" in line for line in scan.warnings) == is_guess
    assert_agrees(scan, SimpleITK.ReadImage(tmp_path / name))


def test_remarks_in_a_nrrd_header_are_no_fields(tmp_path):
    image = write(tmp_path / "ct.nrrd")
    changed(tmp_path / "ct.nrrd", b"\ndimension: 3", b"\ntype:=float\nspace:=bogus\n# type: double\ndimension: 3")
    assert_agrees(opened(tmp_path / "ct.nrrd"), image)


def test_pairs_of_nifti_and_analyze(tmp_path):
    """ITK guesses the directions of Analyze, which tells none."""
    for name, image_class in (("nifti", nib.Nifti1Pair), ("analyze", nib.analyze.AnalyzeImage)):
        nib.save(image_class(CT, nib.affines.from_matvec(OBLIQUE @ np.diag([0.7, 0.8, 2.5]))), tmp_path / f"{name}.img")
    analyze, nifti = find_scans([str(tmp_path)])
    assert (analyze.path.name, nifti.path.name) == ("analyze.hdr", "nifti.hdr")
    assert_agrees(open_scan(nifti), SimpleITK.ReadImage(tmp_path / "nifti.hdr"))
    scan = open_scan(analyze)
    assert_agrees(scan, SimpleITK.ReadImage(tmp_path / "analyze.hdr"))
    assert "left and right are a guess" in scan.warnings[0]
    (tmp_path / "analyze.img").unlink()
    with pytest.raises(UserError, match=r"analyze\.hdr: the file of its voxels, analyze\.img, isn't there; put it be"):
        opened(tmp_path / "analyze.hdr")


def test_found_in_folders_and_archives(tmp_path):
    for ending in ENDINGS:
        write(tmp_path / "in" / f"{ending}_ct.{ending}")
        write(tmp_path / "in" / f"{ending}.seg.{ending}")
    assert [source.name for source in find_scans([str(tmp_path / "in")])] == sorted(f"{e}_ct" for e in ENDINGS)
    nib.save(nib.Nifti1Image(CT, np.eye(4)), tmp_path / "in" / "ct.nii.gz")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in (tmp_path / "in").iterdir():
            archive.write(path, f"deep/er/{path.name}")
    sources = find_scans([str(tmp_path / "all.zip")])
    assert len(sources) == 5
    for source in sources:
        scan = open_scan(source)
        assert scan.path == tmp_path / "all.zip" / "deep" / "er" / source.path.name
        np.testing.assert_array_equal(voxels(scan), CT)
    # The voxels of a header stand for it.
    assert find_scans([str(tmp_path / "in" / "mhd_ct.raw")]) == find_scans([str(tmp_path / "in" / "mhd_ct.mhd")])
    for source in sources:
        part = tmp_path / f"{source.path.suffix}.zip"
        with zipfile.ZipFile(part, "w") as archive:
            archive.write(tmp_path / "in" / source.path.name, source.path.name)
        if source.path.suffix in (".mhd", ".nhdr"):
            with pytest.raises(
                UserError, match=f"{source.path.name}: the file of its voxels, .*, isn't there; put it be"
            ):
                opened(part)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sizes", [b"6 7 27952", b"6 7 7", b"6 7 9"])
def test_a_header_that_does_not_fit_is_refused_before_memory_is_taken(tmp_path, ending, packed, sizes, monkeypatch):
    write(tmp_path / f"ct.{ending}", packed)
    changed(tmp_path / f"ct.{ending}", b"6 7 8", sizes)
    monkeypatch.setattr(SimpleITK.ImageFileReader, "Execute", lambda _: pytest.fail("voxels were read"))
    with pytest.raises(UserError, match=rf"ct\.{ending}: voxels can't be read \(its header claims .* fetch the file a"):
        opened(tmp_path / f"ct.{ending}")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("ct.mhd", b"ct.raw", b"gone.raw", "the file of its voxels, gone.raw, isn't there; put it beside"),
        ("ct.nhdr", b"ct.raw", b"gone.raw", "the file of its voxels, gone.raw, isn't there; put it beside"),
        ("ct.mhd", b"ct.raw", b"ct%03d.raw 1 8 1", "several files"),
        ("ct.nrrd", b"raw", b"hex", "save it as raw or gzip"),
        ("ct.mha", b"BinaryData = True", b"BinaryData = False", "save it in binary"),
        ("ct.mha", b"0.8", b"0.0", "a spacing of zero"),
        ("ct.nrrd", b"0.8", b"eight", "could not convert string to float: 'eight"),
        ("ct.nrrd", b"sizes", b"size", "its header lacks 'sizes'"),
        ("ct.mha", b"DimSize = 6 7 8", b"DimSize = 6", "3 axes of the sizes 6"),
        ("ct.mha", b"NDims = 3", b"NDims = 99", "99 axes"),  # which ends SimpleITK's process
        ("ct.mha", b"MET_SHORT", b"MET_LIES", "voxels are MET_LIES, not numbers in HU"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, old, new, words):
    write(tmp_path / name)
    changed(tmp_path / name, old, new)
    with pytest.raises(UserError, match=words) as error:
        voxels(opened(tmp_path / name))
    assert str(error.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(error.value)


def test_colours_and_series_of_volumes_are_refused(tmp_path):
    write(tmp_path / "four.nrrd", array=np.stack([CT, CT], 3))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.stack([CT] * 3, 3), isVector=True), tmp_path / "rgb.mha")
    for name, words in (("four.nrrd", r"has 4 axes \(6, 7, 8, 2\)"), ("rgb.mha", "not numbers in HU")):
        with pytest.raises(UserError, match=words):
            opened(tmp_path / name)
    write(tmp_path / "one.nrrd", array=CT[..., None])
    np.testing.assert_array_equal(voxels(opened(tmp_path / "one.nrrd")), CT)


def test_damaged_packed_voxels_are_one_line(tmp_path):
    write(tmp_path / "ct.mha", packed=True)
    content = bytearray((tmp_path / "ct.mha").read_bytes())
    content[-60] ^= 8
    (tmp_path / "ct.mha").write_bytes(content)
    with pytest.raises(UserError, match=r"ct\.mha: voxels can't be read .*; fetch the file again"):
        voxels(opened(tmp_path / "ct.mha"))
