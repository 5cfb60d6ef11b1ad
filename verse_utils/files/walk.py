"""The one way in which folders of data are searched."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder at or below a root, as ``os.walk`` does, sorted, without hidden files and folders.

    Hidden is what is not finished, such as a download, or a system's own. Links to folders are followed after all
    else, so that a folder that several paths lead to comes once, by its own path if that lies below the root. A link to
    a folder that holds the link itself is not followed.

    Args:
        root: a folder; where it is none, nothing is yielded.

    Yields:
        (folder, names of its folders, names of its files). Names that are removed from the folders are not entered.

    Warns:
        UserWarning: a folder can't be read; it is passed over.
    """
    seen: set[str] = set()
    starts = deque([Path(root)])
    while starts:
        for place, folders, files in os.walk(starts.popleft(), onerror=_warn):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = _visible(folders)
            yield Path(place), folders, _visible(files)
            links = (Path(place, name) for name in folders if os.path.islink(os.path.join(place, name)))
            starts.extend(link for link in links if not _is_circle(link))


def files_below(root: Path) -> Iterator[Path]:
    """The files at any depth below a folder, as ``walk`` finds them, without pipes and devices."""
    for folder, _, names in walk(root):
        paths = (folder / name for name in names)
        yield from (path for path in paths if path.is_file() or not path.exists())


def _visible(names: list[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def _is_circle(link: Path) -> bool:
    """Whether a link leads to a folder that holds it."""
    return os.path.realpath(link) in map(str, Path(os.path.realpath(link.parent), link.name).parents)


def _warn(error: OSError) -> None:
    if os.path.isdir(error.filename):
        warnings.warn(f"{error.filename}: can't be read ({error.strerror}); passed over", stacklevel=3)
