"""The two datasets: ``VerSe`` reads NIfTI folders, ``h5VerSe`` preprocessed H5 files, patch by patch if wished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchio as tio
from torch.utils.data import Dataset, Sampler

from utils.constants import HU_AIR
from utils.h5_cases import H5Cases
from verse_utils.cases import find_cases
from verse_utils.download import download_verse
from verse_utils.images import read_case

SubjectTransform = Callable[[tio.Subject], tio.Subject]


@dataclass(frozen=True)
class Patches:
    """How patches are drawn from volumes.

    Attributes:
        shape: (X, Y, Z) voxels. What lies outside the volume is air without label.
        per_volume: patches drawn from each case in an epoch.
        bone_share: share of the patches that are centred on a voxel of bone; the others start anywhere, each start
            position from the first to the last with the same probability.
        overhang_vox: voxels by which a patch may hang over each end of the volume along X, Y, Z.
        seed: the patch of (epoch, index) depends on it alone, whatever the number of workers.
    """

    shape: tuple[int, int, int]
    per_volume: int = 1
    bone_share: float = 1 / 3
    overhang_vox: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.per_volume < 1 or not 0 <= self.bone_share <= 1:
            raise ValueError(f"no patches can be drawn by {self}")

    def draw_start(
        self, rng: np.random.Generator, volume_shape: tuple[int, int, int], bone_vox: np.ndarray
    ) -> np.ndarray:
        """Draw the first voxel of a patch: (3,) int, inside ``start_range``."""
        first, last = self.start_range(volume_shape)
        on_bone = rng.random() < self.bone_share
        if on_bone and len(bone_vox):
            centre = bone_vox[rng.integers(len(bone_vox))].astype(int)
            return np.clip(centre - np.array(self.shape) // 2, first, last)
        return rng.integers(first, last, endpoint=True)

    def start_range(self, volume_shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """First and last start: (3,) int each, negative where the patch hangs over the volume's beginning."""
        room = np.array(volume_shape) - self.shape
        centred = np.minimum(room, 0) // 2  # a volume smaller than the patch lies in its middle
        return centred - self.overhang_vox, np.maximum(room, centred) + self.overhang_vox


class VerSe(Dataset):
    """Cases of a VerSe folder as they are stored, whole.

    Args:
        root: folder with VerSe's dataset folders.
        split: training, validation or test.
        edition: 19 or 20.
        transform: applied to each subject.
        download: fetch the edition into ``root`` where it is missing.

    Items are subjects with ``image`` (1, I, J, K) int16 HU, ``label`` (1, I, J, K) uint8 raw VerSe labels, both with
    the affine in RAS mm, ``case_id`` and ``patient``.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        edition: int = 19,
        transform: SubjectTransform | None = None,
        download: bool = False,
    ) -> None:
        if download:
            download_verse(Path(root), edition)
        self.cases = [case for case in find_cases(Path(root), edition) if case.split == split]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tio.Subject:
        case = self.cases[index]
        images = read_case(case)
        subject = _subject(images.image_hu, images.label, images.affine, case.case_id, case.patient)
        return self.transform(subject) if self.transform else subject


class h5VerSe(Dataset):  # noqa: N801  the name that users know
    """Cases of a preprocessed H5, whole or in random patches read straight from disk.

    Args:
        path: the H5.
        split: training, validation or test.
        transform: applied to each subject.
        patches: how to draw patches; whole volumes where None.
        task: that the H5 must have been made for; any where None.

    Index with an int, or with (epoch, index) as ``EpochSampler`` does: the same pair always gives the same patch and
    the same augmentation, so that validation (ints, epoch 0) sees the same patches in every epoch.

    Raises:
        UserError: no such file, another schema or task.
    """

    def __init__(
        self,
        path: Path | str,
        split: str,
        transform: SubjectTransform | None = None,
        patches: Patches | None = None,
        task: str | None = None,
    ) -> None:
        self.store = H5Cases(Path(path), task)
        self.split = split
        self.case_ids = self.store.case_ids(split)
        self.transform = transform
        self.patches = patches

    def __len__(self) -> int:
        return len(self.case_ids) * (self.patches.per_volume if self.patches else 1)

    def __getitem__(self, index: int | tuple[int, int]) -> tio.Subject:
        epoch, index = index if isinstance(index, tuple) else (0, index)
        case = self.store.case(self.split, self.case_ids[index % len(self.case_ids)])
        seed = self.patches.seed if self.patches else 0
        rng = np.random.default_rng([seed, epoch, index])
        if self.patches is None:
            image_hu, label = self.store.read(self.split, case.case_id)
            affine = case.grid.affine
        else:
            bone_vox = self.store.bone_vox(self.split, case.case_id)
            start = self.patches.draw_start(rng, case.grid.shape, bone_vox)
            image_hu, label = self._read_patch(case.case_id, start)
            affine = case.grid.affine.copy()
            affine[:3, 3] += affine[:3, :3] @ start
        subject = _subject(image_hu, label, affine, case.case_id, case.patient)
        if self.transform is None:
            return subject
        # torchio draws from torch's generator: seeded here, the augmentation depends on nothing but (epoch, index).
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            return self.transform(subject)

    def _read_patch(self, case_id: str, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.patches is not None
        where = tuple(slice(max(s, 0), max(s + n, 0)) for s, n in zip(start, self.patches.shape, strict=True))
        image_hu, label = self.store.read(self.split, case_id, where)
        before = np.maximum(-start, 0)
        behind = np.array(self.patches.shape) - image_hu.shape - before
        if before.any() or behind.any():
            widths = list(zip(before, behind, strict=True))
            image_hu = np.pad(image_hu, widths, constant_values=HU_AIR)
            label = np.pad(label, widths)
        return image_hu, label


class EpochSampler(Sampler):
    """Every index of a dataset once, as (epoch, index), in an order drawn from (seed, epoch) alone."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return iter([(self.epoch, int(index)) for index in order])


def _subject(image_hu: np.ndarray, label: np.ndarray, affine: np.ndarray, case_id: str, patient: str) -> tio.Subject:
    return tio.Subject(
        image=tio.ScalarImage(tensor=torch.from_numpy(image_hu)[None], affine=affine),
        label=tio.LabelMap(tensor=torch.from_numpy(label)[None], affine=affine),
        case_id=case_id,
        patient=patient,
    )
