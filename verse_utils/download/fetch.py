"""Fetch VerSe to a folder where it is missing: the way from the question whether to the finished folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from verse_utils.download.announcement import announce, require_room
from verse_utils.download.archives import member_paths, unpack
from verse_utils.download.checksums import FILE_NAME, Checksums
from verse_utils.download.progress import say
from verse_utils.download.sources import dataset_name, sources
from verse_utils.errors import BadArchiveError, SourceError, UserError
from verse_utils.files.lock import locked
from verse_utils.files.walk import walk
from verse_utils.names import CT, SPLITS, parse_dataset_folder, parse_file_name

WORK_FOLDER = ".download"  # below the data folder; what has come in part, and the lock
_FILES = (".h5", ".csv", ".json", ".zip", ".nii", ".gz")  # a path that ends so is no data folder, though it isn't there
_PATIENCE_S = 60.0  # how long a server may ask to wait if another source is left
_LAST_PATIENCE_S = 3700.0  # OSF counts requests by the hour


def fetch_where_missing(root: Path, editions: Sequence[int], download: bool | None = None) -> None:
    """Download the splits of editions of VerSe that are missing in a folder.

    What has come stays in ``root/.download`` until it is whole, so a run that was cut off is continued by the next.

    Args:
        root: the data folder, which need not exist.
        editions: 19 or 20, or both.
        download: True fetches each split that is missing. None does so only where ``root`` does not exist, holds no
            file, or holds a download that was not finished. False does nothing.

    Raises:
        UserError: no source can give a split, or it can't be written.
    """
    root = Path(root)
    is_file = os.path.isfile(root) or root.suffix.lower() in _FILES
    if download is False or is_file:
        return
    begun = any(_is_begun(root, edition) for edition in editions)
    if not (download or begun or _is_empty(root)):
        return
    missing = _missing(root, editions)
    if missing:
        require_room(root, missing, root / WORK_FOLDER)
        announce(root, missing, None if download else _state(root, begun))
    elif not begun:
        return
    with _workplace(root, [str(edition) for edition in editions]) as work:
        for edition, split in _missing(root, editions):  # again: another process may have fetched it meanwhile
            _fetch_split(root, work / str(edition), edition, split)
        for edition in editions:
            shutil.rmtree(work / str(edition), ignore_errors=True)


def unpack_zips(root: Path, archives: Sequence[Path], editions: Sequence[int]) -> None:
    """Unpack zips of VerSe that were downloaded elsewhere.

    Args:
        root: the data folder, which need not exist.
        archives: the zips; names such as dataset-verse19training.zip, or folders in them, tell the split.
        editions: one, of zips that don't tell it; or both, if all tell it.

    Raises:
        UserError: not a zip of VerSe, or it can't be written.
    """
    with _workplace(Path(root), ["zips"]) as work:
        for archive in map(Path, archives):
            if not archive.is_file():
                raise UserError(f"{archive}: no such file; give the zips to --from_zip")
            try:
                found_edition, split = _edition_and_split(archive, editions)
                if (found_edition, split) not in _missing(root, [found_edition]):
                    say(f"{archive}: the {split} split of VerSe{found_edition} is in {root} already")
                    continue
                unpacked = work / "zips" / dataset_name(found_edition, split)
                unpack(archive, unpacked)
            except BadArchiveError as error:
                raise UserError(f"{archive}: {error}; download it again") from None
            _move_into_place(unpacked, root / dataset_name(found_edition, split))


def _fetch_split(root: Path, work: Path, edition: int, split: str) -> None:
    """Get a split from the first source that can give it."""
    name = dataset_name(edition, split)
    _require_free_place(root / name)
    choices = sources(edition, split)
    failures = []
    for source in choices:
        patience_s = _LAST_PATIENCE_S if source is choices[-1] else _PATIENCE_S
        try:
            unpacked = source.fetch(work, name, Checksums(root), patience_s)
        except SourceError as error:
            failures.append(f"{source.shown}: {error}")
            if source is not choices[-1]:
                say(f"{failures[-1]}; trying the next source")
        else:
            _move_into_place(unpacked, root / name)
            for path in work.glob(f"{name}.*"):  # its zip, and what another source brought
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            return
    raise UserError(
        f"{name} can't be downloaded ({'; '.join(failures)}); try again later, which goes on from here, "
        "or fetch its zip elsewhere and pass it to preprocessing.py as --from_zip"
    )


def _missing(root: Path, editions: Sequence[int]) -> list[tuple[int, str]]:
    """Edition and split of what no CT is found of."""
    found = set()
    for folder, _, files in walk(root):
        names = map(parse_file_name, files)
        if any(name is not None and name.kind == CT for name in names):
            found.add(parse_dataset_folder(folder.absolute()))
    there: set[tuple[int, str]] = set()
    for split, its_edition in filter(None, found):  # a folder that doesn't tell its edition counts for each
        there |= {(edition, split) for edition in ([its_edition] if its_edition else editions)}
    return [(edition, split) for edition in editions for split in SPLITS if (edition, split) not in there]


def _state(root: Path, begun: bool) -> str:
    """Why a download begins that was not asked for."""
    if not os.path.exists(root):
        return "no such folder"
    return "its download was not finished" if begun else "holds no file"


def _is_begun(root: Path, edition: int) -> bool:
    return os.path.isdir(root / WORK_FOLDER / str(edition))  # Path's methods raise for names that are too long


def _is_empty(root: Path) -> bool:
    """Whether there is nothing below a folder but folders, hidden files and the checksums of downloads."""
    for folder, subfolders, files in walk(root):
        subfolders[:] = [name for name in subfolders if name != "lost+found"]
        if set(files) - {FILE_NAME} or any((folder / name).is_symlink() for name in subfolders):  # which leads to more
            return False
    return True


def _edition_and_split(archive: Path, editions: Sequence[int]) -> tuple[int, str]:
    """What a zip holds, by its name or else by the folders in it."""
    told = parse_dataset_folder(Path(archive.stem))
    if told is None or told[1] is None:
        scans = [path for path in member_paths(archive) if parse_file_name(path.name) is not None]
        by_folders = {parse_dataset_folder(Path(path.parent)) for path in scans} - {None}
        if len(by_folders) == 1:
            told = by_folders.pop()
    example = f"{dataset_name(editions[0], SPLITS[0])}.zip"
    if told is None:
        raise UserError(f"{archive}: nothing tells its split; rename it like {example}")
    split, found_edition = told
    if found_edition is None and len(editions) > 1:
        raise UserError(f"{archive}: nothing tells its edition; rename it like {example}")
    return found_edition or editions[0], split


def _require_free_place(target: Path) -> None:
    """Raise UserError if something lies where a dataset folder is to be."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and _is_empty(target))):
        raise UserError(f"{target}: is there but holds no CT of this split; move it elsewhere")


def _move_into_place(unpacked: Path, target: Path) -> None:
    _require_free_place(target)
    shutil.rmtree(target, ignore_errors=True)  # an empty folder
    os.replace(unpacked, target)


@contextmanager
def _workplace(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """The folder of unfinished downloads, with subfolders of these names; one process at a time works in it.

    Nothing stays behind but what a later run can use, and no folder that was made for it and stayed empty.

    Raises:
        UserError: an OSError within it: the disk is full, the folder read-only.
    """
    work = root / WORK_FOLDER

    def on_busy(holder: str) -> None:
        say(f"{root}: {holder} downloads to it; waiting until it has finished")

    made = [folder for folder in (work, *work.absolute().parents) if not os.path.exists(folder)]
    try:
        with locked(work / "lock", on_busy):
            for name in names:
                (work / name).mkdir(exist_ok=True)
            try:
                yield work
            finally:
                _remove_unused(root, work)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        reason = os.strerror(error.errno) if error.errno else error
        raise UserError(
            f"{root}: can't be written ({place}{reason}); make room or choose another folder, "
            "and the same command goes on from here"
        ) from None
    finally:
        for folder in made:
            if os.path.isdir(folder) and not any(folder.iterdir()):
                folder.rmdir()


def _remove_unused(root: Path, work: Path) -> None:
    """Remove what no later run needs.

    The folder of an edition stays while only some of its splits are there, so that the next run goes on.
    """
    shutil.rmtree(work / "zips", ignore_errors=True)
    for folder in [path for path in work.iterdir() if path.is_dir()]:
        if _is_empty(root) and not any(path.is_file() for path in folder.rglob("*")):
            shutil.rmtree(folder)
