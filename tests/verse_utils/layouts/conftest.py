"""The phantoms, written in each layout that is read."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from verse_utils.cases import Case, find_cases
from verse_utils.centroids import read_centroids
from verse_utils.images import read_case
from verse_utils.labels import VERTEBRA_NAMES

# TotalSegmentator has neither L6 nor T13; the phantoms of the tests have neither.
TOTAL_NAMES = [f"{name}" for label, name in VERTEBRA_NAMES.items() if label < 25]


@dataclass(frozen=True)
class Tree:
    """A data set on disk.

    Attributes:
        path: what is passed as ``--data_path``.
        id_of: of VerSe's case ids -> of the same scan here.
    """

    path: Path
    id_of: dict[str, str]


@pytest.fixture(scope="session")
def verse_cases(phantom_root) -> list[Case]:
    with pytest.warns(UserWarning, match="not all of VerSe19"):
        return find_cases(phantom_root, 19)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _save(label: np.ndarray, case: Case, target: Path) -> None:
    """A mask with the grid that the case's own has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    grid = nib.load(case.mask_path)
    header = grid.header.copy()
    header.set_data_dtype(label.dtype)
    nib.save(nib.Nifti1Image(label, None, header), target)


def _miccai(cases: list[Case], root: Path) -> Tree:
    folder_of = {"training": "01_training", "validation": "02_validation", "test": "03_test"}
    ids = {}
    for number, case in enumerate(cases, start=501):
        stem = root / folder_of[case.split] / f"verse{number}" / f"verse{number}_CT-iso"
        ids[case.case_id] = f"sub-verse{number}_dir-iso"
        _copy(case.image_path, stem.with_name(f"{stem.name}.nii.gz"))
        _copy(case.mask_path, stem.with_name(f"{stem.name}_seg.nii.gz"))
        points = _miccai_points(case)
        stem.with_name(f"{stem.name}_iso-ctd.json").write_text(json.dumps(points), encoding="utf-8")
        stem.with_name(f"{stem.name}.png").touch()
    return Tree(root, ids)


def _miccai_points(case: Case) -> list[dict[str, float]]:
    """Body centres in mm from the anterior, superior, left corner, by nibabel's own turning of the image."""
    image = nib.load(case.image_path)
    world = read_centroids(case.centroid_path).to_world(image.affine, image.shape)
    to_pir = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(("P", "I", "R"))
    )
    turned = image.as_reoriented(to_pir)
    points = []
    for label, place in world.items():
        vox = nib.affines.apply_affine(np.linalg.inv(turned.affine), place)
        x, y, z = vox * nib.affines.voxel_sizes(turned.affine)
        points.append({"label": label, "X": x, "Y": y, "Z": z})
    return points


def _nnunet(cases: list[Case], root: Path) -> Tree:
    """Numbers of its own, as nnU-Net wants them one after the other."""
    numbers = {name: number for number, name in enumerate(reversed(TOTAL_NAMES), start=1)}
    root = root / "Dataset777_Spine"
    folds = [{"train": [], "val": []}]
    for case in cases:
        part = "Ts" if case.split == "test" else "Tr"
        if part == "Tr":
            folds[0]["train" if case.split == "training" else "val"].append(case.case_id)
        _copy(case.image_path, root / f"images{part}" / f"{case.case_id}_0000.nii.gz")
        label = read_case(case).label
        own = np.zeros(256, np.uint8)
        for value, name in VERTEBRA_NAMES.items():
            own[value] = numbers.get(name, 0)
        _save(own[label], case, root / f"labels{part}" / f"{case.case_id}.nii.gz")
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"vertebrae_{name}": number for name, number in numbers.items()}, "sacrum": 25},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
        "licence": "CC0",
    }
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    (root / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    return Tree(root.parent, {case.case_id: case.case_id for case in cases})


def _totalsegmentator(cases: list[Case], root: Path) -> Tree:
    ids, rows = {}, []
    split_of = {"training": "train", "validation": "val", "test": "test"}
    for number, case in enumerate(cases):
        ids[case.case_id] = name = f"s{number:04d}"
        rows.append({"image_id": name, "age": 50, "split": split_of[case.split]})
        _copy(case.image_path, root / name / "ct.nii.gz")
        label = read_case(case).label
        for value, vertebra in VERTEBRA_NAMES.items():
            if vertebra in TOTAL_NAMES:
                part = (label == value).astype(np.uint8)
                _save(part, case, root / name / "segmentations" / f"vertebrae_{vertebra}.nii.gz")
        for other in ("sacrum", "vertebrae_S1", "liver"):
            _save(np.ones_like(label), case, root / name / "segmentations" / f"{other}.nii.gz")
    with (root / "meta.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["image_id", "age", "split"], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return Tree(root, ids)


def _ctspine1k(cases: list[Case], root: Path) -> Tree:
    lists: dict[str, list[str]] = {"trainset": [], "test_public": [], "test_private": []}
    list_of = {"training": "trainset", "validation": "test_public", "test": "test_private"}
    ids = {}
    for number, case in enumerate(cases):
        ids[case.case_id] = name = f"1.3.6.1.4.1.9328.50.4.{number:04d}"
        lists[list_of[case.split]].append(f"{name}.nii.gz")
        _copy(case.image_path, root / "raw_data" / "volumes" / "COLONOG" / f"{name}.nii.gz")
        _copy(case.mask_path, root / "raw_data" / "labels" / "COLONOG" / f"{name}_seg.nii.gz")
    text = "\n\n".join("\n".join([f"{name}:", *entries]) for name, entries in lists.items())
    (root / "raw_data" / "data_split.txt").write_text(f"{text}{lists['test_private'][-1]}\n", encoding="utf-8")
    return Tree(root, ids)


def _table(cases: list[Case], root: Path) -> Tree:
    root.mkdir()
    path = root / "mine.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "mask", "split", "patient", "centroids"))
        for case in cases:
            _copy(case.image_path, root / "scans" / case.image_path.name)
            image = f"scans/{case.image_path.name}"
            writer.writerow((image, case.mask_path, case.split, case.patient, case.centroid_path))
    return Tree(path, {case.case_id: case.image_path.name.removesuffix("_ct.nii.gz") for case in cases})


WRITERS: dict[str, Callable[[list[Case], Path], Tree]] = {
    "MICCAI": _miccai,
    "nnU-Net": _nnunet,
    "TotalSegmentator": _totalsegmentator,
    "CTSpine1K": _ctspine1k,
    "CSV": _table,
}


@pytest.fixture
def write_tree(verse_cases, tmp_path) -> Callable[[str], Tree]:
    """Write the phantoms in a layout: its name -> where they are."""
    return lambda layout: WRITERS[layout](verse_cases, tmp_path / layout)
