import gzip

import nibabel as nib
import numpy as np
import pytest

from utils.files.find_scans import ScanSource, find_scans
from utils.files.scans import open_scan, save_mask
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
        "verse_utils.images.to_hu", lambda values, path: (sizes.append(values.shape[2]), values.astype(np.int16))[1]
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
    with pytest.raises(UserError, match=rf"ct\.{ending}: voxels can't be read .*; fetch the file again") as error:
        opened(path)  # before memory is taken for what isn't there
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("thickness", [8, 16, 99])
def test_a_flipped_bit_is_found_with_the_last_slab(tmp_path, thickness):
    path = write(tmp_path / "ct.nii.gz", np.random.default_rng(0).integers(-999, 999, SHAPE).astype(np.int16))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    scan = opened(path)
    with pytest.raises(UserError, match=r"ct\.nii\.gz: voxels can't be read .*; fetch the file again"):
        joined(scan, thickness=thickness)


def test_a_spacing_of_zero_is_refused(tmp_path):
    image = nib.Nifti1Image(CT, None)
    image.set_sform(np.diag([0.0, 1, 1, 1]), code=1)
    nib.save(image, tmp_path / "flat.nii.gz")
    with pytest.raises(UserError, match=r"flat\.nii\.gz.*spacing of zero"):
        opened(tmp_path / "flat.nii.gz")


@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 0), (1, 1)])
def test_the_sign_of_a_spacing_means_nothing(tmp_path, qform, sform):
    affine = oriented("LPS")
    path = write(tmp_path / "ct.nii", affine=affine, qform=qform, sform=sform)
    expected = opened(path).affine
    content = bytearray(path.read_bytes())
    content[80:92] = (-np.frombuffer(content[80:92], "<f4")).tobytes()
    path.write_bytes(content)
    np.testing.assert_array_equal(opened(path).affine, expected)


def test_sform_and_qform_that_differ_are_told(tmp_path):
    affine = oriented("LPS")
    image = nib.Nifti1Image(CT, affine)
    image.set_sform(affine, code=1)
    for shift_mm, told in ((0.1, False), (20, True)):
        moved = affine.copy()
        moved[0, 3] += shift_mm
        image.set_qform(moved, code=1)
        nib.save(image, tmp_path / "ct.nii")
        scan = opened(tmp_path / "ct.nii")
        np.testing.assert_allclose(scan.affine, affine, atol=1e-4)
        assert ["its sform and qform lie up to 20.0 mm apart" in line for line in scan.warnings] == [True] * told


def test_a_damaged_qform_beside_a_sform_is_told(tmp_path):
    path = write(tmp_path / "ct.nii", affine=oriented("LPS"))
    content = bytearray(path.read_bytes())
    content[256:268] = np.array([0.9, 0.9, 0.9], "<f4").tobytes()
    path.write_bytes(content)
    scan = opened(path)
    np.testing.assert_allclose(scan.affine, oriented("LPS"), atol=1e-4)
    assert scan.warnings == [f"{path}: its qform is damaged; the sform is taken, others take the qform"]


def test_values_beyond_any_tissue_are_told(tmp_path):
    """Seen: a voxel of -1025 HU, stored unsigned with an intercept of -1024, is 64511 HU."""
    wrapped = CT.astype(np.float32)
    wrapped[0, 0, 3] = 64511
    scan = opened(write(tmp_path / "ct.nii", wrapped))
    joined(scan)
    assert ["values reach 32767 HU or more" in line for line in scan.warnings] == [True]


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


def test_a_mask_keeps_its_grid(tmp_path):
    affine = np.array([[0.8, 0.1, 0, -30], [-0.1, 0.8, 0, 12], [0, 0, 2, 5], [0, 0, 0, 1.0]])
    mask = np.arange(24).reshape(2, 3, 4).astype(np.uint8)
    save_mask(mask, affine, tmp_path / "test" / "a.nii.gz")
    image = nib.load(tmp_path / "test" / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
    assert image.get_data_dtype() == np.uint8 and image.header.get_xyzt_units()[0] == "mm"
    for found in (image.get_sform(), image.affine):
        np.testing.assert_allclose(found, affine, atol=1e-5)
