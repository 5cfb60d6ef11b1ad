"""Which files of a folder or an archive make a CT, and which are left out."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from utils.files.dicom.files import DicomFile, may_be_dicom
from utils.files.dicom.headers import Content, Slice, read_content, reason
from utils.files.dicom.stacks import SAME_POSITION_MM
from verse_utils.errors import UserError

# What a file, or a member of a damaged or encrypted archive, raises.
_READ_ERRORS = (ValueError, OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


class FoundSeries(NamedTuple):
    """A CT series, or a place that holds none.

    Attributes:
        place: folder, file or archive that it lies in.
        slices: as their headers tell, in no order.
        remarks: what was chosen and what was left out, a line each.
        error: why there is no series; "" where there is one.
    """

    place: Path
    slices: tuple[Slice, ...]
    remarks: tuple[str, ...]
    error: str = ""


def files_in_archive(path: Path) -> list[DicomFile]:
    """The files in a ZIP archive. Raises UserError where it can't be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{path}: can't be read as a ZIP archive; fetch the file again") from None
    return [DicomFile(path, name) for name in sorted(names) if not any(p.startswith(".") for p in name.split("/"))]


class _Unreadable(NamedTuple):
    """A file that is DICOM, or named so, and why it can't be read."""

    file: DicomFile
    reason: str


class _Series(NamedTuple):
    """Files of one series, in one place."""

    place: Path
    contents: list[Content]

    @property
    def slices(self) -> list[Slice]:
        """Of all files."""
        return [one for content in self.contents for one in content.slices]

    @property
    def order(self) -> tuple[int, int, str]:
        """Sorts the series to be read to the front: that of most slices, then of the lowest number."""
        return (-len(self.slices), self.contents[0].number, self.contents[0].series)

    def described(self) -> str:
        """What the user may know it by."""
        first = self.contents[0]
        kinds = Counter(content.other for content in self.contents if content.other)
        kind = "".join(f", {other}" for other in kinds if not self.slices)
        kernel = f", kernel {first.kernel}" if first.kernel and self.slices else ""
        count = len(self.slices) or len(self.contents)
        return f"{first.description or first.series} ({count} slices{kernel}{kind})"

    def is_meant(self, wanted: str) -> bool:
        """Whether a UID or description names it."""
        names = {self.contents[0].series, self.contents[0].description.casefold()}
        return wanted in names or wanted.casefold() in names


def find_series(files: Iterable[DicomFile], wanted: str | None = None) -> list[FoundSeries]:
    """Find the CT series among files: one of each patient in a place, the others are named.

    Args:
        files: that may be DICOM; others are passed over.
        wanted: UID or description of the series to take; without it, that with most slices is taken.

    Returns:
        Series and places without any, sorted by place; nothing where no file is DICOM.
    """
    series, unreadable = _read_all(files)
    by_place = defaultdict(list)
    for one in series:
        by_place[one.place, one.contents[0].patient].append(one)
    chosen: dict[tuple[Path, str], _Series] = {}
    for key, members in by_place.items():
        meant = [one for one in members if one.slices and (wanted is None or one.is_meant(wanted))]
        if meant:
            chosen[key] = min(meant, key=lambda one: one.order)
    without = {key: members for key, members in by_place.items() if key not in chosen}
    studies = {one.contents[0].study for one in chosen.values()}
    found = []
    for (place, patient), one in chosen.items():
        study = one.contents[0].study
        elsewhere = [other for others in without.values() for other in others if other.contents[0].study == study]
        unread = [file for folder in _folders(one) for file in unreadable.pop(folder, [])]
        remarks = _remarks(one, by_place[place, patient], elsewhere, wanted) + _unread(place, unread)
        found.append(FoundSeries(place, tuple(one.slices), tuple(remarks)))
    for (place, _), members in without.items():
        if not any(one.contents[0].study in studies for one in members) and not (wanted and chosen):
            names = ", ".join(one.described() for one in members)
            what = f"no CT series {wanted!r}" if wanted else "no CT series"
            found.append(FoundSeries(place, (), (), f"{place}: {what} here, only {names}; give the folder of one"))
        unreadable.pop(place, None)
    found += [FoundSeries(place, (), (), _no_slice(place, files)) for place, files in unreadable.items()]
    return sorted(found, key=lambda one: (one.place, [slice_.file for slice_ in one.slices]))


def _read_all(files: Iterable[DicomFile]) -> tuple[list[_Series], dict[Path, list[_Unreadable]]]:
    """What files hold, sorted into series; and by their folders, those that are DICOM and can't be read."""
    groups: dict[str, dict[Path, list[Content]]] = defaultdict(lambda: defaultdict(list))
    unreadable: dict[Path, list[_Unreadable]] = defaultdict(list)
    for file in files:
        try:
            if not may_be_dicom(file):
                if file.name.lower().endswith(".dcm"):
                    unreadable[file.place].append(_Unreadable(file, "no DICOM"))
                continue
            content = read_content(file)
        except _READ_ERRORS as error:
            unreadable[file.place].append(_Unreadable(file, reason(error)))
            continue
        if content is not None:
            groups[content.series][file.place].append(content)
    series = []
    for by_place in groups.values():
        parts = [_Series(place, alike) for place, contents in by_place.items() for alike in _of_one_patient(contents)]
        series += [_joined(parts)] if _are_parts(parts) else parts
    return series, unreadable


def _of_one_patient(contents: list[Content]) -> list[list[Content]]:
    """What one UID names in one place, divided where it is of several patients, studies or frames of reference.

    Positions in different frames of reference have nothing to do with each other. Files that lack such an attribute
    belong to the others where these agree.
    """
    parts = [contents]
    for attribute in ("patient", "study", "frame_of_reference"):
        divided: list[list[Content]] = []
        for part in parts:
            by_value = defaultdict(list)
            for content in part:
                by_value[getattr(content, attribute)].append(content)
            divided += [part] if len(by_value.keys() - {""}) < 2 else by_value.values()
        parts = divided
    return parts


def _are_parts(parts: list[_Series]) -> bool:
    """Whether folders hold one series in pieces, as some exports do: the same slices nowhere twice."""
    slices = [one for part in parts for one in part.slices]
    if len(parts) < 2 or len({one.size for one in slices}) != 1:
        return False
    if len(_of_one_patient([content for part in parts for content in part.contents])) > 1:
        return False
    places = {tuple((one.position_mm / (10 * SAME_POSITION_MM)).round()) for one in slices}
    return len(places) == len(slices) and all(part.slices for part in parts)


def _folders(one: _Series) -> set[Path]:
    return {content.file.place for content in one.contents}


def _joined(parts: list[_Series]) -> _Series:
    place = Path(os.path.commonpath([part.place for part in parts]))
    return _Series(place, [content for part in parts for content in part.contents])


def _remarks(one: _Series, members: list[_Series], elsewhere: list[_Series], wanted: str | None) -> list[str]:
    """What was read and what was left out."""
    lines = []
    if others := [other for other in members if other is not one]:
        others.sort(key=lambda other: other.order)
        names = ", ".join(other.described() for other in others)
        can_choose = wanted is None and any(other.slices for other in others)
        remedy = "; --series takes another, by UID or description" if can_choose else ""
        left_out = f"{len(others)} other series left out: {names}"
        lines.append(f"{one.place}: {left_out}; read: {one.described()}{remedy}")
    if other := [content for content in one.contents if not content.slices]:
        kinds = ", ".join(f"{content.file.name} ({content.other})" for content in other[:4])
        lines.append(f"{one.place}: {len(other)} files of the series left out: {kinds}")
    lines += [f"{other.place}: left out: {other.described()}" for other in elsewhere]
    return lines


def _unread(place: Path, files: list[_Unreadable]) -> list[str]:
    if not files:
        return []
    first = f"{files[0].file.name} the first ({files[0].reason})"
    return [f"{place}: {len(files)} DICOM files can't be read as slices, {first}"]


def _no_slice(place: Path, files: list[_Unreadable]) -> str:
    first = f"{files[0].file.name}: {files[0].reason}"
    return f"{place}: no DICOM slice can be read ({first}); give the folder of a CT series"
