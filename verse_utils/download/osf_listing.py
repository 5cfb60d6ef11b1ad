"""OSF's list of the files in a folder, kept on disk, as OSF allows few requests.

The API is described at https://developer.osf.io: a folder's files come in pages of JSON:API, each file with size,
hashes and address. Without a token, 100 requests an hour are allowed; with one, 10,000 a day.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verse_utils.download.archives import MOST_MEMBERS, safe_path
from verse_utils.download.checksums import file_digest
from verse_utils.download.progress import Progress
from verse_utils.download.transfer import Client
from verse_utils.errors import BadArchiveError, SourceError
from verse_utils.files.writing import write_json

_PAGE = "page[size]=100"


@dataclass(frozen=True)
class ListedFile:
    """A file as OSF lists it.

    Attributes:
        path: below the listed folder.
        address: where it is downloaded.
        size: in bytes, if listed.
        sha256: hexadecimal, if listed.
        md5: hexadecimal, if listed.
    """

    path: str
    address: str
    size: int | None
    sha256: str | None
    md5: str | None

    @property
    def has_hash(self) -> bool:
        """Whether any hash is listed."""
        return bool(self.sha256 or self.md5)

    def check_types(self) -> None:
        """Raise TypeError where OSF listed something else than texts and a size."""
        texts = (self.path, self.address, self.sha256 or "", self.md5 or "")
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.size, int | None):
            raise TypeError(f"{self.path}: a size or text is none")

    def is_at(self, path: Path) -> bool:
        """Whether a whole file lies there, by its size."""
        return path.is_file() and self.size in (None, path.stat().st_size)

    def differs(self, path: Path) -> str:
        """What is wrong with a file that has come; "" if it is as listed."""
        if not self.is_at(path):
            return f"has {path.stat().st_size} bytes, and OSF lists {self.size}"
        for algorithm, listed in (("sha256", self.sha256), ("md5", self.md5)):
            if listed:
                found = file_digest(path, algorithm)
                return "" if found == listed.lower() else f"has {algorithm} {found}, and OSF lists {listed}"
        return ""


class OsfListing:
    """The files below a folder of OSF.

    Args:
        path: where the list is kept. It is written after each page, so that no request is made twice.
        address: of the folder in OSF's API.
    """

    def __init__(self, path: Path, address: str) -> None:
        self.path = path
        self.address = address

    def files(self, client: Client, progress_title: str) -> list[ListedFile]:
        """All files; what was not listed before is asked for. Raises SourceError if OSF does not answer."""
        pages, files = self._kept()
        asked: set[str] = set()
        with Progress(progress_title) as progress:
            while pages:
                address, folder = pages.pop(0)
                if address in asked:
                    raise SourceError("OSF's list of files leads in a circle")
                asked.add(address)
                more_pages, more_files = _read_page(client.json(address), folder)
                pages += more_pages
                files += more_files
                if len(files) + len(pages) + len(asked) > MOST_MEMBERS:
                    raise SourceError(f"OSF lists more than {MOST_MEMBERS} files")
                self._keep(pages, files)
                progress.add(len(more_files))
        return files

    def forget(self) -> None:
        """Remove the list, as it turned out to be wrong or old."""
        self.path.unlink(missing_ok=True)

    def _kept(self) -> tuple[list[list[str]], list[ListedFile]]:
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["address"] == self.address:
                pages = [[str(address), str(folder)] for address, folder in kept["pages"]]
                files = [ListedFile(**file) for file in kept["files"]]
                for file in files:
                    file.check_types()
                return pages, files
        except (OSError, ValueError, TypeError, KeyError):
            pass  # none yet, or one that was damaged
        return [[_with_page_size(self.address), ""]], []

    def _keep(self, pages: list[list[str]], files: list[ListedFile]) -> None:
        files_found = [asdict(file) for file in files]
        write_json(self.path, {"address": self.address, "pages": pages, "files": files_found})


def _with_page_size(address: str) -> str:
    return f"{address}{'&' if '?' in address else '?'}{_PAGE}"


def _read_page(page: Any, folder: str) -> tuple[list[list[str]], list[ListedFile]]:
    """Addresses and folders of the pages that a page leads to, and the files on it."""
    pages, files = [], []
    try:
        for item in page["data"]:
            attributes = item["attributes"]
            path = str(safe_path(f"{folder}{attributes['name']}"))
            if attributes["kind"] == "folder":
                below = item["relationships"]["files"]["links"]["related"]["href"]
                pages.append([_with_page_size(below), f"{path}/"])
                continue
            hashes = (attributes.get("extra") or {}).get("hashes") or {}
            file = ListedFile(
                path, item["links"]["download"], attributes.get("size"), hashes.get("sha256"), hashes.get("md5")
            )
            file.check_types()
            files.append(file)
        following = (page.get("links") or {}).get("next")
        if not all(isinstance(address, str) for address, _ in pages) or not isinstance(following, str | None):
            raise TypeError("an address is no text")
    except (KeyError, TypeError, AttributeError, BadArchiveError) as error:
        raise SourceError(f"OSF's list of files can't be read ({error!r})") from None
    return ([[following, folder]] if following else []) + pages, files
