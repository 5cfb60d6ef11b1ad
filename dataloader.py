"""The data sets: ``VerSe`` reads NIfTI folders, ``h5VerSe`` preprocessed H5 files, in whole volumes or in patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchio as tio
from torch.utils.data import Dataset

from utils.constants import HU_AIR
from utils.files.h5_data_set import H5DataSet
from utils.tasks import Task
from verse_utils.catalogue import list_cases
from verse_utils.download.fetch import fetch_where_missing
from verse_utils.editions import Edition, as_editions
from verse_utils.errors import UserError
from verse_utils.images import read_case
from verse_utils.names import check_split
from verse_utils.splits import Fold, validation_patients

SubjectTransform = Callable[[tio.Subject], tio.Subject]


@dataclass(frozen=True)
class Patches:
    """How patches are drawn from volumes.

    Attributes:
        shape: (X, Y, Z) voxels. Outside of the volume, a patch holds air and label 0.
        per_volume: patches drawn from each case in an epoch.
        foreground_share: share of the patches that are centred on a foreground voxel; the others start at any position
            from the first to the last, all with the same probability.
        overhang_vox: voxels along X, Y, Z by which a patch may extend beyond each end of the volume.
        seed: with (epoch, index) it decides the patch, for any number of workers.

    Raises:
        ValueError: a value is out of its range.
    """

    shape: tuple[int, int, int]
    per_volume: int
    foreground_share: float
    overhang_vox: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.per_volume < 1 or not 0 <= self.foreground_share <= 1:
            raise ValueError(f"no patches can be drawn by {self}")

    def draw_start(
        self, rng: np.random.Generator, volume_shape: tuple[int, int, int], foreground_vox: np.ndarray
    ) -> np.ndarray:
        """Draw the first voxel of a patch: (3,) int, within ``start_range``."""
        first, last = self.start_range(volume_shape)
        on_foreground = rng.random() < self.foreground_share
        if on_foreground and len(foreground_vox):
            centre = foreground_vox[rng.integers(len(foreground_vox))].astype(int)
            start: np.ndarray = np.clip(centre - np.array(self.shape) // 2, first, last)
            return start
        return rng.integers(first, last, endpoint=True)

    def start_range(self, volume_shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """First and last start: (3,) int each, negative where the patch begins before the volume."""
        room = np.array(volume_shape) - self.shape
        centred = np.minimum(room, 0) // 2  # a volume that is smaller than the patch lies in its centre
        return centred - self.overhang_vox, np.maximum(room, centred) + self.overhang_vox


class VerSe(Dataset[tio.Subject]):
    """Cases of a VerSe folder as they are stored, whole.

    Args:
        root: folder with VerSe's dataset folders.
        split: training, validation or test.
        edition: 19 or 20.
        transform: applied to each subject.
        download: None downloads the edition if ``root`` doesn't exist or holds no file; True also what is missing in
            other folders; False nothing.

    Items are subjects with ``image`` (1, I, J, K) int16 HU, ``label`` (1, I, J, K) uint8 raw VerSe labels, both with
    the affine in RAS mm, ``case_id`` and ``patient``.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        edition: Edition = 19,
        transform: SubjectTransform | None = None,
        download: bool | None = None,
    ) -> None:
        check_split(split)
        fetch_where_missing(Path(root), as_editions(edition), download)
        self.cases = [case for case in list_cases([Path(root)], edition) if case.split == split]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tio.Subject:
        case = self.cases[index]
        images = read_case(case)
        subject = _subject(images.image_hu, images.label, images.affine, case.case_id, case.patient)
        return self.transform(subject) if self.transform else subject


class h5VerSe(Dataset[tio.Subject]):  # noqa: N801  the name that users know
    """Cases of preprocessed H5 files, whole or in random patches; only the voxels of a patch are read from disk.

    Args:
        path: the H5, or several that are read as one data set: no scan twice, no patient in two splits
            (``utils.files.h5_data_set``).
        split: training, validation or test.
        transform: applied to each subject.
        patches: how to draw patches; whole volumes if None.
        task: that the H5 must have been made for; any if None.
        fold: splits the patients of training and validation anew; those of the test stay.

    The index is an int, or (epoch, index) as from ``training.steps.batches.PatchOrder``. The same pair
    always gives the same patch and the same augmentation. An int means epoch 0, so validation uses the same patches in
    every epoch.

    Raises:
        UserError: no such file, another schema, task or other settings, or fewer patients than folds.
    """

    def __init__(
        self,
        path: Path | str | Sequence[Path | str],
        split: str,
        transform: SubjectTransform | None = None,
        patches: Patches | None = None,
        task: Task | None = None,
        fold: Fold | None = None,
    ) -> None:
        check_split(split)
        paths = [path] if isinstance(path, Path | str) else path
        self.store = H5DataSet([Path(path) for path in paths], task)
        # Split and id by which the cases are stored: the split there may be another than that of the fold.
        self.places = [(split, case_id) for case_id in self.store.case_ids(split)]
        if fold is not None and split != "test":
            self.places = _cases_of_fold(self.store, split, fold)
        self.case_ids = [case_id for _, case_id in self.places]
        self.transform = transform
        self.patches = patches

    def __len__(self) -> int:
        return len(self.case_ids) * (self.patches.per_volume if self.patches else 1)

    def __getitem__(self, index: int | tuple[int, int]) -> tio.Subject:
        epoch, index = index if isinstance(index, tuple) else (0, index)
        if index >= len(self):
            raise IndexError(f"subject {index} of {len(self)}")  # where a loop over the data set ends
        place = self.places[index % len(self.places)]
        case = self.store.case(*place)
        seed = self.patches.seed if self.patches else 0
        rng = np.random.default_rng([seed, epoch, index])
        if self.patches is None:
            image_hu, label = self.store.read(*place)
            affine = case.grid.affine
        else:
            foreground_vox = self.store.foreground_vox(*place)
            start = self.patches.draw_start(rng, case.grid.shape, foreground_vox)
            image_hu, label = self._read_patch(place, start)
            affine = case.grid.affine.copy()
            affine[:3, 3] += affine[:3, :3] @ start
        subject = _subject(image_hu, label, affine, case.case_id, case.patient)
        if self.patches is not None:
            subject["patch_start"] = start.tolist()
        if self.transform is None:
            return subject
        # torchio uses torch's global generator. Seeded here, the augmentation depends on (epoch, index) alone.
        # Some of its transforms seed GPUs, too: the one that this process uses, if any, gets its state back.
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
            torch.default_generator.manual_seed(int(rng.integers(2**63)))  # torch.manual_seed() takes 7 ms longer
            return self.transform(subject)

    def _read_patch(self, place: tuple[str, str], start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.patches is not None
        where = tuple(slice(max(s, 0), max(s + n, 0)) for s, n in zip(start, self.patches.shape, strict=True))
        image_hu, label = self.store.read(*place, where)
        before = np.clip(-start, 0, self.patches.shape)
        behind = np.array(self.patches.shape) - image_hu.shape - before
        if before.any() or behind.any():
            widths = list(zip(before, behind, strict=True))
            image_hu = np.pad(image_hu, widths, constant_values=HU_AIR)
            label = np.pad(label, widths)
        return image_hu, label


def _cases_of_fold(store: H5DataSet, split: str, fold: Fold) -> list[tuple[str, str]]:
    """Split that they are stored in, and id, of a fold's training or validation cases, sorted by id."""
    places = [(stored, case_id) for stored in ("training", "validation") for case_id in store.case_ids(stored)]
    patient_of = {place: store.case(*place).patient for place in places}
    try:
        validated = validation_patients(patient_of.values(), fold)
    except ValueError as error:
        raise UserError(f"--fold {fold}: {store.name}: {error}; give fewer folds") from None
    mine = [place for place in places if (patient_of[place] in validated) == (split == "validation")]
    return sorted(mine, key=lambda place: (place[1], place[0]))


def _subject(image_hu: np.ndarray, label: np.ndarray, affine: np.ndarray, case_id: str, patient: str) -> tio.Subject:
    return tio.Subject(
        image=tio.ScalarImage(tensor=torch.from_numpy(image_hu)[None], affine=affine),
        label=tio.LabelMap(tensor=torch.from_numpy(label)[None], affine=affine),
        case_id=case_id,
        patient=patient,
    )
