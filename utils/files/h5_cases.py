"""The layout of preprocessed cases in HDF5: a case is written, all are read. ``h5_packing`` makes one file of them.

    NAME.h5                      attributes: schema, schema_version, task, settings (JSON), notes (JSON: cases left out)
      /<split>/<case>            attributes: patient, data_set, licence, affine, spacing_mm, source_shape,
                                 source_affine, scale, offset, settings (JSON), source (JSON: SHA-256
                                 of the files it was made from), notes (JSON: what was found in them)
      /<split>/<case>/image      (X, Y, Z) int16, HU
      /<split>/<case>/label      (X, Y, Z) uint8, raw VerSe labels
      /<split>/<case>/bone_vox   (N, 3) int16, foreground voxels from which patches are drawn

While cases are preprocessed, many processes write at once, and each case is a file of its own, whose group ``/case`` is
what ``/<split>/<case>`` will be: ``NAME.cases/<split>/<case>.h5``. It is renamed to that name when it is complete. So a
case is either complete or absent, and a second run only writes the missing cases.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import hdf5plugin  # its import also registers Blosc2 for reading
import numpy as np
from nibabel.orientations import OrientationError

from utils.files.h5_target import H5Target
from utils.geometry.working_grid import WorkingGrid
from utils.tasks import Task
from verse_utils.errors import UserError
from verse_utils.files.writing import bring_to_disk, written_aside
from verse_utils.labels import ANATOMICAL_ORDER

SCHEMA = "spine-segmentation"
SCHEMA_VERSION = 2  # in version 1, NAME.h5 held links to the files of NAME.cases

# A patch of 128³ reads all chunks that it touches: 2.0 times its own voxels on average with chunks of 32³, 3.4 times
# with chunks of 64³.
CHUNK_EDGE = 32
# This version of HDF5's format has a checksum for everything but arrays, which get theirs (fletcher32) with each chunk:
# a flipped bit is an error when it is read. With both, files are 0.4 % smaller, and reading a patch takes 6 % longer.
CHECKED_FORMAT = ("v110", "v110")
# Foreground voxels kept for drawing patches; more would cost memory and change little.
FOREGROUND_INDEX_SIZE = 20_000
CASE_GROUP = "case"  # in the file of a single case
_FOREGROUND_DATASET = "bone_vox"  # its name in existing files


# What h5py, reading JSON from it, and nibabel raise where a file was damaged or is none of ours.
DAMAGE = (AttributeError, KeyError, OSError, OrientationError, RuntimeError, TypeError, ValueError)

Name = tuple[str, str]  # split and id of a case


@dataclass(frozen=True)
class StoredCase:
    """What is stored of a case besides its arrays."""

    case_id: str
    patient: str
    split: str
    grid: WorkingGrid
    data_set: str = ""
    licence: str = ""


class MadeOf(NamedTuple):
    """What a stored case was made of, as JSON: another text means that it has to be made anew."""

    settings: str
    source: str

    @classmethod
    def of_group(cls, group: h5py.Group) -> MadeOf:
        """As it is stored in a case's group. Raises KeyError where the group is no case."""
        return cls(group.attrs["settings"], group.attrs["source"])


def case_file(h5_path: Path, split: str, case_id: str) -> Path:
    """The file of one case until ``h5_path`` holds it."""
    return h5_path.with_suffix(".cases") / split / f"{case_id}.h5"


def write_case(
    path: Path,
    case: StoredCase,
    image_hu: np.ndarray,
    label: np.ndarray,
    settings: dict[str, Any],
    source: dict[str, Any],
    notes: dict[str, Any] | None = None,
) -> None:
    """Write one case, whole or not at all.

    Args:
        path: as given by ``case_file``.
        case: id, patient, split and grid.
        image_hu: (X, Y, Z) int16, HU.
        label: (X, Y, Z) uint8, raw VerSe labels.
        settings: what the arrays were made with.
        source: what they were made from.
        notes: what else is to be known of the case; another content is no reason to make it anew.
    """
    # Level 5 takes 1.7 times as long and saves only 3 %, because CT is mostly noise.
    compression = hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.SHUFFLE)
    chunks = tuple(min(CHUNK_EDGE, n) for n in image_hu.shape)
    with h5_written_aside(path) as file:
        group = file.create_group(CASE_GROUP)
        filters: dict[str, Any] = {"chunks": chunks, "compression": compression, "fletcher32": True}
        group.create_dataset("image", data=image_hu.astype(np.int16, copy=False), **filters)
        group.create_dataset("label", data=label.astype(np.uint8, copy=False), **filters)
        foreground_vox = _foreground_index(label)
        rows = (max(len(foreground_vox), 1), 3)
        group.create_dataset(_FOREGROUND_DATASET, data=foreground_vox, chunks=rows, maxshape=(None, 3), fletcher32=True)
        group.attrs["patient"] = case.patient
        group.attrs["data_set"] = case.data_set
        group.attrs["licence"] = case.licence
        group.attrs["affine"] = case.grid.affine
        group.attrs["spacing_mm"] = case.grid.spacing_mm
        group.attrs["source_shape"] = case.grid.source_shape
        group.attrs["source_affine"] = case.grid.source_affine
        group.attrs["scale"] = case.grid.scale
        group.attrs["offset"] = case.grid.offset
        group.attrs["settings"] = canonical_json(settings)
        group.attrs["source"] = canonical_json(source)
        group.attrs["notes"] = canonical_json(notes or {})


@contextmanager
def h5_written_aside(path: Path, durable: bool = False) -> Iterator[h5py.File]:
    """An H5 to write, which takes its place at ``path`` when it is whole, and is removed on failure.

    Args:
        path: of the H5.
        durable: bring it to disk first, so that not even a power cut leaves less than what was there before.

    Raises:
        UserError: it can't be written.
    """
    with written_aside(path) as aside:
        with H5Target(aside) as target:
            try:
                with h5py.File(target, "w", libver=CHECKED_FORMAT) as file:
                    yield file
            except RuntimeError as error:  # of HDF5, which copies from damaged files, too
                raise target.error or OSError(str(error)) from error
            if target.error:
                raise target.error
        if durable:
            bring_to_disk(aside)


def is_written(h5_path: Path, split: str, case_id: str, settings: dict[str, Any], source: dict[str, Any]) -> bool:
    """Whether a case was made from the same source with the same settings; in a file of its own, or in ``h5_path``."""
    made_of = MadeOf(canonical_json(settings), canonical_json(source))
    places = ((case_file(h5_path, split, case_id), CASE_GROUP), (h5_path, f"{split}/{case_id}"))
    return any(read_made_of(*place) == made_of for place in places)


def read_made_of(path: Path, group: str) -> MadeOf | None:
    """What the case of a file's group was made of; None where there is no such case."""
    try:
        with h5py.File(path, "r") as file:
            return MadeOf.of_group(file[group])
    except DAMAGE:
        return None


def read_notes(h5_path: Path, split: str, case_id: str) -> dict[str, Any]:
    """The notes of a case, in a file of its own or in ``h5_path``; empty where there is no such case."""
    for path, group in ((case_file(h5_path, split, case_id), CASE_GROUP), (h5_path, f"{split}/{case_id}")):
        with suppress(*DAMAGE), h5py.File(path, "r") as file:
            notes: dict[str, Any] = dict(json.loads(file[group].attrs["notes"]))
            return notes
    return {}


def header_of(task: Task, settings: dict[str, Any], notes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The attributes of an H5."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "task": task.name,
        "settings": canonical_json(settings),
        "notes": canonical_json(notes or {}),
    }


class H5Cases:
    """Read access to an H5 of preprocessed cases; it is opened when needed, once in each process.

    Args:
        path: the ``NAME.h5``.
        task: that it must have been made for; any if None.

    Attributes:
        settings: of the preprocessing.
        notes: of the preprocessing: ``data_path``, ``left_out`` (lines on cases that can't be used) and ``remarks``.

    Raises:
        UserError: no such file, not an H5, another schema, version or task.
    """

    def __init__(self, path: Path, task: Task | None = None) -> None:
        self.path = Path(path)
        self._process = -1
        self._file: h5py.File | None = None
        self.settings: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}
        self._case_ids: dict[str, list[str]] = {}
        self._read_header(task)

    def _read_header(self, task: Task | None) -> None:
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file; make it with preprocessing.py")
        try:
            with h5py.File(self.path, "r") as file:
                header = dict(file.attrs)
                case_ids = {split: sorted(group) for split, group in file.items() if isinstance(group, h5py.Group)}
        except DAMAGE as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.path}: not an HDF5 file ({reason}); make it with preprocessing.py") from None
        try:
            schema, version = str(header.get("schema")), str(header.get("schema_version"))
            self._check_schema(schema, version)
            self.settings, self.notes = _settings(header["settings"]), _notes(header.get("notes", "{}"))
            made_for = str(header["task"])
        except DAMAGE as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self.path}: its header is damaged or was edited ({reason}); remove it and run preprocessing.py again"
            ) from None
        if task is not None and made_for != task.name:
            raise UserError(
                f"{self.path}: made for the task {made_for}, not {task}; "
                f"run preprocessing.py with --task {task} and pass what it writes"
            )
        self._case_ids = case_ids

    def _check_schema(self, schema: str, version: str) -> None:
        """Raise UserError unless this version of the project wrote the file."""
        if (schema, version) == (SCHEMA, "1"):
            raise UserError(
                f"{self.path}: holds links to {self.path.with_suffix('.cases')}, as versions before 0.3 wrote it; "
                "run the same preprocessing.py command again, which makes one file of both"
            )
        if (schema, version) != (SCHEMA, f"{SCHEMA_VERSION}"):
            raise UserError(
                f"{self.path}: schema is {schema} version {version}, not {SCHEMA} version {SCHEMA_VERSION}; "
                "make it anew with preprocessing.py"
            )

    def case_ids(self, split: str) -> list[str]:
        """Ids of a split's cases, sorted."""
        return self._case_ids.get(split, [])

    @property
    def names(self) -> list[Name]:
        """Split and id of every case."""
        return [(split, case_id) for split, case_ids in self._case_ids.items() for case_id in case_ids]

    def case(self, split: str, case_id: str) -> StoredCase:
        """What is stored of a case besides its arrays."""
        group = self._group(split, case_id)
        with self._named_damage(split, case_id):
            attributes = dict(group.attrs)
            shape = group["image"].shape
            i, j, k = (int(n) for n in attributes["source_shape"])
            grid = WorkingGrid((i, j, k), attributes["source_affine"], shape, attributes["scale"], attributes["offset"])
            if not np.isfinite(grid.affine).all() or not (grid.spacing_mm > 0).all():
                raise ValueError("its grid is none")
            if group["label"].shape != shape or not isinstance(attributes["patient"], str):
                raise ValueError("its label is not the image's, or its patient has no name")
            data_set, licence = (attributes.get(name, "") for name in ("data_set", "licence"))
            return StoredCase(case_id, attributes["patient"], split, grid, data_set, licence)

    def read(self, split: str, case_id: str, where: tuple[slice, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Image (int16 HU) and label (uint8, raw) of a case, or of a part of it."""
        group = self._group(split, case_id)
        with self._named_damage(split, case_id):
            return group["image"][where], group["label"][where]

    def foreground_vox(self, split: str, case_id: str) -> np.ndarray:
        """(N, 3) int16 foreground voxels, at most ``FOREGROUND_INDEX_SIZE``, evenly taken; N = 0 if there are none."""
        group = self._group(split, case_id)
        with self._named_damage(split, case_id):
            foreground_vox: np.ndarray = group[_FOREGROUND_DATASET][...]
            return foreground_vox

    @contextmanager
    def _named_damage(self, split: str, case_id: str) -> Iterator[None]:
        """Raise UserError where what is read is not what was written, as a checksum or its kind tells."""
        try:
            yield
        except DAMAGE as error:
            raise UserError(
                f"{self.path}: {split}/{case_id} can't be read, the file is damaged ({str(error).splitlines()[0]}); "
                "remove it and run preprocessing.py again"
            ) from None

    def made_of(self, split: str, case_id: str) -> MadeOf:
        """What a case was made from, and how."""
        group = self._group(split, case_id)
        with self._named_damage(split, case_id):
            return MadeOf.of_group(group)

    def scan(self, split: str, case_id: str) -> str:
        """Checksum of the CT that a case was made from; of all its files together where none is known to be the CT."""
        group = self._group(split, case_id)
        with self._named_damage(split, case_id):
            source = str(group.attrs["source"])
            image: str | None = json.loads(source).get(json.loads(group.attrs["notes"]).get("image"))
        return image or source

    def _group(self, split: str, case_id: str) -> Any:
        if self._process != os.getpid():  # an open file must not be shared with a forked process
            self._file, self._process = None, os.getpid()
        try:
            self._file = self._file or h5py.File(self.path, "r")
            return self._file[f"{split}/{case_id}"]
        except DAMAGE as error:
            raise UserError(
                f"{self.path}: {split}/{case_id} can't be read ({error}); run preprocessing.py again"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to another process: everything but the open file."""
        return {**self.__dict__, "_file": None, "_process": -1}


def _settings(text: Any) -> dict[str, Any]:
    """The settings in a header. Raises one of ``DAMAGE``."""
    settings: dict[str, Any] = json.loads(text)
    sizes = [size for name in ("shape", "spacing_mm") for size in np.atleast_1d(settings.get(name, ())).tolist()]
    if not sizes or not all(0 < size < math.inf for size in sizes):
        raise ValueError(f"settings {text}")
    return settings


def _notes(text: Any) -> dict[str, Any]:
    """The notes in a header, which are lists of lines. Raises one of ``DAMAGE``."""
    notes: dict[str, Any] = json.loads(text)
    for name, lines in notes.items():
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise TypeError(f"{name} in its notes")
    return notes


def _foreground_index(label: np.ndarray) -> np.ndarray:
    """(N, 3) int16 foreground voxels, at most ``FOREGROUND_INDEX_SIZE``, evenly taken; plane by plane."""
    is_vertebra = np.isin(np.arange(256), ANATOMICAL_ORDER)
    counts = [np.count_nonzero(is_vertebra[plane]) for plane in label]
    ends = np.cumsum(counts)
    count = min(int(ends[-1]), FOREGROUND_INDEX_SIZE)
    taken = np.linspace(0, max(ends[-1] - 1, 0), count).astype(np.int64)  # of all foreground voxels in their order
    of_plane = np.split(taken, np.searchsorted(taken, ends[:-1]))
    parts = []
    for x, (plane, numbers, first) in enumerate(zip(label, of_plane, ends - counts, strict=True)):
        y, z = np.divmod(np.flatnonzero(is_vertebra[plane])[numbers - first], plane.shape[1])
        parts.append(np.stack([np.full_like(y, x), y, z], axis=1).astype(np.int16))
    return np.concatenate(parts)


def canonical_json(content: dict[str, Any]) -> str:
    """The same text for the same content."""
    return json.dumps(content, sort_keys=True)
