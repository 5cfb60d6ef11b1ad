import gzip
import locale
import pickle

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from utils.scans import ScanSource, find_scans, open_scan, save_mask
from verse_utils.errors import UserError

RNG = np.random.default_rng(5)
SHAPE = (9, 11, 37)  # more than two slabs, the last one thinner
CT = RNG.integers(-1000, 1500, SHAPE).astype(np.int16)
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([0.7, 0.8, 2.5]), [-31.25, 12.5, 400.125]
)


def oriented(codes, spacing_mm=(0.7, 0.8, 2.5)):
    axes = np.zeros((3, 3))
    for stored, (world, sign) in enumerate(nib.orientations.axcodes2ornt(codes)):
        axes[int(world), stored] = sign
    return nib.affines.from_matvec(axes * spacing_mm, [10.5, -20.25, 300.0])


def write(path, array=CT, affine=OBLIQUE, qform=1, sform=1, image_class=nib.Nifti1Image):
    image = image_class(array, affine)
    image.set_qform(affine if qform else None, code=qform)
    image.set_sform(affine if sform else None, code=sform)
    image.header["cal_max"] = 400
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def opened(path):
    return open_scan(ScanSource(path, "scan"))


def names(sources):
    return [source.name for source in sources]


def joined(scan, region=None, thickness=16):
    firsts, slabs = zip(*scan.slabs(region, thickness), strict=True)
    array = np.concatenate(slabs, axis=2)
    assert list(firsts) == list(range(0, array.shape[2], thickness))
    assert all(slab.dtype == np.int16 for slab in slabs)
    return array


# NIfTI


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ILA", "ASR"])
def test_a_scan_of_any_orientation_is_given_as_it_is_stored(tmp_path, codes):
    scan = opened(write(tmp_path / "ct.nii.gz", affine=oriented(codes)))
    assert scan.shape == SHAPE and scan.voxel_count == CT.size and scan.warnings == []
    assert nib.aff2axcodes(scan.affine) == tuple(codes) and scan.affine.dtype == np.float64
    np.testing.assert_allclose(scan.affine, oriented(codes), atol=1e-5)
    np.testing.assert_array_equal(joined(scan), CT)


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "NII.GZ"])
@pytest.mark.parametrize(
    ("stored", "slope", "expected"),
    [
        (CT, None, CT),
        (CT.astype(">i2"), None, CT),
        ((CT // 16 + 100).astype(np.uint8), (16.0, -1600.0), (CT // 16 + 100).astype(np.uint8) * 16.0 - 1600),
        (CT + np.float32(0.375), (2.0, -7.0), np.rint(CT * 2.0 + 0.75 - 7)),
        (CT.astype(np.int32) * 100, None, np.clip(CT.astype(int) * 100, -32768, 32767)),
    ],
)
def test_values_are_rounded_hu_whatever_is_stored(tmp_path, ending, stored, slope, expected):
    image = nib.Nifti1Image(stored, OBLIQUE)
    path = tmp_path / f"ct.{ending}"
    nib.save(image, path)
    if slope:  # nibabel would choose a scaling of its own
        unpack = gzip.decompress if ending.lower().endswith("gz") else bytes
        content = bytearray(unpack(path.read_bytes()))
        content[112:120] = np.array(slope, "<f4").tobytes()
        path.write_bytes(gzip.compress(content) if ending.lower().endswith("gz") else content)
    scan = opened(path)
    whole = joined(scan)
    np.testing.assert_array_equal(whole, expected)
    for thickness in (1, 16, 50):
        np.testing.assert_array_equal(joined(scan, thickness=thickness), whole)
    for region in [np.s_[2:7, :, 5:36], np.s_[:, 3:4, 36:], np.s_[-4:, :-2, 15:17], np.s_[3:3, :, :]]:
        np.testing.assert_array_equal(joined(scan, region), whole[region])


def test_a_region_has_no_steps(tmp_path):
    with pytest.raises(ValueError, match="steps"):
        joined(opened(write(tmp_path / "ct.nii.gz")), np.s_[::2, :, :])


def test_a_gzip_stream_is_opened_once_and_never_turned_back(tmp_path, monkeypatch):
    scan = opened(write(tmp_path / "ct.nii.gz"))
    opens, unpacked = [], []
    init, read = gzip.GzipFile.__init__, gzip._GzipReader.read
    monkeypatch.setattr(gzip.GzipFile, "__init__", lambda self, *a, **k: (opens.append(self), init(self, *a, **k))[1])

    def counted_read(self, size=-1):
        block = read(self, size)
        unpacked.append(len(block))
        return block

    monkeypatch.setattr(gzip._GzipReader, "read", counted_read)
    for thickness in (1, 8):
        opens.clear()
        unpacked.clear()
        joined(scan, thickness=thickness)
        assert len(opens) == 1
        assert sum(unpacked) == 352 + CT.nbytes
    opens.clear()
    joined(scan, np.s_[1:3, 2:5, 2:30])
    assert len(opens) == 1


def test_no_more_than_a_slab_is_read_at_a_time(tmp_path, monkeypatch):
    scan = opened(write(tmp_path / "ct.nii.gz", CT.astype(np.float32) + 0.25))
    sizes = []
    monkeypatch.setattr(
        "utils.scans.to_hu", lambda values, path: (sizes.append(values.shape[2]), values.astype(np.int16))[1]
    )
    assert opened(scan.path).shape == SHAPE and sizes == []
    joined(scan)
    assert sizes == [16, 16, 5]
    sizes.clear()
    joined(scan, np.s_[:2, :2, 10:33])
    assert sizes == [16, 7]


def test_a_trailing_axis_of_one_is_dropped_without_reading_voxels(tmp_path, monkeypatch):
    path = write(tmp_path / "ct.nii.gz", CT[..., None], qform=0, sform=4)
    with monkeypatch.context() as patched:
        patched.setattr(nib.arrayproxy.ArrayProxy, "__getitem__", lambda *_: pytest.fail("voxels were read"))
        patched.setattr(nib.arrayproxy.ArrayProxy, "__array__", lambda *_: pytest.fail("voxels were read"))
        scan = opened(path)
    np.testing.assert_array_equal(joined(scan), CT)
    scan.save(np.zeros(SHAPE, np.uint8), tmp_path / "mask.nii.gz")
    header = nib.load(tmp_path / "mask.nii.gz").header
    assert header.get_data_shape() == SHAPE and (header["qform_code"], header["sform_code"]) == (0, 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 2), (1, 1), (3, 4), (0, 0)])
@pytest.mark.parametrize("affine", [OBLIQUE, oriented("PIR")], ids=["oblique", "PIR"])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_saved_array_lies_on_the_scans_grid(tmp_path, dtype, qform, sform, affine, image_class):
    path = write(tmp_path / "ct.nii.gz", CT + 0.5, affine, qform, sform, image_class=image_class)
    array = (CT % 26).astype(dtype) / (1 if dtype == np.uint8 else 7)
    opened(path).save(array.astype(dtype), tmp_path / "deep" / "er" / "mask.nii.gz")
    given, saved = nib.load(path), nib.load(tmp_path / "deep" / "er" / "mask.nii.gz")
    assert type(saved) is image_class and saved.shape == SHAPE
    for field in ("qform_code", "sform_code", "xyzt_units"):
        assert saved.header[field] == given.header[field]
    np.testing.assert_array_equal(saved.affine, given.affine)
    np.testing.assert_array_equal(saved.get_qform(), given.get_qform())
    np.testing.assert_array_equal(saved.get_sform(), given.get_sform())
    np.testing.assert_array_equal(saved.header.get_zooms(), given.header.get_zooms())
    assert saved.get_data_dtype() == dtype and saved.header["cal_max"] == 0
    assert (saved.dataobj.slope, saved.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(np.asanyarray(saved.dataobj), array.astype(dtype))


def test_qform_and_sform_that_differ_stay_so(tmp_path):
    image = nib.Nifti1Image(CT, OBLIQUE)
    image.set_qform(oriented("LAS"), code=1)
    image.set_sform(OBLIQUE, code=2)
    nib.save(image, tmp_path / "ct.nii")
    scan = opened(tmp_path / "ct.nii")
    np.testing.assert_allclose(scan.affine, OBLIQUE, atol=1e-4)
    scan.save(np.ones(SHAPE, np.uint8), tmp_path / "mask.nii.gz")
    saved = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(saved.get_qform(), oriented("LAS"), atol=1e-4)
    np.testing.assert_array_equal(saved.affine, scan.affine)


def test_a_mask_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    scan, target = opened(write(tmp_path / "ct.nii.gz")), tmp_path / "out" / "mask.nii.gz"
    mask = np.ones(SHAPE, np.uint8)
    for array, path in [(mask[:2], target), (mask.astype(np.int64), target), (mask, tmp_path / "mask.nii")]:
        with pytest.raises(ValueError, match="can't be saved"):
            scan.save(array, path)
    scan.save(mask, target)
    before = target.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", full)
    with pytest.raises(UserError, match=r"mask\.nii\.gz: can't be written \(No space left"):
        scan.save(0 * mask, target)
    assert target.read_bytes() == before and [path.name for path in target.parent.iterdir()] == ["mask.nii.gz"]


def test_the_same_mask_gives_the_same_bytes(tmp_path, monkeypatch):
    scan = opened(write(tmp_path / "ct.nii.gz"))
    for name, now in [("one.nii.gz", 1e9), ("other.nii.gz", 1.1e9)]:
        monkeypatch.setattr("time.time", lambda now=now: now)
        scan.save((CT % 3).astype(np.uint8), tmp_path / name)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "other.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (CT[0], "2 axes"),
        (np.stack([CT, CT], axis=3), "4 axes"),
        (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "greyscale"),
        (CT[:, :, :3], "only 3 slices along K.*whole series"),
        (CT[:1], "only 1 slices along I"),
    ],
)
def test_what_is_no_scan_is_refused_on_opening(tmp_path, array, words):
    with pytest.raises(UserError, match=rf"ct\.nii\.gz: .*{words}"):
        opened(write(tmp_path / "ct.nii.gz", array))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_no_number_is_refused(tmp_path, value):
    array = CT.astype(np.float32)
    array[4, 5, 33] = value
    scan = opened(write(tmp_path / "ct.nii.gz", array))
    for region in (None, np.s_[:, :, 30:]):
        with pytest.raises(UserError, match=r"ct\.nii\.gz: holds NaN or infinite values"):
            joined(scan, region)


def test_a_constant_scan_is_refused_after_its_last_slab(tmp_path):
    scan = opened(write(tmp_path / "ct.nii.gz", np.full(SHAPE, -7, np.int16)))
    seen = []
    with pytest.raises(UserError, match=r"ct\.nii\.gz: constant, every voxel is -7; export the CT again"):
        seen.extend(first for first, _ in scan.slabs())
    assert seen == [0, 16, 32]
    with pytest.raises(UserError, match="constant"):
        joined(scan)
    assert (joined(scan, np.s_[:, :, :5]) == -7).all()  # a region may be nothing but air


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("axes", [3, 4])
def test_a_truncated_file_is_refused(tmp_path, ending, axes):
    path = write(tmp_path / f"ct.{ending}", CT if axes == 3 else CT[..., None])
    path.write_bytes(path.read_bytes()[:-2000])
    scan = opened(path)
    for thickness in (8, 16, 99):
        with pytest.raises(UserError, match=rf"ct\.{ending}: voxels can't be read .*; fetch the file again") as error:
            joined(scan, thickness=thickness)
        assert "\n" not in str(error.value)


def test_a_spacing_of_zero_is_refused(tmp_path):
    image = nib.Nifti1Image(CT, None)
    image.set_sform(np.diag([0.0, 1, 1, 1]), code=1)
    nib.save(image, tmp_path / "flat.nii.gz")
    with pytest.raises(UserError, match=r"flat\.nii\.gz.*spacing of zero"):
        opened(tmp_path / "flat.nii.gz")


def test_what_is_no_image_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "text.nii.gz").write_text("no image", encoding="utf-8")
    (tmp_path / "empty.nii").write_bytes(b"")
    nib.save(nib.MGHImage(CT.astype(np.float32), OBLIQUE), tmp_path / "ct.mgz")
    for name in ("notes.txt", "text.nii.gz", "empty.nii", "ct.mgz"):
        (source,) = find_scans([str(tmp_path / name)])
        with pytest.raises(UserError, match=name) as error:
            open_scan(source)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        opened(tmp_path / "absent.nii.gz")


# DICOM


DICOM_HU = CT[:, :, :7]
ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([-0.6, 0.8, 0.0])  # LPS
NORMAL = np.cross(ROW, COLUMN)


def write_slices(
    folder, hu=DICOM_HU, uid="1.2.3", description="Spine", heights_mm=None, names=None, row_mm=0.7, **tags
):
    """A series of hu.shape[2] slices 3 mm apart, with pixels of 0.7 mm along a row, 0.8 mm along a column."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    heights_mm = [3.0 * k for k in range(hu.shape[2])] if heights_mm is None else heights_mm
    for k, height_mm in enumerate(heights_mm):
        image = sitk.GetImageFromArray(hu[:, :, k].T[None])
        position_mm = np.array([-20.0, 35.5, -100.0]) + height_mm * NORMAL
        values = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{k + 1}",
            "0008|103e": description,
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0020|0013": "1",
            "0020|0032": "\\".join(f"{v:.6f}" for v in position_mm),
            "0020|0037": "\\".join(f"{v:.6f}" for v in (*ROW, *COLUMN)),
            "0028|1052": "-1024",
            "0028|1053": "1",
            **{tag.replace("_", "|"): value for tag, value in tags.items()},
        }
        image.SetSpacing((row_mm, 0.8, 1.0))  # written as 0028|0030, Pixel Spacing
        for tag, value in values.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / (names[k] if names else f"{uid}_{k:02}.dcm")))
        kept = locale.setlocale(locale.LC_ALL)
        writer.Execute(image)  # GDCM's writer (not its reader) leaves the process in the C locale: no UTF-8
        locale.setlocale(locale.LC_ALL, kept)
    return folder


def expected_affine():
    lps = np.column_stack([0.7 * ROW, 0.8 * COLUMN, 3.0 * NORMAL])
    return np.diag([-1, -1, 1, 1]) @ nib.affines.from_matvec(lps, [-20.0, 35.5, -100.0])


@pytest.mark.parametrize("file_names", [None, ["f.dcm", "b", "d.ima", "a", "g.dcm", "c", "e"]], ids=["sorted", "mixed"])
def test_slices_are_sorted_by_position_whatever_their_names(tmp_path, file_names):
    scan = opened(write_slices(tmp_path / "series", names=file_names))
    assert scan.shape == DICOM_HU.shape and scan.warnings == []
    np.testing.assert_allclose(scan.affine, expected_affine(), atol=1e-5)
    np.testing.assert_array_equal(joined(scan), DICOM_HU)
    np.testing.assert_array_equal(joined(scan, thickness=3), DICOM_HU)
    np.testing.assert_array_equal(joined(scan, np.s_[2:5, 1:, 3:6]), DICOM_HU[2:5, 1:, 3:6])


def test_dicom_and_nifti_of_one_scan_are_one(tmp_path):
    dicom = opened(write_slices(tmp_path / "series"))
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    sitk.WriteImage(image, tmp_path / "series.nii.gz")  # an independent way from DICOM to NIfTI
    nifti = opened(tmp_path / "series.nii.gz")
    np.testing.assert_allclose(dicom.affine, nifti.affine, atol=1e-4)
    np.testing.assert_array_equal(joined(dicom), joined(nifti))


def test_a_mask_of_a_dicom_scan_lies_on_its_grid(tmp_path):
    scan = opened(write_slices(tmp_path / "series"))
    scan.save((DICOM_HU > 0).astype(np.uint8), tmp_path / "mask.nii.gz")
    saved = nib.load(tmp_path / "mask.nii.gz")
    assert (saved.header["qform_code"], saved.header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(saved.get_qform(), expected_affine(), atol=1e-4)
    np.testing.assert_allclose(saved.get_sform(), expected_affine(), atol=1e-4)
    np.testing.assert_array_equal(np.asanyarray(saved.dataobj), DICOM_HU > 0)


def test_the_longest_series_is_taken_and_the_others_named(tmp_path):
    write_slices(tmp_path, CT[:, :, 20:22], uid="1.2.1", description="Scout", **{"0020_0037": "1\\0\\0\\0\\0\\-1"})
    write_slices(tmp_path, CT[:, :, 10:15], uid="1.2.2", description="")
    write_slices(tmp_path, uid="1.2.9")
    scan = opened(tmp_path)
    np.testing.assert_array_equal(joined(scan), DICOM_HU)
    assert scan.warnings == [f"{tmp_path}: 2 other series left out: 1.2.2 (5 slices), Scout (2 slices)"]


def test_a_description_in_another_encoding_can_be_printed(tmp_path):
    write_slices(tmp_path)
    write_slices(tmp_path, CT[:, :, :1], uid="1.2.4", description="Wirbelsaule", names=["other"])
    other = tmp_path / "other"
    other.write_bytes(other.read_bytes().replace(b"Wirbelsaule", b"Wirbels\xe4ule"))
    assert "Wirbels?ule (1 slices)" in opened(tmp_path).warnings[0].encode().decode()


def test_other_files_beside_the_slices_are_passed_over(tmp_path):
    write_slices(tmp_path)
    (tmp_path / "readme.txt").write_text("no slice", encoding="utf-8")
    (tmp_path / ".hidden").write_text("no slice", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    assert opened(tmp_path).warnings == []
    (tmp_path / "broken.dcm").write_bytes((tmp_path / "1.2.3_00.dcm").read_bytes()[:-30])
    scan = opened(tmp_path)
    np.testing.assert_array_equal(joined(scan), DICOM_HU)
    assert scan.warnings == [f"{tmp_path}: 1 DICOM files can't be read as slices, broken.dcm the first"]


@pytest.mark.parametrize(
    ("heights_mm", "words"),
    [
        ([0, 3, 6, 12, 15], r"slice missing between z = -94\.0 and -88\.0 mm \(spacing 3\.0, gap 6\.0\)"),
        ([0, 3, 6, 9, 11], r"slices too close between z = -91\.0 and -89\.0 mm \(spacing 3\.0, gap 2\.0\)"),
        ([0, 3, 6, 3, 9], r"1\.2\.3_01\.dcm and 1\.2\.3_03\.dcm lie on one position"),
        ([5, 5, 5, 5, 5], "lie on one position"),
        ([0, 0, 3, 3, 6, 6], "lie on one position"),
        ([0, 3, 6], "only 3 slices along K"),
        ([0], "only 1 slices along K"),
    ],
)
def test_slices_that_make_no_even_stack_are_refused(tmp_path, heights_mm, words):
    write_slices(tmp_path, heights_mm=heights_mm)
    with pytest.raises(UserError, match=rf"^{tmp_path}: .*{words}"):
        opened(tmp_path)


def test_a_spacing_that_varies_a_little_is_taken(tmp_path):
    scan = opened(write_slices(tmp_path, heights_mm=[0, 3.1, 6, 9.05, 12]))
    np.testing.assert_allclose(scan.affine, expected_affine(), atol=1e-5)


@pytest.mark.parametrize(
    ("hu", "options"),
    [
        (CT[:, :-1, :1], {}),
        (CT[:, :, :1], {"0020_0037": "1\\0\\0\\0\\1\\0"}),
        (CT[:, :, :1], {"row_mm": 0.8}),
    ],
    ids=["size", "orientation", "spacing"],
)
def test_slices_that_differ_are_refused(tmp_path, hu, options):
    write_slices(tmp_path)
    write_slices(tmp_path, hu, heights_mm=[21], names=["z.dcm"], **options)
    with pytest.raises(UserError, match=r"z\.dcm: size, spacing or orientation differ from 1\.2\.3_00\.dcm"):
        opened(tmp_path)


def test_a_folder_without_a_readable_slice_is_refused(tmp_path):
    (tmp_path / "a.dcm").write_text("no slice", encoding="utf-8")
    (source,) = find_scans([str(tmp_path)])
    with pytest.raises(UserError, match=f"{tmp_path}: no DICOM slice can be read"):
        open_scan(source)


def test_a_slice_that_breaks_after_opening_is_named(tmp_path):
    scan = opened(write_slices(tmp_path))
    broken = tmp_path / "1.2.3_04.dcm"
    broken.write_bytes(broken.read_bytes()[:-30])
    assert joined(scan, np.s_[:, :, :4]).shape[2] == 4
    with pytest.raises(UserError, match=r"1\.2\.3_04\.dcm: voxels can't be read"):
        joined(scan)


def test_reading_dicom_leaves_the_locale_alone(tmp_path):
    write_slices(tmp_path)
    before = locale.setlocale(locale.LC_ALL)
    joined(opened(tmp_path))
    assert locale.setlocale(locale.LC_ALL) == before


# Finding


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def touch_dicom(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(128) + b"DICM")


def found(*inputs):
    return [source.path for source in find_scans([str(text) for text in inputs])]


def test_files_and_folders_of_files(tmp_path):
    touch(tmp_path / "b.nii.gz", tmp_path / "a.nii", tmp_path / "c.txt", tmp_path / "._b.nii.gz", tmp_path / "d.dcm")
    touch(tmp_path / "sub" / "e.nii.gz")
    assert found(tmp_path) == [tmp_path / "a.nii", tmp_path / "b.nii.gz"]
    assert found(tmp_path / "b.nii.gz", tmp_path / "c.txt", tmp_path / "a.nii") == [
        tmp_path / name for name in ("b.nii.gz", "c.txt", "a.nii")
    ]
    assert names(find_scans([str(tmp_path)])) == ["a", "b"]


def test_masks_beside_scans_are_left_out_unless_named(tmp_path):
    names = ["a_ct.nii.gz", "a_seg-vert_msk.nii.gz", "a_ct_vertebrae.nii.gz", "b.nii", "b_mask.nii"]
    touch(*(tmp_path / name for name in names))
    assert [source.path.name for source in find_scans([str(tmp_path)])] == ["a_ct.nii.gz", "b.nii"]
    assert len(find_scans([str(tmp_path / "b_mask.nii")])) == 1


def test_dicom_folders(tmp_path):
    one, other = tmp_path / "cts" / "one", tmp_path / "cts" / "other.v2"
    touch_dicom(one / "IM2", one / "IM1", tmp_path / "cts" / "DICOMDIR")
    touch(other / "x.DCM", tmp_path / "cts" / "notes" / "readme.txt", tmp_path / "cts" / "third" / "ct.nii.gz")
    touch_dicom(tmp_path / "cts" / "third" / "IM1", tmp_path / "cts" / "deep" / "er" / "IM1")
    assert found(one) == [one]
    assert found(one / "IM1", one / "IM2") == [one]  # as a shell expands one/*
    assert found(tmp_path / "cts") == [one, other, tmp_path / "cts" / "third" / "ct.nii.gz"]
    assert names(find_scans([str(tmp_path / "cts")])) == ["one", "other.v2", "ct"]


def test_patterns(tmp_path):
    touch(tmp_path / "b" / "ct.nii.gz", tmp_path / "a" / "ct.nii.gz", tmp_path / "a" / "note.txt")
    touch_dicom(tmp_path / "d" / "IM1", tmp_path / "d" / "IM2")
    (tmp_path / "empty").mkdir()
    cts = [tmp_path / "a" / "ct.nii.gz", tmp_path / "b" / "ct.nii.gz"]
    assert found(tmp_path / "*" / "*.nii.gz") == cts
    assert found(tmp_path / "**" / "*.nii.gz") == cts
    assert found(tmp_path / "?") == [*cts, tmp_path / "d"]
    assert found(tmp_path / "*") == [*cts, tmp_path / "d"]
    assert found(tmp_path / "*" / "*") == [*cts, tmp_path / "d"]
    touch(tmp_path / "scan[1].nii.gz")
    assert found(tmp_path / "scan[1].nii.gz") == [tmp_path / "scan[1].nii.gz"]


def test_order_is_kept_and_duplicates_are_dropped(tmp_path, monkeypatch):
    touch(*(tmp_path / f"{name}.nii.gz" for name in "abc"))
    monkeypatch.chdir(tmp_path)
    sources = find_scans(["c.nii.gz", ".", str(tmp_path / "a.nii.gz"), "*.nii.gz"])
    assert names(sources) == ["c", "a", "b"]


def test_the_name_of_the_folder_that_one_is_in(tmp_path, monkeypatch):
    touch_dicom(tmp_path / "patient" / "IM1")
    monkeypatch.chdir(tmp_path / "patient")
    assert names(find_scans(["."])) == ["patient"]


def test_like_names_are_told_apart(tmp_path):
    touch(*(tmp_path / folder / "scan.nii.gz" for folder in ("a", "b", "x/c", "y/c")), tmp_path / "b_scan.nii")
    touch(tmp_path / "a" / "scan.nii", tmp_path / "a" / "alone.nii")
    texts = ["a/scan.nii.gz", "b/scan.nii.gz", "x/c/scan.nii.gz", "y/c/scan.nii.gz", "a/alone.nii"]
    sources = find_scans([str(tmp_path / text) for text in texts])
    assert names(sources) == ["a_scan", "b_scan", "x_c_scan", "y_c_scan", "alone"]
    more = names(find_scans([str(tmp_path / text) for text in [*texts, "b_scan.nii", "a/scan.nii"]]))
    assert len(set(more)) == 7 and all(name.rstrip("_2").endswith(("scan", "alone")) for name in more)
    touch_dicom(tmp_path / "p1" / "CT" / "IM1", tmp_path / "p2" / "CT" / "IM1")
    assert names(find_scans([str(tmp_path / "p1" / "CT"), str(tmp_path / "p2" / "CT")])) == ["p1_CT", "p2_CT"]


def test_inputs_without_a_scan_are_refused(tmp_path):
    touch(tmp_path / "good.nii.gz", tmp_path / "folder" / "sub" / "note.txt")
    (tmp_path / "empty").mkdir()
    for name, words in [
        ("absent", "no such file or folder"),
        ("absent.nii.gz", "no such file or folder"),
        ("empty", "no scan found here"),
        ("folder", "no scan found here"),
        ("*.dcm", "no scan found here"),
    ]:
        with pytest.raises(UserError) as error:
            find_scans([str(tmp_path / "good.nii.gz"), str(tmp_path / name)])
        assert str(error.value).startswith(f"{tmp_path / name}: {words}; give NIfTI files")


def test_sources_and_scans_can_go_to_another_process(tmp_path):
    write(tmp_path / "ct.nii.gz")
    write_slices(tmp_path / "series")
    for source in find_scans([str(tmp_path / "ct.nii.gz"), str(tmp_path / "series")]):
        again = pickle.loads(pickle.dumps(source))
        assert again == source
        scan = open_scan(again)
        np.testing.assert_array_equal(joined(pickle.loads(pickle.dumps(scan))), joined(scan))


def test_a_mask_keeps_its_grid(tmp_path):
    affine = np.array([[0.8, 0.1, 0, -30], [-0.1, 0.8, 0, 12], [0, 0, 2, 5], [0, 0, 0, 1.0]])
    mask = np.arange(24).reshape(2, 3, 4).astype(np.uint8)
    save_mask(mask, affine, tmp_path / "test" / "a.nii.gz")
    image = nib.load(tmp_path / "test" / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
    assert image.get_data_dtype() == np.uint8 and image.header.get_xyzt_units()[0] == "mm"
    for found in (image.get_sform(), image.affine):
        np.testing.assert_allclose(found, affine, atol=1e-5)
