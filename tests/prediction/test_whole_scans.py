"""Whole scans: geometry with oracles in place of networks; what is searched, cleaned and labelled."""

from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage
import torch

from networks.network import Network
from prediction.checkpoints import NetworkSpec, save_checkpoint
from prediction.device import Device
from prediction.options import Options
from prediction.sliding_window import Windows, joined
from prediction.trained_model import TrainedModel
from prediction.whole_scans import Models, load_models, segment
from utils.constants import HU_PER_UNIT
from utils.files.find_scans import ScanSource
from utils.files.scans import open_scan
from utils.intensity import DEFAULT_SCALING, HuScaling
from utils.tasks import HEATMAP, SEGMENTATION, Task
from verse_utils.errors import UserError
from verse_utils.labels import LABEL_SCHEMES
from verse_utils.phantom.dataset import make_phantom, render

THRESHOLD_HU = 100.0  # between soft tissue and bone
# Each order of the axes, and each axis flipped in some; the tests of the working grid go through more.
ORIENTATIONS = ("RAS", "RIP", "PLS", "PIR", "SRA", "ILP")
OBLIQUE = np.linalg.qr(np.array([[1.0, 0.15, -0.1], [-0.15, 1.0, 0.2], [0.1, -0.2, 1.0]]))[0]
OBLIQUE *= np.sign(np.diag(OBLIQUE))
ANATOMY = make_phantom(3, size="tiny").anatomy


class Formula(Network):
    """A network whose logits are computed from an image of any shape without weights."""

    def __init__(self):
        super().__init__((1, 1, 1), divisor=1)

    def heads(self):
        return []


class Oracle(Formula):
    """Answers with certainty whether a voxel is denser than a threshold."""

    def compute_logits(self, image):
        return (image * HU_PER_UNIT - THRESHOLD_HU) * 10


def oracle(task: Task, spacing_mm: float = 1.0, shape=(32, 32, 32)) -> TrainedModel:
    return TrainedModel(
        network=Oracle(),
        spec=NetworkSpec("UNet", 1, 1, shape),
        task=task,
        scheme=LABEL_SCHEMES["binary"],
        spacing_mm=spacing_mm,
        scaling=DEFAULT_SCALING,
        overhang_vox=task.overhang_vox,
        device=Device(torch.device("cpu"), "fp32"),
        name="oracle",
        sha256="",
    )


ORACLES = Models((oracle(SEGMENTATION),), oracle(HEATMAP, shape=(32, 32, 64)))


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


@pytest.mark.parametrize(("spacing_mm", "oblique"), [((1, 1, 1), False), ((0.7, 0.7, 3), True)])
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


@pytest.mark.parametrize("degrees", [20, -20])
def test_slices_of_a_tilted_gantry_are_seen_upright(tmp_path, degrees):
    """Its slices are shifted for the networks alone: the mask lies where the tilted scan shows what is dense."""
    spacing_mm, (i, j, k) = np.array([1.0, 1.0, 2.5]), (48, 48, 24)
    affine = nib.affines.from_matvec(np.diag(spacing_mm), np.zeros(3))
    affine[1, 2] = spacing_mm[2] * np.tan(np.radians(degrees))
    centre = list(ANATOMY.body_pose.values())[len(ANATOMY.body_pose) // 2].origin
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2)
    image_hu = np.stack([rendered_slice(affine, index, (i, j)) for index in range(k)], axis=2)
    scan = open_scan(ScanSource(save(tmp_path / "scan.nii", image_hu, affine), "scan"))
    found = segment(scan, ORACLES, Options(postprocess="none", probabilities=True))
    expected = image_hu > THRESHOLD_HU
    assert found.mask.shape == found.probabilities.shape == (i, j, k)
    assert dice(found.mask > 0, expected) >= 0.95
    apart_mm = np.linalg.norm(centre_mm(found.mask > 0, affine) - centre_mm(expected, affine))
    assert apart_mm < 0.5  # slices are shifted by whole voxels of 1 mm


def rendered_slice(affine, index, size):
    """HU of one slice of the phantom, on a grid that is sheared along K."""
    upright = np.diag([1.0, 1, 1, 1])
    upright[:3, :2], upright[:3, 3] = affine[:3, :2], nib.affines.apply_affine(affine, (0, 0, index))
    return render(ANATOMY, upright, (*size, 1))[0][..., 0]


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
    everywhere = segment(Spy(), Models(ORACLES.segmenters))
    assert dice(everywhere.mask > 0, ball) > 0.99
    assert everywhere.region == tuple(slice(0, size) for size in shape)


class OneCorner(Formula):
    """Finds the spine in the first voxels of its view, with a probability of 0.5 or none."""

    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def compute_logits(self, image):
        logits = torch.full_like(image, -20.0)
        logits[..., :6, :6, :12] = self.logit
        return logits


@pytest.mark.parametrize(
    ("logit", "usual", "words"),
    [(-20.0, 0.7, "no spine found"), (0.0, 0.7, "unsure of the spine (0.50; in validation, 0.70)"), (0.0, 0.6, None)],
)
def test_where_the_localiser_is_in_doubt_the_whole_scan_is_searched(tmp_path, logit, usual, words):
    """It is wrong: the spine, which the segmenter finds, is a ball elsewhere."""
    index = np.stack(np.indices((120, 120, 160)), axis=-1)
    ball = ((index - (80, 80, 100)) ** 2).sum(axis=-1) < 15**2
    path = save(tmp_path / "a.nii", np.where(ball, 400, -50).astype(np.int16), np.eye(4))
    localiser = replace(ORACLES.localiser, network=OneCorner(logit), confidence=usual)
    found = segment(path, Models(ORACLES.segmenters, localiser))
    told = [line for line in found.warnings if "the whole scan was searched" in line]
    if words is None:
        assert not found.mask.any() and not told and "no vertebra found: the mask is empty" in found.warnings
    else:
        assert dice(found.mask > 0, ball) > 0.99 and found.region == tuple(slice(0, size) for size in ball.shape)
        assert len(told) == 1 and words in told[0]


def test_a_spine_in_the_air_beside_the_scan_is_none(tmp_path):
    """The view of a short scan is padded below and above; a localiser that finds something there has found nothing."""
    index = np.stack(np.indices((120, 120, 40)), axis=-1)
    ball = ((index - (60, 60, 20)) ** 2).sum(axis=-1) < 15**2
    path = save(tmp_path / "a.nii", np.where(ball, 400, -50).astype(np.int16), np.eye(4))
    found = segment(path, Models(ORACLES.segmenters, replace(ORACLES.localiser, network=OneCorner(3.0))))
    assert dice(found.mask > 0, ball) > 0.99
    assert [line for line in found.warnings if "no spine found by the localiser; the whole scan was searched" in line]


@pytest.mark.parametrize(("how", "count"), [("none", 3), ("blobs", 2), ("largest", 1)])
def test_postprocessing_drops_components(tmp_path, how, count):
    image_hu = np.full((50, 50, 120), -50, np.int16)
    for start, stop in ((5, 30), (50, 71), (100, 106)):  # 25³, 21³ = 9.3 cm³, 6³
        image_hu[5 : 5 + stop - start, 5 : 5 + stop - start, start:stop] = 500
    path = save(tmp_path / "a.nii", image_hu, np.eye(4))
    mask = segment(path, Models(ORACLES.segmenters), Options(postprocess=how)).mask
    assert scipy.ndimage.label(mask)[1] == count


def test_classes_become_their_labels(tmp_path):
    """A segmenter of single vertebrae gives VerSe's numbers."""

    class Numbers(Formula):
        def compute_logits(self, image):
            classes = torch.full((*image.shape[:1], 27, *image.shape[2:]), -9.0)
            hu = image[:, 0] * HU_PER_UNIT
            for index, low in ((0, -5000), (19, 100), (20, 300), (21, 500)):  # T12, T13, L1 in anatomical order
                classes[:, index] = (hu - low) / 10 if low < 0 else torch.where(hu > low, 1000.0 + low, -9.0)
            return classes

    spec = replace(ORACLES.segmenter.spec, out_channels=27)
    segmenter = replace(ORACLES.segmenter, network=Numbers(), spec=spec, scheme=LABEL_SCHEMES["vertebrae"])
    image_hu = np.full((40, 40, 90), -50, np.int16)
    for value, start in ((200, 0), (400, 30), (600, 60)):
        image_hu[5:35, 5:35, start + 3 : start + 27] = value
    mask = segment(save(tmp_path / "a.nii", image_hu, np.eye(4)), Models((segmenter,))).mask
    assert [np.median(mask[10:30, 10:30, k]) for k in (15, 45, 75)] == [19, 28, 20]


@pytest.mark.parametrize("hu_per_unit", [250.0, 500.0, 4000.0])
def test_what_a_unit_is_comes_from_the_checkpoint(hu_per_unit):
    """The same network in other units sees the same windows and gives the same mask."""
    image_hu = np.full((40, 40, 90), -1000, np.int16)
    image_hu[4:36, 4:36, 40:80] = -400  # more than air, and less than half a unit of 1000 HU
    image_hu[10:30, 10:30, 45:75] = 600
    seen = []

    class Counting(Formula):
        def __init__(self, hu_per_unit):
            super().__init__()
            self.hu_per_unit = hu_per_unit

        def compute_logits(self, image):
            seen.append(image * self.hu_per_unit)
            return (image * self.hu_per_unit - THRESHOLD_HU) * 10

    results = []
    for unit in (HU_PER_UNIT, hu_per_unit):
        scaling = HuScaling(hu_per_unit=unit)
        model = replace(ORACLES.segmenter, network=Counting(unit), scaling=scaling)
        windows = Windows.cover(image_hu.shape, model.spec.input_shape, overhang_vox=model.overhang_vox)
        probabilities = joined(model.predict_slabs(image_hu, windows), image_hu.shape[2])
        results.append((len(seen), float(min(image.min() for image in seen)), probabilities))
        seen.clear()
        assert 0 < results[-1][0] < windows.wanted.sum()  # windows of air aren't looked at
    assert results[0][:2] == results[1][:2] == (results[0][0], -1000.0)
    torch.testing.assert_close(results[1][2], results[0][2])


class InUnits(Formula):
    """An oracle that is fed by another unit, and keeps the range of what it is fed with, in HU."""

    def __init__(self, hu_per_unit: float):
        super().__init__()
        self.hu_per_unit, self.seen_hu = hu_per_unit, [np.inf, -np.inf]

    def compute_logits(self, image):
        image_hu = image * self.hu_per_unit
        self.seen_hu = [min(self.seen_hu[0], float(image_hu.min())), max(self.seen_hu[1], float(image_hu.max()))]
        return (image_hu - THRESHOLD_HU) * 10


def test_localiser_and_segmenter_are_each_fed_by_their_own_scaling(tmp_path):
    """That of its checkpoint."""
    scalings = {SEGMENTATION: HuScaling((-1000.0, 400.0), 250.0), HEATMAP: HuScaling((-500.0, 300.0), 4000.0)}
    spec = NetworkSpec("UNet", 1, 1, (16, 16, 16), {"channels": (4, 8)})
    for task, scaling in scalings.items():
        settings = {"task": task.name, "model_name": task.name}
        weights = spec.build().state_dict()
        save_checkpoint(tmp_path / f"{task}.pt", spec, weights, settings, epoch=1, input=asdict(scaling))
    loaded = load_models(*(tmp_path / f"{task}.pt" for task in scalings), device="cpu")
    assert [loaded.segmenter.scaling, loaded.localiser.scaling] == list(scalings.values())

    image_hu, affine = scanned((1, 1, 1), oblique=False)
    path = save(tmp_path / "ct.nii", image_hu, affine)
    segmenter, localiser = (
        replace(model, network=InUnits(scalings[model.task].hu_per_unit), scaling=scalings[model.task])
        for model in (ORACLES.segmenter, ORACLES.localiser)
    )
    mask = segment(path, Models((segmenter,), localiser)).mask
    assert mask.any()
    np.testing.assert_array_equal(mask, segment(path, ORACLES).mask)
    for model in (segmenter, localiser):
        assert model.network.seen_hu == pytest.approx(scalings[model.task].hu_range, abs=1e-3)


class Always(Formula):
    """Answers the same probability everywhere."""

    def __init__(self, probability):
        super().__init__()
        self.logit = float(torch.logit(torch.tensor(probability)))

    def compute_logits(self, image):
        return torch.full_like(image, self.logit)


def test_an_ensemble_averages_probabilities(tmp_path):
    image_hu = np.random.default_rng(0).integers(200, 900, (20, 20, 40), np.int16)
    path = save(tmp_path / "a.nii", image_hu, np.eye(4))
    options = Options(postprocess="none", probabilities=True)
    sure, unsure, against = (replace(ORACLES.segmenter, network=Always(p)) for p in (0.9, 0.5, 0.25))
    found = segment(path, Models((sure, unsure, against)), options)
    np.testing.assert_allclose(found.probabilities, 0.55, atol=1e-5)
    assert found.mask.all() and not segment(path, Models((against, unsure)), options).mask.any()


def test_of_several_networks_one_is_on_the_device_even_after_an_error(tmp_path):
    """The device "meta" takes weights as a GPU does; a network that is there fails at its first window."""
    path = save(tmp_path / "a.nii", np.arange(16000, dtype=np.int16).reshape(20, 20, 40) // 16, np.eye(4))
    calls = []

    class Recorded(Oracle):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def to(self, device):
            calls.append(torch.device(device).type)
            return self

        def compute_logits(self, image):
            if calls.count("meta") == 2:
                raise MemoryError
            return super().compute_logits(image)

    meta = SimpleNamespace(torch_device=torch.device("meta"))

    class OnCpu(TrainedModel):
        def predict_slabs(self, *arguments):
            return replace(ORACLES.segmenter, network=self.network).predict_slabs(*arguments)

    models = [OnCpu(**{**vars(ORACLES.segmenter), "network": Recorded(), "device": meta}) for _ in range(3)]
    with pytest.raises(MemoryError):
        segment(path, Models(tuple(models)))
    assert calls == ["meta", "cpu"] * 2


def test_a_model_twice_is_the_model(tmp_path):
    image_hu = render(ANATOMY, np.eye(4), (40, 60, 80), seed=0)[0]
    path = save(tmp_path / "a.nii", image_hu, np.eye(4))
    options = Options(probabilities=True)
    once, twice = (segment(path, Models(ORACLES.segmenters * count), options) for count in (1, 2))
    assert once.mask.any() and np.array_equal(once.mask, twice.mask)
    assert np.array_equal(once.probabilities, twice.probabilities)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spacing_mm": 2.0}, r"spacing in mm 1\.0 and 2\.0"),
        ({"spec": NetworkSpec("UNet", 1, 1, (32, 32, 48))}, r"input shape \(32, 32, 32\) and \(32, 32, 48\)"),
        ({"scheme": LABEL_SCHEMES["vertebrae"]}, "labels binary and vertebrae"),
        ({"scaling": HuScaling(500.0)}, "HU scaling"),
        ({"overhang_vox": (0, 0, 0)}, "voxels beyond the ends"),
    ],
)
def test_models_that_see_other_things_are_not_averaged(change, words):
    one = ORACLES.segmenter
    with pytest.raises(UserError, match=f"^a.pt and b.pt can't be averaged: {words}.*; leave one out$"):
        one.input.check_alike(replace(one, **change).input, Path("a.pt"), Path("b.pt"))
    one.input.check_alike(replace(one, name="other").input, Path("a.pt"), Path("b.pt"))
