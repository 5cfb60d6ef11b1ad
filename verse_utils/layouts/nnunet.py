"""nnU-Net's raw data sets: ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz`` and ``dataset.json``.

Source: ``documentation/dataset_format.md`` of github.com/MIC-DKFZ/nnUNet. ``labels`` in ``dataset.json`` maps names to
numbers (version 1 and the Medical Segmentation Decathlon: numbers to names). Names of vertebrae, such as ``L1`` and
``vertebrae_L1``, become VerSe's labels; a single ``vertebra`` or ``spine`` becomes 1, the mask that names none.

Split: ``imagesTs`` with ``labelsTs`` is the test split; ``imagesTs`` alone has no masks and is left out. The first fold
of a ``splits_final.json`` beside ``dataset.json`` tells training from validation.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verse_utils.cases import Case, Chosen
from verse_utils.errors import UserError, one_line
from verse_utils.files.text import read_text
from verse_utils.layouts import NO_SPLIT, Layout, pair, put_in_split, stem
from verse_utils.numberings import Numbering, vertebra_label

_ANY_VERTEBRA = re.compile(r"(vertebra(e|l.*)?|spine|foreground)", re.IGNORECASE)
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL)


def _is_at(folder: Path, subfolders: Sequence[str], files: Sequence[str]) -> bool:
    return "dataset.json" in files and {"imagesTr", "labelsTr"} <= set(subfolders)


def _read(folder: Path, chosen: Chosen) -> list[Case]:
    path = folder / "dataset.json"
    content = _read_json(path)
    numbering = _numbering(content, path)
    licence = str(content.get("licence") or content.get("license") or "not stated")
    channel = _ct_channel(content, path)
    ending = content.get("file_ending", ".nii.gz")
    if ending not in (".nii.gz", ".nii"):
        raise UserError(f"{path}: its files are {ending}, but only NIfTI is read; convert them to .nii.gz")
    splits = _first_fold(folder / "splits_final.json")
    cases: list[Case] = []
    for part, default in (("Tr", NO_SPLIT), ("Ts", "test")):
        if not (folder / f"labels{part}").is_dir():
            continue
        images = _images(folder / f"images{part}", channel)
        masks = {name: file for file in sorted((folder / f"labels{part}").iterdir()) if (name := stem(file))}
        in_training = {case.case_id for case in cases}
        for name in pair(images, masks, chosen):
            if name in in_training:
                raise UserError(f"{images[name]}: imagesTr has a case {name} too; remove one of them, or rename it")
            split = splits.get(name, default) if part == "Tr" else default
            data_set = f"nnU-Net {one_line(folder.name)}"
            cases.append(Case(name, name, split, images[name], masks[name], None, numbering, data_set, licence))
    return cases


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read as JSON ({error}); repair it") from None


def _numbering(content: Any, path: Path) -> Numbering:
    """What the numbers of the masks mean, by the names in ``dataset.json``."""
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict):
        raise UserError(f'{path}: has no "labels", which tell what the numbers in the masks mean; add them')
    number_of: dict[str, int] = {}
    for key, value in labels.items():
        if isinstance(value, list):  # a region of several labels, which have names of their own
            continue
        name, number = (value, key) if str(key).isdecimal() else (key, value)
        if not str(number).isdecimal() or len(str(number)) > 3 or int(number) > 255:
            raise UserError(f"{path}: label {name!r} is {number!r}, not a number from 0 to 255; repair it")
        if str(name) in number_of or int(number) in number_of.values():
            raise UserError(f"{path}: label {name!r}, {number}, has the name or the number of another; repair it")
        number_of[str(name)] = int(number)
    label_of = {number: vertebra_label(name) or 0 for name, number in number_of.items() if number}
    if len(label_of) == 1 and all(_ANY_VERTEBRA.fullmatch(name) for name, number in number_of.items() if number):
        label_of = dict.fromkeys(label_of, 1)
    if not any(label_of.values()):
        raise UserError(f"{path}: none of its labels ({', '.join(number_of)}) is a vertebra, such as L1; rename them")
    others = [name for name, number in number_of.items() if number and not label_of[number]]
    if others:
        warnings.warn(f"{path}: taken for background: {', '.join(others)}", stacklevel=2)
    return Numbering(f"of {path}", label_of)


def _ct_channel(content: Any, path: Path) -> str:
    """The four digits of the images' names that are the CT's."""
    names = content.get("channel_names") or content.get("modality") or {"0": "CT"}
    if not isinstance(names, dict) or not all(str(number).isdecimal() for number in names):
        raise UserError(f'{path}: its channel_names don\'t map numbers to names, such as "0": "CT"; repair it')
    found = [number for number, name in names.items() if len(names) == 1 or str(name).upper() == "CT"]
    if len(found) != 1:
        raise UserError(f"{path}: of its {len(names)} channels, {len(found)} are named CT; name the one that is")
    return f"{int(found[0]):04d}"


def _images(folder: Path, channel: str) -> dict[str, Path]:
    """The CT of each case; in the Decathlon's layout, names have no channel."""
    images = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = stem(file)
        match = _CHANNEL.fullmatch(name) if name else None
        if match and match["channel"] == channel:
            images[match["case"]] = file
        elif name and not match:
            images[name] = file
    return images


def _first_fold(path: Path) -> dict[str, str]:
    """Case -> split, as the first fold tells it; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        fold = _read_json(path)[0]
        splits: dict[str, str] = {}
        for part, split in (("train", "training"), ("val", "validation")):
            for name in fold[part]:
                put_in_split(splits, name, split, path)
        return splits
    except (LookupError, TypeError):
        raise UserError(f"{path}: no list of folds with train and val, as nnU-Net writes it; remove it") from None


LAYOUT = Layout("nnU-Net", "imagesTr/CASE_0000.nii.gz", _is_at, _read)
