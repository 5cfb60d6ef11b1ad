"""VerSe's file and folder names, taken apart.

Names of the subject-based layout follow
``sub-{verseNNN|glNNN}[_split-verseMMM][_dir-{ax|sag|iso|cor}]_{kind}.{nii.gz|nii|json}``.

Those of the MICCAI layout, in which the challenges' data came, are ``verseNNN[_CT-{ax|sag|iso|cor}].nii.gz`` for a CT,
``…_seg.nii.gz`` for its mask and ``…_iso-ctd.json`` (VerSe19: ``…_ctd.json``) for its centroids, with "minor
variations" (osf.io/b2wxj/wiki) such as ``GL017_CT_ax.nii.gz``; ``verse400_verse090_CT-iso.nii.gz`` is scan 090 of the
patient 400. They get the ids that the scans have in the subject-based layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from verse_utils.errors import UserError

CT = "ct"
MASK = "seg-vert_msk"
CENTROIDS = ("seg-subreg_ctd", "seg-vb_ctd")  # the second is VerSe19's older name
SPLITS = ("training", "validation", "test")

_FILE_NAME = re.compile(
    r"^(?P<subject>sub-[A-Za-z0-9]+)"
    r"(?:_split-(?P<split>[A-Za-z0-9]+))?"
    r"(?:_dir-(?P<direction>ax|sag|iso|cor))?"
    rf"_(?P<kind>{CT}|{MASK}|{'|'.join(CENTROIDS)})"
    r"\.(?P<extension>nii\.gz|nii|json)\Z"
)

_MICCAI_FILE_NAME = re.compile(
    r"^(?P<subject>(?:verse|gl)\d+)"
    r"(?:[_-](?P<split>(?:verse|gl)\d+))?"
    r"(?:_CT[_-](?P<direction>ax|sag|iso|cor))?"
    r"(?:_(?P<mask>seg)\.nii(?:\.gz)?|[_-](?P<centroids>(?:iso-)?ctd)\.json|\.nii(?:\.gz)?)\Z",
    re.IGNORECASE,
)

# dataset-verse19training, dataset-02validation, 01_training, verse20test, training, "dataset-03test (1)"
_DATASET_FOLDER = re.compile(
    r"^(?:dataset[-_ ]?)?(?:verse(?P<edition>19|20)|(?P<number>0[1-3]))?[-_ ]?"
    r"(?P<split>training|validation|test)(?:[-_ ]?(?:copy|\(\d+\)))?\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FileName:
    """The parts of one VerSe file name; ``split`` here is the scan's ``split-`` entity, not the dataset's split."""

    subject: str
    split: str | None
    direction: str | None
    kind: str

    def case_id(self, direction: str | None = None) -> str:
        """Subject, split and direction joined as in the file name; ``direction`` replaces a missing one."""
        direction = self.direction or direction
        parts = [self.subject]
        parts += [f"split-{self.split}"] if self.split else []
        parts += [f"dir-{direction}"] if direction else []
        return "_".join(parts)


def is_same_scan(first: str, second: str) -> bool:
    """Whether two case ids of VerSe are one scan's, as layouts and editions name it.

    The number after ``split-``, else the subject's, is the scan's own; ``dir-`` may be on one of the two ids only.
    """
    one, other = (parse_file_name(f"{case_id}_{CT}.nii.gz") for case_id in (first, second))
    if one is None or other is None:
        return first == second
    scans = {name.split or name.subject.removeprefix("sub-") for name in (one, other)}
    return len(scans) == 1 and (one.direction == other.direction or None in (one.direction, other.direction))


def parse_file_name(name: str) -> FileName | None:
    """Take a file name apart; None for hidden files, sub-region masks and whatever else is not needed."""
    match = _FILE_NAME.match(name)
    if match is None:
        return _parse_miccai_file_name(name)
    is_image = match["kind"] in (CT, MASK)
    if is_image == (match["extension"] == "json"):  # sidecars of images, or a centroid list that is no JSON
        return None
    return FileName(match["subject"], match["split"], match["direction"], match["kind"])


def _parse_miccai_file_name(name: str) -> FileName | None:
    match = _MICCAI_FILE_NAME.match(name)
    if match is None:
        return None
    parts = {part: value.lower() for part, value in match.groupdict().items() if value}
    kind = MASK if "mask" in parts else CENTROIDS[0] if "centroids" in parts else CT
    return FileName(f"sub-{parts['subject']}", parts.get("split"), parts.get("direction"), kind)


def parse_dataset_folder(path: Path) -> tuple[str, int | None] | None:
    """Split and edition told by the nearest dataset folder at or above ``path``.

    Only a whole folder name counts, never a part of the path: in
    ``/home/u/latest/my_training/dataset-02validation`` the split is validation.

    Returns:
        (split, edition), the edition None where the name tells none; None where no folder is a dataset's.
    """
    for folder in (path, *path.parents):
        match = _DATASET_FOLDER.match(folder.name)
        if match:
            # The zips of VerSe20 are the numbered ones.
            edition = int(match["edition"]) if match["edition"] else 20 if match["number"] else None
            return match["split"].lower(), edition
    return None


def check_split(split: str) -> None:
    """Raise UserError unless a split has one of the three names."""
    if split not in SPLITS:
        raise UserError(f"no split {split!r}; give one of {', '.join(SPLITS)}")
