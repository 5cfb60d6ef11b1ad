"""Find the scans that a user means: image files and DICOM series. Opens no image."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils.files.dicom.files import DicomFile, may_be_dicom
from utils.files.dicom.find import FoundSeries, files_in_archive, find_series
from utils.files.dicom.headers import Slice, has_several_frames
from verse_utils.errors import UserError, one_line
from verse_utils.files.walk import files_below

WHAT_TO_GIVE = "give NIfTI (.nii, .nii.gz), NRRD, MHA, MHD or Analyze files, folders of them or of DICOM slices"
IMAGE_ENDING = re.compile(r"\.(nii(\.gz)?|nrrd|nhdr|mha|mhd|hdr(\.gz)?)\Z", re.IGNORECASE)
# Of the files of voxels that a header names.
_VOXELS_ENDING = re.compile(r"\.(z?raw|img)(\.gz)?\Z", re.IGNORECASE)
_HEADER_ENDINGS = (".mhd", ".nhdr", ".hdr", ".hdr.gz", ".HDR")
# Names of masks and of this project's results, which lie beside scans.
_MASK_NAME = re.compile(
    rf"[_.](msk|mask|seg|label|labels|vertebrae|vertebrae_slices|probabilities)(?={IMAGE_ENDING.pattern})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ScanSource:
    """Where a scan lies, and the name of its output.

    Attributes:
        path: an image file, in an archive as if that were a folder; of DICOM, the folder or archive of a series, or
            its one file.
        name: without ending.
        slices: of a DICOM series, as their headers tell: none is read again.
        member: of an image in an archive, the file there.
        remarks: what should be known of how it was found, a line each.
        error: why there is no scan; "" where there may be one.
    """

    path: Path
    name: str
    slices: tuple[Slice, ...] = field(default=(), compare=False, repr=False)
    remarks: tuple[str, ...] = ()
    error: str = ""
    member: DicomFile | None = None

    @property
    def files(self) -> tuple[DicomFile, ...]:
        """Those of a DICOM series."""
        return tuple(dict.fromkeys(one.file for one in self.slices))

    def resolved(self) -> ScanSource:
        """The same with paths that hold in any working folder."""
        file_of = {file: replace(file, path=file.path.resolve()) for file in self.files}
        slices = tuple(replace(one, file=file_of[one.file]) for one in self.slices)
        member = self.member and replace(self.member, path=self.member.path.resolve())
        return replace(self, path=self.path.resolve(), slices=slices, member=member)


def find_scans(inputs: Sequence[str], series: str | None = None) -> list[ScanSource]:
    """Find the scans that a user means, in order, without duplicates, with distinct names. Of DICOM, headers are read.

    Args:
        inputs: image files (a file of voxels stands for its header), folders of them, folders of DICOM slices at any
            depth (a slice stands for its folder, a DICOMDIR for all below its folder), ZIP archives of either, or glob
            patterns. Any other file that is named is taken too, and refused by ``open_scan`` unless it is NIfTI.
        series: UID or description of the DICOM series to take where there are several.

    Returns:
        Scans, and for each input without any, a source that says so.
    """
    sources: dict[tuple[Path, tuple[DicomFile, ...]], ScanSource] = {}
    folders = _Folders(series)
    for text in inputs:
        try:
            found = [(source, source.resolved()) for source in _scans_of_input(text, series, folders)]
        except (UserError, OSError) as error:  # too long a name, a folder that may not be entered, a circle of links
            why = f"{text}: can't be read ({error.strerror}); {WHAT_TO_GIVE}" if isinstance(error, OSError) else error
            failed = ScanSource(Path(text), "", error=str(why))
            found = [(failed, failed)]
        for source, resolved in found:
            sources.setdefault((resolved.path, resolved.files), source)
    names = _distinct_names([source.path for source in sources.values()])
    return [replace(source, name=name) for source, name in zip(sources.values(), names, strict=True)]


class _Folders:
    """The DICOM series directly in folders, each read once however many of its slices are named."""

    def __init__(self, series: str | None) -> None:
        self._series = series
        self._found: dict[Path, list[ScanSource]] = {}
        self._slices: set[Path] = set()

    def scans(self, folder: Path) -> list[ScanSource]:
        """Those in a folder."""
        if folder not in self._found:
            files = sorted(path for path in folder.glob("[!.]*") if path.is_file())
            self._found[folder] = found = _sources(find_series(_may_be_dicom(map(DicomFile, files)), self._series))
            self._slices |= {one.file.path for source in found for one in source.slices if one.frames == 1}
        return self._found[folder]

    def is_slice(self, path: Path) -> bool:
        """Whether a file is one slice of a series in a folder that was read."""
        return path in self._slices


def _scans_of_input(text: str, series: str | None, folders: _Folders) -> list[ScanSource]:
    path = Path(text)
    if not text:  # as of a shell's variable that isn't set; a path of it would be the working folder
        raise UserError(f"'': names no file; {WHAT_TO_GIVE}")
    if path.is_file():
        return _scans_of_file(path, series, folders)
    if path.is_dir():
        scans = _scans_in_folder(path, series)
    elif glob.has_magic(text):
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        files = [match for match in matches if match.is_file() and not _MASK_NAME.search(match.name)]
        known = [match for match in files if is_image(match) or is_dicom(match) or match.suffix.lower() == ".zip"]
        scans = [source for match in known for source in _scans_of_file(match, series, folders)]
        scans += [scan for match in matches if match.is_dir() for scan in _scans_in_folder(match, series)]
    else:
        what = "a device or a pipe, not a file" if path.exists() else "no such file or folder"
        raise UserError(f"{text}: {what}; {WHAT_TO_GIVE}")
    if not scans:
        deeper = f"; images deeper in it by a pattern, as '{path}/**/*_ct.nii.gz'" if path.is_dir() else ""
        raise UserError(f"{text}: no scan found here; {WHAT_TO_GIVE}{deeper}")
    return scans


def _scans_of_file(path: Path, series: str | None, folders: _Folders) -> list[ScanSource]:
    """The scan that a file is or stands for."""
    if path.name.upper() == "DICOMDIR":
        return _scans_in_folder(path.parent, series)
    if path.suffix.lower() == ".zip":
        return _archive_sources(path, series)
    if is_dicom(path):
        if not folders.is_slice(path) and has_several_frames(DicomFile(path)):
            return [replace(source, path=path) for source in _sources(find_series([DicomFile(path)], series))]
        return folders.scans(path.parent)
    return [ScanSource(_header_of(path) or path, "")]


def _header_of(path: Path) -> Path | None:
    """The header beside a file of voxels; None where the file is none or has none."""
    return next((header for name in _headers_for(path.name) if (header := path.with_name(name)).is_file()), None)


def _archive_sources(path: Path, series: str | None) -> list[ScanSource]:
    try:
        found = _scans_among(files_in_archive(path), series)
    except UserError as error:
        return [ScanSource(path, "", error=str(error))]
    return found or [ScanSource(path, "", error=f"{path}: no scan in the archive; {WHAT_TO_GIVE}")]


def _sources(found: Iterable[FoundSeries]) -> list[ScanSource]:
    return [ScanSource(one.place, "", one.slices, one.remarks, one.error) for one in found]


def _scans_in_folder(folder: Path, series: str | None) -> list[ScanSource]:
    """The scans directly in a folder or, where there is none, below it: images one folder deep, DICOM at any depth."""
    directly = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    archives = [path for path in directly if path.suffix.lower() == ".zip"]
    scans = _scans_among(map(DicomFile, directly), series)
    for archive in archives:
        scans += _archive_sources(archive, series)
    if any(not scan.error for scan in scans):
        return sorted(scans, key=lambda source: source.path)
    return _scans_among(map(DicomFile, files_below(folder)), series, folder) or scans


def _scans_among(files: Iterable[DicomFile], series: str | None, top: Path | None = None) -> list[ScanSource]:
    """The DICOM series among files, and images that aren't named as masks and lie in no folder of a series.

    Args:
        top: images deeper than one folder below it are none.
    """
    files = [file for file in files if not _MASK_NAME.search(file.name) and file.name.upper() != "DICOMDIR"]
    images = sorted(
        file for file in files if is_image(Path(file.name)) and (top is None or top in (file.place, file.place.parent))
    )
    found = find_series(_may_be_dicom(files), series)
    series_of = {one.place for one in found if not one.error}
    image_folders = {image.place for image in images} - series_of
    sources = []
    for source in _sources(one for one in found if not (one.error and one.place in image_folders)):
        if beside := [image.name for image in images if image.place == source.path and not source.error]:
            left_out = f"images beside the DICOM series left out: {', '.join(beside[:4])}"
            remark = f"{source.path}: {left_out}; name one to take it"
            source = replace(source, remarks=(*source.remarks, remark))
        sources.append(source)
    others = [image for image in images if image.place not in series_of]
    sources += [ScanSource(image.place / image.name, "", member=image if image.member else None) for image in others]
    return sorted(sources, key=lambda source: source.path)


def _may_be_dicom(files: Iterable[DicomFile]) -> list[DicomFile]:
    """Files without images, and without the voxels of these."""
    files = list(files)
    names = {(file.place, file.name) for file in files}
    return [
        file
        for file in files
        if not is_image(Path(file.name)) and not any((file.place, name) in names for name in _headers_for(file.name))
    ]


def _headers_for(name: str) -> list[str]:
    """How the header of a file of voxels may be named; none where the name is no such file's."""
    stem = _VOXELS_ENDING.sub("", name)
    return [] if stem == name else [stem + ending for ending in _HEADER_ENDINGS]


def is_image(path: Path) -> bool:
    """Whether a file is an image of another format than DICOM, by its ending; of a pair, the header is."""
    return bool(IMAGE_ENDING.search(path.name))


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM object by its ending or its first bytes; an index (DICOMDIR) isn't."""
    if path.name.upper() == "DICOMDIR" or is_image(path):
        return False
    try:
        return path.suffix.lower() == ".dcm" or may_be_dicom(DicomFile(path))
    except OSError:
        return False


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name for each path, in one line; like names get up to three parent folders in front, then ``_2``.

    Files of one folder that differ in their endings alone keep these: ``ct_nii`` and ``ct_nii_gz``.
    """
    places = {path: os.path.abspath(path) for path in paths}
    stems = {path: IMAGE_ENDING.sub("", place) for path, place in places.items()}
    twins = Counter(stems.values())
    for path, stem in stems.items():
        if twins[stem] > 1:
            stems[path] = stem + places[path][len(stem) :].replace(".", "_")
    parts = {path: stem.split(os.sep) for path, stem in stems.items()}
    name_of = {path: own[-1] for path, own in parts.items()}
    for parents in (1, 2, 3):
        counts = Counter(name_of.values())
        name_of |= {path: "_".join(parts[path][-1 - parents :]) for path, name in name_of.items() if counts[name] > 1}
    names = [one_line(name_of[path]) for path in paths]
    for position in range(len(names)):
        while names[position] in names[:position]:
            names[position] += "_2"
    return names
