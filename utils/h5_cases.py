"""The one place that knows how preprocessed cases lie in HDF5.

``NAME.h5`` holds attributes and external links; each case is a file of its own below ``NAME.cases/``:

    NAME.h5                      attributes: schema, schema_version, task, settings (JSON)
      /<split>/<case>         -> NAME.cases/<split>/<case>.h5 : /case
    NAME.cases/<split>/<case>.h5
      /case                      attributes: patient, affine, spacing_mm, source_shape, source_affine, scale, offset,
                                 settings (JSON), source (JSON: names and sizes of the files it was made from)
      /case/image                (X, Y, Z) int16, HU
      /case/label                (X, Y, Z) uint8, raw VerSe labels
      /case/bone_vox             (N, 3) int16, voxels of vertebrae: an index for sampling

A file takes its name only when it is whole, so that a case is there whole or absent, many processes can write at once,
and a second run does only what is missing. ``NAME.h5`` and ``NAME.cases`` are moved together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.misc import written_aside
from utils.working_grid import WorkingGrid
from verse_utils.errors import UserError
from verse_utils.labels import LABEL_TABLES

SCHEMA = "spine-segmentation"
SCHEMA_VERSION = 1

# Small chunks waste little where a patch cuts them: a 128^3 patch reads 2.0 times its own voxels with edges of 32 on
# average, 3.4 times with edges of 64.
CHUNK_EDGE = 32
# As many voxels of bone as an index for sampling needs; more only cost memory.
BONE_INDEX_SIZE = 20_000


@dataclass(frozen=True)
class StoredCase:
    """What is stored of a case besides its arrays."""

    case_id: str
    patient: str
    split: str
    grid: WorkingGrid


def case_file(h5_path: Path, split: str, case_id: str) -> Path:
    """The file of one case that belongs to ``h5_path``."""
    return h5_path.with_suffix(".cases") / split / f"{case_id}.h5"


def write_case(
    path: Path, case: StoredCase, image_hu: np.ndarray, label: np.ndarray, settings: dict, source: dict
) -> None:
    """Write one case, whole or not at all.

    Args:
        path: as given by ``case_file``.
        case: id, patient, split and grid.
        image_hu: (X, Y, Z) int16, HU.
        label: (X, Y, Z) uint8, raw VerSe labels.
        settings: what the arrays were made with.
        source: what they were made from.
    """
    import h5py
    import hdf5plugin

    # Level 5 takes 1.7 times as long and saves 3 %: CT is mostly noise.
    compression = hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.SHUFFLE)
    chunks = tuple(min(CHUNK_EDGE, n) for n in image_hu.shape)
    with written_aside(path) as aside, h5py.File(aside, "w") as file:
        group = file.create_group("case")
        group.create_dataset("image", data=image_hu.astype(np.int16), chunks=chunks, compression=compression)
        group.create_dataset("label", data=label.astype(np.uint8), chunks=chunks, compression=compression)
        group.create_dataset("bone_vox", data=_bone_index(label))
        group.attrs["patient"] = case.patient
        group.attrs["affine"] = case.grid.affine
        group.attrs["spacing_mm"] = case.grid.spacing_mm
        group.attrs["source_shape"] = case.grid.source_shape
        group.attrs["source_affine"] = case.grid.source_affine
        group.attrs["scale"] = case.grid.scale
        group.attrs["offset"] = case.grid.offset
        group.attrs["settings"] = _canonical_json(settings)
        group.attrs["source"] = _canonical_json(source)


def is_written(path: Path, settings: dict, source: dict) -> bool:
    """Whether a case file is there and was made from the same source with the same settings."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            attributes = file["case"].attrs
            return (attributes["settings"], attributes["source"]) == (
                _canonical_json(settings),
                _canonical_json(source),
            )
    except (OSError, KeyError):
        return False


def write_links(h5_path: Path, task: str, settings: dict, cases: Iterable[tuple[str, str]]) -> None:
    """Write ``NAME.h5`` with a link to each (split, case id)."""
    import h5py

    with written_aside(h5_path) as aside, h5py.File(aside, "w") as file:
        file.attrs.update(schema=SCHEMA, schema_version=SCHEMA_VERSION, task=task, settings=_canonical_json(settings))
        for split, case_id in cases:
            target = os.path.relpath(case_file(h5_path, split, case_id), h5_path.parent)
            file[f"{split}/{case_id}"] = h5py.ExternalLink(target, "/case")


class H5Cases:
    """Read access to an H5 of preprocessed cases; files open lazily, once in each process.

    Raises:
        UserError: no such file, not an H5, another schema, version or task.
    """

    def __init__(self, path: Path, task: str | None = None) -> None:
        self.path = Path(path)
        self._process = -1
        self._open_groups: dict[tuple[str, str], Any] = {}
        self.settings: dict = {}
        self._case_ids: dict[str, list[str]] = {}
        self._read_header(task)

    def _read_header(self, task: str | None) -> None:
        import h5py

        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file; make it with preprocessing.py")
        try:
            with h5py.File(self.path, "r") as file:
                header = dict(file.attrs)
                case_ids = {split: sorted(group) for split, group in file.items() if isinstance(group, h5py.Group)}
        except OSError as error:
            raise UserError(f"{self.path}: not an HDF5 file ({error}); make it with preprocessing.py") from None
        if header.get("schema") != SCHEMA or header.get("schema_version") != SCHEMA_VERSION:
            found = f"{header.get('schema')} version {header.get('schema_version')}"
            raise UserError(
                f"{self.path}: schema is {found}, not {SCHEMA} version {SCHEMA_VERSION}; "
                "make it anew with preprocessing.py"
            )
        if task is not None and header["task"] != task:
            raise UserError(
                f"{self.path}: made for the task {header['task']}, not {task}; "
                f"run preprocessing.py with --task {task} and pass what it writes"
            )
        self.task: str = header["task"]
        self.settings = json.loads(header["settings"])
        self._case_ids = case_ids

    def case_ids(self, split: str) -> list[str]:
        """Ids of a split's cases, sorted."""
        return self._case_ids.get(split, [])

    def case(self, split: str, case_id: str) -> StoredCase:
        """What is stored of a case besides its arrays."""
        group = self._group(split, case_id)
        attributes = group.attrs
        i, j, k = (int(n) for n in attributes["source_shape"])
        grid = WorkingGrid(
            (i, j, k), attributes["source_affine"], group["image"].shape, attributes["scale"], attributes["offset"]
        )
        return StoredCase(case_id, attributes["patient"], split, grid)

    def read(self, split: str, case_id: str, where: tuple[slice, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Image (int16 HU) and label (uint8, raw) of a case, or of a part of it."""
        group = self._group(split, case_id)
        return group["image"][where], group["label"][where]

    def bone_vox(self, split: str, case_id: str) -> np.ndarray:
        """(N, 3) voxels of vertebrae, N at most ``BONE_INDEX_SIZE``, evenly taken; N = 0 where there is none."""
        return self._group(split, case_id)["bone_vox"][...]

    def _group(self, split: str, case_id: str) -> Any:
        if self._process != os.getpid():  # handles must not cross a fork
            self._open_groups, self._process = {}, os.getpid()
        if (split, case_id) not in self._open_groups:
            import h5py
            import hdf5plugin  # noqa: F401  registers the compression

            path = case_file(self.path, split, case_id)
            try:
                self._open_groups[split, case_id] = h5py.File(path, "r")["case"]
            except (OSError, KeyError) as error:
                raise UserError(f"{path}: can't be read ({error}); run preprocessing.py again") from None
        return self._open_groups[split, case_id]

    def __getstate__(self) -> dict:
        """Leave open handles behind when sent to another process."""
        return {**self.__dict__, "_open_groups": {}, "_process": -1}


def _bone_index(label: np.ndarray) -> np.ndarray:
    vertebrae = np.isin(label, list(LABEL_TABLES["binary"]))
    voxels = np.flatnonzero(vertebrae)
    if len(voxels) > BONE_INDEX_SIZE:
        voxels = voxels[np.linspace(0, len(voxels) - 1, BONE_INDEX_SIZE).astype(np.int64)]
    return np.stack(np.unravel_index(voxels, label.shape), axis=1).astype(np.int16)


def _canonical_json(content: dict) -> str:
    return json.dumps(content, sort_keys=True)
