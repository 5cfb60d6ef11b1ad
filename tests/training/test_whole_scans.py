"""Whole scans: geometry with oracles in place of networks; what is searched, cleaned and labelled."""

from dataclasses import replace
from functools import lru_cache
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn

from training.checkpoints import NetworkSpec
from training.compute import Compute
from training.trained_model import TrainedModel
from training.whole_scans import Models, Options, segment
from utils.constants import HU_PER_UNIT, HU_RANGE
from utils.scans import ScanSource, open_scan
from verse_utils.phantom import make_phantom, render

THRESHOLD_HU = 100.0  # between soft tissue and bone
ORIENTATIONS = ["".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)]
OBLIQUE = np.linalg.qr(np.array([[1.0, 0.15, -0.1], [-0.15, 1.0, 0.2], [0.1, -0.2, 1.0]]))[0]
OBLIQUE *= np.sign(np.diag(OBLIQUE))
ANATOMY = make_phantom(3, size="tiny").anatomy


class Oracle(nn.Module):
    """Answers with certainty whether a voxel is denser than a threshold."""

    def forward(self, image):
        return (image * HU_PER_UNIT - THRESHOLD_HU) * 10


def oracle(task: str, spacing_mm: float = 1.0, shape=(32, 32, 32)) -> TrainedModel:
    return TrainedModel(
        network=Oracle(),
        spec=NetworkSpec("UNet", 1, 1, shape),
        task=task,
        labels="binary",
        spacing_mm=spacing_mm,
        hu_range=HU_RANGE,
        hu_per_unit=HU_PER_UNIT,
        compute=Compute(torch.device("cpu"), "fp32"),
        name="oracle",
        sha256="",
    )


ORACLES = Models(oracle("segmentation"), oracle("heatmap", shape=(32, 32, 64)))


def save(path: Path, array: np.ndarray, affine: np.ndarray, qform: int = 0, sform: int = 1) -> Path:
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code=qform)
    image.set_sform(affine, code=sform)
    nib.save(image, path)
    return path


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def centre_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.argwhere(mask)).mean(axis=0)


@lru_cache
def scanned(spacing_mm, oblique: bool) -> tuple[np.ndarray, np.ndarray]:
    """The phantom without noise on a RAS grid: HU and affine."""
    shape = tuple(round(size / spacing) for size, spacing in zip((48, 48, 60), spacing_mm, strict=True))
    matrix = (OBLIQUE if oblique else np.eye(3)) * np.asarray(spacing_mm)
    centre = list(ANATOMY.body_pose.values())[len(ANATOMY.body_pose) // 2].origin
    affine = nib.affines.from_matvec(matrix, centre - matrix @ ((np.array(shape) - 1) / 2))
    return render(ANATOMY, affine, shape)[0], affine


def turned(image_hu: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same scan in another stored order."""
    ras = nib.orientations.axcodes2ornt("RAS")
    turn = nib.orientations.ornt_transform(ras, nib.orientations.axcodes2ornt(codes))
    stored = nib.apply_orientation(image_hu, turn)
    return stored, affine @ nib.orientations.inv_ornt_aff(turn, image_hu.shape)


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.7, 0.7, 3)], ids=["isotropic", "anisotropic"])
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_an_oracle_gives_what_its_threshold_gives(tmp_path, codes, spacing_mm, oblique):
    """All that may differ is what two resamplings do."""
    image_hu, affine = turned(*scanned(spacing_mm, oblique), codes)
    assert oblique or "".join(nib.aff2axcodes(affine)) == codes
    scan = open_scan(ScanSource(save(tmp_path / "scan.nii", image_hu, affine), "scan"))
    mask = segment(scan, ORACLES, Options(postprocess="none")).mask
    expected = image_hu > THRESHOLD_HU
    assert mask.dtype == np.uint8 and mask.shape == image_hu.shape
    assert dice(mask > 0, expected) >= 0.95
    assert np.linalg.norm(centre_mm(mask > 0, affine) - centre_mm(expected, affine)) < 0.3
    scan.save(mask, tmp_path / "mask.nii.gz")
    header, saved = nib.load(tmp_path / "scan.nii").header, nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(saved.affine, nib.load(tmp_path / "scan.nii").affine)
    for code in ("qform_code", "sform_code"):
        assert saved.header[code] == header[code]


def test_the_searched_region_is_the_spines():
    """A dense ball in a large scan: only windows in whose middle it lies are read and searched."""
    shape = (90, 90, 120)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    ball = ((index - (30, 40, 70)) ** 2).sum(axis=-1) < 15**2
    image_hu = np.where(ball, 400, -50).astype(np.int16)
    read = []

    class Spy:
        path, affine, warnings = Path("spy"), np.diag([-1.0, -1, 1, 1]), ()

        def __init__(self):
            self.shape = shape

        def slabs(self, region=None):
            if region:
                read.append(region)
            part_hu = image_hu[region or ...]
            return ((k, part_hu[..., k : k + 16]) for k in range(0, part_hu.shape[2], 16))

    found = segment(Spy(), ORACLES, Options(margin_mm=5.0, probabilities=True))
    assert len(read) == 1 and found.region == read[0]
    for axis, centre in zip(found.region, (30, 40, 70), strict=True):
        reach = 15 + 5 + 2 + 2  # radius, margin, a voxel of the view, the smoothing's edge
        assert centre - reach - 32 < axis.start < centre - 15 and centre + 15 < axis.stop < centre + reach + 32
    assert dice(found.mask > 0, ball) > 0.99
    assert ((found.probabilities > 0.5) == (found.mask > 0)).all()
    everywhere = segment(Spy(), Models(ORACLES.segmenter))
    assert dice(everywhere.mask > 0, ball) > 0.99
    assert everywhere.region == tuple(slice(0, size) for size in shape)


def test_no_spine_is_said(tmp_path):
    image_hu = np.full((40, 40, 40), -900, np.int16)
    image_hu[20, 20, 20] = 0
    found = segment(save(tmp_path / "a.nii", image_hu, np.eye(4)), ORACLES)
    assert not found.mask.any() and found.region is None
    assert any("no spine found" in warning and "--no_localiser" in warning for warning in found.warnings)


@pytest.mark.parametrize(("how", "blobs"), [("none", 3), ("blobs", 2), ("largest", 1)])
def test_postprocessing_drops_blobs(tmp_path, how, blobs):
    image_hu = np.full((50, 50, 120), -50, np.int16)
    for start, stop in ((5, 30), (50, 71), (100, 106)):  # 25³, 21³ = 9.3 cm³, 6³
        image_hu[5 : 5 + stop - start, 5 : 5 + stop - start, start:stop] = 500
    path = save(tmp_path / "a.nii", image_hu, np.eye(4))
    mask = segment(path, Models(ORACLES.segmenter), Options(postprocess=how)).mask
    assert scipy.ndimage.label(mask)[1] == blobs


def test_classes_become_their_labels(tmp_path):
    """A segmenter of single vertebrae gives VerSe's numbers."""

    class Numbers(nn.Module):
        def forward(self, image):
            classes = torch.full((*image.shape[:1], 27, *image.shape[2:]), -9.0)
            hu = image[:, 0] * HU_PER_UNIT
            for index, low in ((0, -5000), (19, 100), (20, 300), (21, 500)):  # T12, T13, L1 in anatomical order
                classes[:, index] = (hu - low) / 10 if low < 0 else torch.where(hu > low, 1000.0 + low, -9.0)
            return classes

    spec = replace(ORACLES.segmenter.spec, out_channels=27)
    segmenter = replace(ORACLES.segmenter, network=Numbers(), spec=spec, labels="vertebrae")
    image_hu = np.full((40, 40, 90), -50, np.int16)
    for value, start in ((200, 0), (400, 30), (600, 60)):
        image_hu[5:35, 5:35, start + 3 : start + 27] = value
    mask = segment(save(tmp_path / "a.nii", image_hu, np.eye(4)), Models(segmenter)).mask
    assert [np.median(mask[10:30, 10:30, k]) for k in (15, 45, 75)] == [19, 28, 20]
