"""OSF as a source: the zip of a folder while it comes, and file by file what it did not bring.

OSF makes the zip of a folder while it is sent, so it has no length, no ranges and no hash, and what was cut can't be
resumed. So each member is unpacked as it comes, and stays. The files that are missing then are taken one by one, and
compared with the hashes that OSF lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stream_unzip import UnzipError, stream_unzip

from verse_utils.download.archives import require_scan, require_size, safe_path
from verse_utils.download.checksums import Checksums
from verse_utils.download.osf_listing import ListedFile, OsfListing
from verse_utils.download.progress import Progress, say
from verse_utils.download.transfer import Attempts, Client, blocks, bounded
from verse_utils.errors import BadArchiveError, InterruptedTransferError, SourceError, UserError
from verse_utils.files.disk import require_free

_TOKEN = "OSF_TOKEN"
_ADVICE = f"; with a token of osf.io in {_TOKEN}, OSF allows 10,000 requests a day in place of 100 an hour"
_PART = ".part"  # ends the name of a file that is not whole yet


@dataclass(frozen=True)
class OsfSource:
    """A folder of OSF.

    Attributes:
        zip_address: of its zip.
        listing_address: of its list of files in OSF's API.
    """

    zip_address: str
    listing_address: str

    @property
    def shown(self) -> str:
        """The address as messages have it."""
        return self.listing_address

    def fetch(self, work: Path, name: str, checksums: Checksums, patience_s: float) -> Path:
        """Get all files of the folder; see ``ZipSource.fetch``. Each file that came whole is kept for the next run."""
        token = _token()
        client = Client(patience_s, token, advice="" if token else _ADVICE)
        folder = work / f"{name}.osf"
        listing = OsfListing(work / f"{name}.listing.json", self.listing_address)
        reason = ""
        if not any(_whole_files(folder)):
            reason = self._unpack_zip(client, folder, name)
            if not reason:
                return folder
            say(f"{name}: {reason}; what is missing comes file by file{client.advice}")
        try:
            _fetch_files(client, listing, folder, name)
        except SourceError as error:
            # The zip needs one request only, so it is worth another try where OSF's API does not answer.
            if reason:
                raise SourceError(f"the zip: {reason}; its files: {error}") from None
            say(f"{name}: {error}; so the zip is fetched, and what it brings is added")
            reason = self._unpack_zip(client, folder, name)
            if reason:
                raise SourceError(f"its files: {error}; the zip: {reason}") from None
        return folder

    def _unpack_zip(self, client: Client, folder: Path, name: str) -> str:
        """Unpack the zip while it comes; returns why not all of it came, or "" if all did."""
        attempts = Attempts(client)
        while True:
            try:
                with client.answer(self.zip_address) as response, Progress(f"{name}.zip") as progress:
                    try:
                        _unpack_stream(_counted(bounded(blocks(response), folder), progress), folder)
                    except (InterruptedTransferError, UnzipError) as error:
                        return f"its zip was cut or is bad ({str(error) or type(error).__name__})"
                    require_scan(map(Path, _whole_files(folder)))
                return ""
            except InterruptedTransferError as error:  # before the first byte
                try:
                    attempts.wait(error)
                except SourceError as last:
                    return str(last)
            except SourceError as error:
                return str(error)


def _token() -> str | None:
    """The user's token. Raises UserError, which does not show it, where it can't be one."""
    token = os.environ.get(_TOKEN, "").strip()
    if not token.isascii() or any(char.isspace() or not char.isprintable() for char in token):
        raise UserError(f"{_TOKEN}: not a token of osf.io, which has only letters and digits; set it anew")
    return token or None


def _counted(source: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for block in source:
        progress.add(len(block))
        yield block


def _unpack_stream(source: Iterator[bytes], folder: Path) -> None:
    """Write the members of a zip as they come; each is compared with its CRC and renamed, and stays.

    Raises:
        UnzipError: the zip is damaged.
        InterruptedTransferError: from ``source``.
        BadArchiveError: a member leads elsewhere, or there is too much of them.
    """
    packed = size = 0

    def counted() -> Iterator[bytes]:
        nonlocal packed
        for block in source:
            packed += len(block)
            yield block

    for members, (member, _, member_blocks) in enumerate(stream_unzip(counted()), start=1):
        file_name = member.decode("utf-8", errors="replace")
        path = folder / safe_path(file_name)
        below = (above for above in path.parents if above.is_relative_to(folder))
        if (path.is_dir() != file_name.endswith("/") and path.exists()) or any(map(Path.is_file, below)):
            raise BadArchiveError(f"holds a file where a folder is ({file_name!r})")
        is_needed = not file_name.endswith("/") and not path.exists()
        part = path.with_name(path.name + _PART) if is_needed else Path(os.devnull)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for block in member_blocks:
                size += len(block)
                require_size(members, size, packed)
                file.write(block)
        if is_needed:
            os.replace(part, path)


def _fetch_files(client: Client, listing: OsfListing, folder: Path, name: str) -> None:
    """Get each listed file that is not there, and remove what is not listed. Raises SourceError."""
    files = listing.files(client, f"{name}: OSF's list")
    require_scan(Path(file.path) for file in files)
    missing = [file for file in files if not file.is_at(folder / file.path)]
    require_free(folder, sum(file.size or 0 for file in missing), f"the rest of {name}")
    for number, file in enumerate(missing, start=1):
        try:
            _fetch_file(client, file, folder / file.path, f"file {number} of {len(missing)}")
        except BadArchiveError:
            listing.forget()
            raise
    listed = {folder / file.path for file in files}
    for path in folder.rglob("*"):  # parts of the zip, and what an older version of the folder had
        if path.is_file() and path not in listed:
            path.unlink()


def _fetch_file(client: Client, file: ListedFile, path: Path, title: str) -> None:
    part = path.with_name(path.name + _PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    for last in (False, True):
        with Progress(f"{title}, {path.name}", file.size) as progress:
            received = client.download(file.address, part, progress, hash_is_known=file.has_hash)
        difference = file.differs(part)
        if not difference:
            break
        part.unlink()
        if last or received.in_one_go:
            raise BadArchiveError(f"{file.path} {difference}")
        say(f"{file.path} {difference}; it came in parts, so it is fetched anew")
    os.replace(part, path)


def _whole_files(folder: Path) -> Iterator[str]:
    """Paths below a folder, without those of parts and without hidden ones, as a kill leaves behind."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith((_PART, ".part.json")):
            yield path.relative_to(folder).as_posix()
