"""A source that has each split as one zip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verse_utils.download.archives import unpack
from verse_utils.download.checksums import Checksums
from verse_utils.download.progress import Progress, say
from verse_utils.download.transfer import Client, without_password
from verse_utils.errors import BadArchiveError


@dataclass(frozen=True)
class ZipSource:
    """The address of a split's zip."""

    address: str

    @property
    def shown(self) -> str:
        """The address as messages and ``checksums.json`` have it."""
        return without_password(self.address)

    def fetch(self, work: Path, name: str, checksums: Checksums, patience_s: float) -> Path:
        """Download and unpack the zip.

        Args:
            work: folder where parts are kept between runs; its files of this split begin with ``name``.
            name: of the split's dataset folder.
            checksums: SHA-256 of zips that came before.
            patience_s: longest time that the server may ask to wait.

        Returns:
            The unpacked folder, in ``work``.

        Raises:
            SourceError: the zip can't be had here, or it is bad.
            UserError: the disk has too little room.
        """
        archive, unpacked = work / f"{name}.zip", work / f"{name}.unzipped"
        client = Client(patience_s)
        for last in (False, True):
            with Progress(archive.name) as progress:
                received = client.download(self.address, archive, progress, room=2)
            try:
                digest = checksums.compare(self.shown, archive)
                unpack(archive, unpacked)
            except BadArchiveError as error:
                archive.unlink()
                if last or received.in_one_go:
                    raise
                say(f"{self.shown}: {error}; it came in parts or without its length, so it is fetched anew")
            else:
                break
        checksums.record(self.shown, digest)
        return unpacked
