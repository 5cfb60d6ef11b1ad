import shutil
from functools import partial
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from utils.dataset_facts.case_facts import (
    BIN_HU,
    FIRST_EDGE_HU,
    LAST_EDGE_HU,
    FailedCase,
    StoredName,
    facts_or_failure,
    scan_facts,
    stored_facts,
)
from utils.files.h5_cases import H5Cases
from verse_utils.cases import Case, find_cases

# Stored as PIR: I runs backward in steps of 2 mm, J downward in steps of 5, K to the right in steps of 10.
AFFINE = np.array([[0.0, 0, 10, 3], [-2, 0, 0, 4], [0, -5, 0, 5], [0, 0, 0, 1]])
SHAPE = (11, 8, 40)  # K takes three slabs
VOXEL_ML = 0.1


@pytest.fixture
def made(tmp_path):
    """A case, its HU and its labels: 24 voxels of L1, 10 of T12, 2 of T13, 5 of the sacrum."""
    image_hu = np.random.default_rng(0).integers(-1200, 2000, SHAPE).astype(np.int16)
    image_hu[0, 0, :3] = -2000, 3071, 5000
    label = np.zeros(SHAPE, np.uint8)
    label[1:4, 2, 12:20] = 20
    label[1, 3, 25:35] = 19
    label[5, 5, 20:22] = 28
    label[6, 6, 20:25] = 26
    image_path, mask_path = tmp_path / "sub-a_ct.nii.gz", tmp_path / "sub-a_seg-vert_msk.nii.gz"
    nib.save(nib.Nifti1Image(image_hu, AFFINE), image_path)
    nib.save(nib.Nifti1Image(label.astype(np.float64), AFFINE), mask_path)
    return Case("sub-a", "sub-a", "training", image_path, mask_path), image_hu, label


def assert_hu(facts, values_hu):
    edges_hu = np.arange(FIRST_EDGE_HU, LAST_EDGE_HU + 1, BIN_HU)
    counts, _ = np.histogram(values_hu.clip(FIRST_EDGE_HU, LAST_EDGE_HU - 1), edges_hu)
    assert facts.histogram == counts.tolist()
    assert (facts.voxels, facts.min, facts.max) == (values_hu.size, values_hu.min(), values_hu.max())
    percentiles = np.percentile(values_hu, [1, 50, 99], method="inverted_cdf")
    assert (facts.p1, facts.median, facts.p99) == tuple(percentiles)
    assert facts.mean == pytest.approx(values_hu.mean(), abs=0.06)


def test_a_made_scan(made):
    case, image_hu, label = made
    facts = scan_facts(case)
    assert (facts.case_id, facts.patient, facts.split, facts.has_centroids) == ("sub-a", "sub-a", "training", False)
    assert facts.orientation == "PIR"
    assert facts.size_vox == [40, 11, 8]
    assert facts.spacing_mm == [10, 2, 5]
    assert facts.field_of_view_mm == [400, 22, 40]
    assert list(facts.volume_ml.items()) == [("T12", 1.0), ("T13", 0.2), ("L1", 2.4)]  # from head to foot
    is_bone = np.isin(label, (19, 20, 28))
    assert_hu(facts.hu_in_bone, image_hu[is_bone])
    assert_hu(facts.hu_outside, image_hu[~is_bone])
    assert facts.hu_outside.histogram[-1] == 2 and facts.hu_outside.min == -2000


def test_a_scan_without_vertebrae_has_no_bone(made):
    case, image_hu, _ = made
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), case.mask_path)
    facts = scan_facts(case)
    assert facts.volume_ml == {} and facts.hu_in_bone is None
    assert_hu(facts.hu_outside, image_hu)


def test_what_an_h5_stores_without_its_padding(phantom_root, segmentation_h5, heatmap_h5):
    for h5_path in (segmentation_h5, heatmap_h5):
        store = H5Cases(h5_path)
        for case in find_cases(phantom_root, 19):
            facts, scan = stored_facts(StoredName(case.split, case.case_id), h5_path), scan_facts(case)
            for name in ("patient", "orientation", "size_vox", "spacing_mm", "field_of_view_mm"):
                assert getattr(facts, name) == getattr(scan, name), name
            assert facts.has_centroids is None and scan.has_centroids is True
            image_hu, label = store.read(case.split, case.case_id)
            grid = store.case(case.split, case.case_id).grid
            inside = grid.forward(np.ones(grid.source_shape, np.uint8), fill=0, nearest=True) > 0
            assert_hu(facts.hu_in_bone, image_hu[label > 0])
            assert_hu(facts.hu_outside, image_hu[inside & (label == 0)])
            ml = np.prod(grid.spacing_mm) / 1000
            assert sum(facts.volume_ml.values()) == pytest.approx((label > 0).sum() * ml, rel=0.01)
            if h5_path == heatmap_h5:
                assert not inside.all()


def _truncate_ct(case):
    case.image_path.write_bytes(case.image_path.read_bytes()[:-900])
    return case.image_path.name, "can't be read"


def _break_labels(case):
    nib.save(nib.Nifti1Image(np.full(SHAPE, 0.5, np.float32), AFFINE), case.mask_path)
    return case.mask_path.name, "not whole numbers"


def _break_grid(case):
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE + np.eye(4, k=3)), case.mask_path)
    return case.mask_path.name, "its grid lies"


def _break_contrast(case):
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE), case.image_path)
    return case.image_path.name, "constant"


@pytest.mark.parametrize("damage", [_truncate_ct, _break_labels, _break_grid, _break_contrast])
def test_a_broken_scan_is_named(made, damage):
    case = made[0]
    words = damage(case)
    failure = facts_or_failure(case, scan_facts)
    assert isinstance(failure, FailedCase) and (failure.split, failure.case_id) == ("training", "sub-a")
    assert all(word in failure.error for word in words) and "\n" not in failure.error


def test_a_broken_case_of_an_h5_is_named(segmentation_h5, tmp_path):
    h5_path = Path(shutil.copy(segmentation_h5, tmp_path))
    case_id = H5Cases(h5_path).case_ids("test")[0]
    with h5py.File(h5_path) as file:
        chunk = file[f"test/{case_id}/image"].id.get_chunk_info(0)
    with h5_path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))
    failure = facts_or_failure(StoredName("test", case_id), partial(stored_facts, h5_path=h5_path))
    assert isinstance(failure, FailedCase) and "\n" not in failure.error
    assert failure.error.startswith(f"{h5_path}: test/{case_id} can't be read")
