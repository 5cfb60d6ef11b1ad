"""CTSpine1K: ``volumes/COLONOG/CASE.nii.gz``, ``labels/COLONOG/CASE_seg.nii.gz`` and ``data_split.txt``.

Sources: the README and ``data_split.txt`` of github.com/MIRACLE-Center/CTSpine1K (Deng et al. 2021, arXiv 2105.14711),
and the copy at huggingface.co/datasets/alexanderdann/CTSpine1K, whose folders these are. The images are gathered from
four other data sets, so copies differ in their folders; a mask is told by its ``_seg``, or by lying in a folder of
labels. Labels are VerSe's, 1 to 25. ``data_split.txt`` lists trainset, test_public and test_private: here training,
validation and test, as the copy does. Vertebrae that the scan's end cuts are annotated, other than in VerSe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from verse_utils.cases import Case, Chosen
from verse_utils.errors import UserError
from verse_utils.files.walk import files_below
from verse_utils.layouts import NO_SPLIT, Layout, pair, put_in_split, stem

_SPLIT_FILE = "data_split.txt"
_IMAGE_FOLDERS, _MASK_FOLDERS = {"volumes", "volume", "images", "image", "data"}, {"labels", "label"}
_SPLITS = {"trainset": "training", "test_public": "validation", "test_private": "test"}
_ENDING = re.compile(r"\.nii(?:\.gz)?")


def _is_at(folder: Path, subfolders: Sequence[str], files: Sequence[str]) -> bool:
    names = set(subfolders)
    return _SPLIT_FILE in files or bool(names & _IMAGE_FOLDERS and names & _MASK_FOLDERS and _has_masks(folder, names))


def _has_masks(folder: Path, names: set[str]) -> bool:
    return any("_seg.nii" in path.name for name in names & _MASK_FOLDERS for path in files_below(folder / name))


def _read(folder: Path, chosen: Chosen) -> list[Case]:
    splits = _read_splits(folder)
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    problems: dict[str, str] = {}
    for path in files_below(folder):
        name = stem(path)
        if name is None:
            continue
        in_labels = bool(_MASK_FOLDERS & set(path.relative_to(folder).parts))
        kind = masks if name.endswith("_seg") or in_labels else images
        name = name.removesuffix("_seg")
        if name in kind and not chosen.leaves_out(name, name):
            problems[name] = f"{path}: of the same id as {kind[name]}"
        kind[name] = path
    chosen.tell(problems)
    return [
        Case(
            name,
            name,
            splits.get(name, NO_SPLIT),
            images[name],
            masks[name],
            data_set="CTSpine1K",
            licence="CC BY-NC-SA",
        )
        for name in pair(images, masks, chosen)
    ]


def _read_splits(folder: Path) -> dict[str, str]:
    """Case -> split; empty where there is no list in the folder, above it, or in ``metadata`` beside it."""
    places = [folder / _SPLIT_FILE, folder / "metadata" / _SPLIT_FILE]
    places += [folder.parent / _SPLIT_FILE, folder.parent / "metadata" / _SPLIT_FILE]
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        return {}
    splits: dict[str, str] = {}
    split = ""
    try:
        entries = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}); fetch the file again") from None
    for entry in entries:
        if entry.endswith(":"):
            split = _SPLITS.get(entry.removesuffix(":"), "")
        elif not split:
            raise UserError(f"{path}: {entry} stands below none of {', '.join(_SPLITS)}; fetch the file again")
        else:  # the published list ends with two names without a space between them
            for name in filter(None, _ENDING.split(entry)):
                put_in_split(splits, name, split, path)
    return splits


LAYOUT = Layout("CTSpine1K", "volumes/COLONOG/CASE.nii.gz", _is_at, _read)
