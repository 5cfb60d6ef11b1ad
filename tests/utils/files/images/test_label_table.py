import nibabel as nib
import numpy as np
import pytest

from utils.files.find_scans import find_scans
from utils.files.images.label_table import label_table, names_of_labels
from utils.files.scans import open_scan
from verse_utils.labels import VERTEBRA_NAMES


@pytest.fixture
def scan_path(tmp_path):
    """A scan whose header tells the patient's name."""
    path = tmp_path / "scan.nii.gz"
    scan = nib.Nifti1Image(np.random.default_rng(0).integers(-900, 900, (20, 20, 20)).astype(np.int16), np.eye(4))
    scan.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"DOE^JANE"))
    nib.save(scan, path)
    return path


@pytest.mark.parametrize("names", [VERTEBRA_NAMES, {1: "a <b> & c", 3: "\u00e9"}])
def test_a_mask_holds_the_names_of_its_labels_and_nothing_of_the_scans_header(scan_path, tmp_path, names):
    (source,) = find_scans([str(scan_path)])
    scan, mask = open_scan(source), np.zeros((20, 20, 20), np.uint8)
    mask[5:9] = 3
    scan.save(mask, tmp_path / "mask.nii.gz", names)
    scan.save(mask, tmp_path / "plain.nii.gz")
    read = nib.load(tmp_path / "mask.nii.gz")
    assert names_of_labels(read.header) == names and (read.get_fdata() == mask).all()
    assert len(read.header.extensions) == 1 and read.header.extensions[0].get_code() == 30
    assert not nib.load(tmp_path / "plain.nii.gz").header.extensions


def test_colours_are_shares_of_one():
    table = label_table({1: "C1", 2: "C2"}).text
    assert 'Key="1" Red="0.949" Green="0.333" Blue="0.333" Alpha="1">C1<' in table


@pytest.mark.parametrize("content", [b"DOE^JANE", b"<a><Label Key='x'>C1</Label></a>", b"<a><Label/></a>", b""])
def test_other_extensions_name_nothing(content):
    header = nib.Nifti1Header()
    header.extensions.append(nib.nifti1.Nifti1Extension(30, content))
    assert names_of_labels(header) == {}
