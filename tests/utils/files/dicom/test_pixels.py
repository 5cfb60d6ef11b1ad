"""What the pixels of a slice mean: stored words to HU, values computed by hand."""

import base64

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from verse_utils.errors import UserError

U16, I16, U8, U32 = np.uint16, np.int16, np.uint8, np.uint32
BITS_12 = {"BitsStored": 12, "HighBit": 11}
SIGNED = {"PixelRepresentation": 1}


def written(dicom, folder, word, dtype, **tags):
    """Four slices whose first pixel is a word; the others hold 1000."""
    words = np.full((11, 9), 1000, dtype) if dtype != U8 else np.full((11, 9), 100, dtype)
    words[0, 0] = word
    return dicom.write_series(folder, dicom.HU[..., :4], words=words, **tags)


@pytest.mark.parametrize(
    ("word", "dtype", "tags", "hu"),
    [
        (1064, U16, {}, 40),
        (0, U16, {}, -1024),
        (1064, U16, {"RescaleType": "HU"}, 40),
        (1064, U16, {"RescaleType": " hu "}, 40),
        (532, U16, {"RescaleSlope": 2}, 40),
        (10, U16, {"RescaleSlope": 0.5, "RescaleIntercept": -0.5}, 4),  # 4.5, rounded to even
        (65535, U16, {}, 32767),  # clipped to int16
        (-984, I16, {**SIGNED, "RescaleIntercept": 0}, -984),
        (-1, I16, SIGNED, -1025),
        # 12 bits: what lies above them is an overlay, not the value.
        (0xF428, U16, BITS_12, 40),
        (0xF428, U16, {**BITS_12, **SIGNED}, 1064 - 1024),
        (0x0C28, U16, {**BITS_12, **SIGNED, "RescaleIntercept": 0}, -984),  # 0xC28 is -984 in 12 bits
        (0x4280, U16, {"BitsStored": 12, "HighBit": 15}, 40),  # in the upper bits
        (200, U8, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "RescaleSlope": 8}, 576),
        (0xFF, U8, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, **SIGNED}, -1025),
        (70000, U32, {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, "RescaleSlope": 0.01}, -324),
        (1064, U16, {"PhotometricInterpretation": "MONOCHROME1"}, 40),  # how it is shown, not what it means
    ],
)
def test_words_become_hu(dicom, tmp_path, word, dtype, tags, hu):
    scan = dicom.opened(written(dicom, tmp_path, word, dtype, **tags))
    assert dicom.voxels(scan)[0, 0, 0] == hu
    # One may say that so even values are unlike a CT.
    assert ["HU or more" in line for line in scan.warnings[1:]] == [True] * (hu == 32767)


@pytest.mark.parametrize(
    ("word", "dtype", "tags", "hu"),
    [
        (63536, U16, {"PixelPaddingValue": 63536}, -1024),
        (63535, U16, {"PixelPaddingValue": 63536}, 32767),
        (-2000, I16, {**SIGNED, "PixelPaddingValue": -2000}, -1024),
        (-2000, I16, {**SIGNED, "PixelPaddingValue": ("US", 63536)}, -1024),  # written as if it were unsigned
        # GE: words of 12 bits, padding of 16.
        (0xF830, U16, {**BITS_12, **SIGNED, "PixelPaddingValue": -2000}, -1024),
        (0x0830, U16, {**BITS_12, "PixelPaddingValue": 63536}, 0x830 - 1024),
        (4000, U16, {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 4095}, -1024),
        (3000, U16, {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 3000}, -1024),
        (2999, U16, {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 4095}, 1975),
        (-5, I16, {**SIGNED, "PixelPaddingValue": -10, "PixelPaddingRangeLimit": 0}, -1024),
    ],
)
def test_padding_is_air(dicom, tmp_path, word, dtype, tags, hu):
    hu_IJK = dicom.voxels(dicom.opened(written(dicom, tmp_path, word, dtype, **tags)))
    assert hu_IJK[0, 0, 0] == hu and hu_IJK[1, 1, 1] == 1000 - 1024


def lut(dicom, first, numbers, **tags):
    descriptor, data = [len(numbers), first, 16], np.array(numbers, U16).tobytes()
    return dicom.item(**{"LUTDescriptor": descriptor, "LUTData": data, "ModalityLUTType": "HU", **tags})


NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}


def test_a_modality_lut_is_looked_up(dicom, tmp_path):
    table = lut(dicom, 999, [7, 30, 500])  # of 999, 1000, 1001; what lies outside takes the nearest
    words = np.full((11, 9), 1000, U16)
    words[0, :3] = 999, 1001, 5000
    scan = dicom.opened(dicom.write_series(tmp_path, words=words, ModalityLUTSequence=table, **NO_RESCALE))
    np.testing.assert_array_equal(dicom.voxels(scan)[:4, 0, 0], [7, 500, 500, 30])
    assert len({id(one.meaning.lut.table) for one in scan.series.stack.slices}) == 1  # it may have 65536 entries


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (NO_RESCALE, "no Rescale Slope or no Rescale Intercept"),
        ({"RescaleSlope": None}, "no Rescale Slope or no Rescale Intercept"),
        ({"RescaleIntercept": ""}, "no Rescale Slope or no Rescale Intercept"),
        ({"RescaleSlope": 0}, "Rescale Slope 0"),
        ({"RescaleType": "OD"}, "Rescale Type OD, not HU"),
        ({"RescaleType": "MGML"}, "Rescale Type MGML, not HU"),
        ({"RescaleType": "HU_MOD"}, "Rescale Type HU_MOD, not HU"),
        ({"MultienergyCTAcquisition": "YES"}, "Rescale Type MISSING, not HU"),
        ({"PixelPaddingRangeLimit": 3}, "a Pixel Padding Range Limit without a Pixel Padding Value"),
        ({"BitsStored": 17, "HighBit": 16}, "17 bits of 16"),
        ({"HighBit": 10}, "16 bits of 16, the highest 10"),
        ({"PixelRepresentation": 2}, "representation 2"),
        ({"BitsStored": None}, "no"),
        ({"lut": {}, "RescaleSlope": 1}, "both a Modality LUT and a rescale"),
        ({"lut": {"ModalityLUTType": "US"}, **NO_RESCALE}, "Modality LUT Type US, not HU"),
        ({"lut": {"ModalityLUTType": "OD"}, **NO_RESCALE}, "Modality LUT Type OD, not HU"),
        ({"lut": {"LUTDescriptor": [4, 0, 16]}, **NO_RESCALE}, "Modality LUT is not one whole table"),
        ({"lut": {"LUTDescriptor": [4, 0]}, **NO_RESCALE}, "not enough values"),
    ],
)
def test_values_that_may_not_be_hu_are_refused(dicom, tmp_path, tags, words):
    tags = dict(tags)
    if "lut" in tags:
        tags["ModalityLUTSequence"] = lut(dicom, 0, [1, 2, 3], **tags.pop("lut"))
    dicom.write_series(tmp_path, **tags)
    with pytest.raises(UserError, match=rf"{tmp_path}/IM000\.dcm: .*{words}.*; export the CT again, in HU"):
        dicom.opened(tmp_path)


def test_an_unspecified_unit_is_told(dicom, tmp_path):
    """ITK's writer says so of HU, too."""
    scan = dicom.opened(dicom.write_series(tmp_path, RescaleType="US"))
    assert [f"{tmp_path}: Rescale Type US (unspecified)" in line for line in scan.warnings] == [True]


def test_each_slice_has_its_own_rescale(dicom, tmp_path):
    dicom.write_series(tmp_path)
    odd = dicom.read(tmp_path / "IM003.dcm")
    odd.RescaleSlope, odd.RescaleIntercept = 2, -2048
    odd.save_as(tmp_path / "IM003.dcm")
    expected = dicom.HU.copy()
    expected[..., 3] = 2 * (dicom.HU[..., 3].astype(int) + 1024) - 2048
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path)), expected)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.name
)
def test_plain_transfer_syntaxes(dicom, tmp_path, syntax):
    dicom.write_series(tmp_path, syntax=syntax)
    if syntax == ExplicitVRBigEndian:
        for path in tmp_path.iterdir():
            ds = dicom.read(path)
            ds.PixelData = np.frombuffer(ds.PixelData, U16).byteswap().tobytes()
            ds.save_as(path)
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path)), dicom.HU)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"BitsStored": 12, "HighBit": 11},
        {**SIGNED, "RescaleIntercept": 0},
        {**SIGNED, **BITS_12, "RescaleIntercept": 0},
    ],
    ids=["16 bits", "12 bits", "signed", "12 bits, signed"],
)
def test_compressed_transfer_syntaxes(dicom, tmp_path, syntax, tags):
    expected = dicom.HU[..., :4]
    for k in range(4):
        words = expected[..., k].T + (0 if "PixelRepresentation" in tags else 1024)
        ds = dicom.slice_dataset(
            expected[..., k], (0, 0, 3 * k), words=words.astype(I16 if "PixelRepresentation" in tags else U16), **tags
        )
        ds.compress(syntax)
        ds.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path)), expected)


@pytest.fixture
def htj2k(dicom, tmp_path):
    """(folder, HU) of four like slices. OpenJPH encoded them, as no dependency of this project does."""
    packed = base64.b85decode(
        "|4;u>04YEK0000800008000000000000008000080000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdTm"
        "wh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000Qvd<~lfVEaM+FCT0002M0206e5`fwOhjaiC0f%$|zyK3K022U={Qv@V0EUJDLs"
        "S6304IO|RDdEPpr^uh0J_%tzyJa4wgCUx"
    )
    words = np.add.outer(np.arange(8) * 30, np.arange(8) * 10).astype(U16)
    for k in range(4):
        ds = dicom.slice_dataset(words, (0, 0, 3 * k), words=words, syntax=HTJ2KLossless)
        ds.PixelData = encapsulate([packed])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    return tmp_path, np.repeat(words.T[..., None].astype(I16) - 1024, 4, axis=2)


def test_high_throughput_jpeg_2000(dicom, htj2k):
    folder, hu = htj2k
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(folder)), hu)


@pytest.mark.parametrize(("number", "words"), [("110", "JPEG XL"), ("999", r"transfer syntax 1\.2\.840\.10008.*999")])
def test_a_transfer_syntax_that_nothing_here_decodes_is_named(dicom, htj2k, number, words):
    folder, _ = htj2k
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(HTJ2KLossless.encode(), f"{HTJ2KLossless[:-3]}{number}".encode()))
    with pytest.raises(
        UserError, match=rf"0\.dcm: coded in {words}, which can't be decoded; export the CT uncompressed"
    ):
        dicom.opened(folder)


def test_jpeg_lossless(dicom, tmp_path):
    """What many scanners and archives compress by; GDCM writes it here."""
    gdcm = pytest.importorskip("gdcm")
    dicom.write_series(tmp_path / "plain", BitsStored=12, HighBit=11)
    (tmp_path / "packed").mkdir()
    for path in sorted((tmp_path / "plain").iterdir()):
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(tmp_path / "packed" / path.name))
        assert writer.Write()
    assert dicom.read(tmp_path / "packed" / "IM000.dcm").file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    np.testing.assert_array_equal(dicom.voxels(dicom.opened(tmp_path / "packed")), dicom.HU)
