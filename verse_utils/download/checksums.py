"""SHA-256 of the zips that were downloaded, as none is published: what came first is what must come again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from verse_utils.download.progress import Progress
from verse_utils.errors import BadArchiveError, UserError
from verse_utils.files.writing import write_json

FILE_NAME = "checksums.json"
_BLOCK_BYTES = 2**20


class Checksums:
    """The file ``checksums.json`` of a data folder: address -> SHA-256."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE_NAME

    def compare(self, address: str, archive: Path) -> str:
        """SHA-256 of a zip. Raises BadArchiveError if another one was recorded for its address."""
        with Progress(f"SHA-256 of {archive.name}", archive.stat().st_size) as progress:
            digest = file_digest(archive, "sha256", progress)
        recorded = self._read().get(address, digest)
        if recorded != digest:
            raise BadArchiveError(
                f"its SHA-256 is {digest}, but {recorded} was recorded when it came first; "
                f"if the file was changed on purpose, remove its line from {self.path}"
            )
        return digest

    def record(self, address: str, digest: str) -> None:
        """Add a zip that was unpacked without an error."""
        write_json(self.path, {**self._read(), address: digest})

    def _read(self) -> dict[str, str]:
        if not self.path.exists():
            return {}
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise UserError(f"{self.path}: not the JSON that downloads write; repair or remove it") from None


def file_digest(path: Path, algorithm: str, progress: Progress | None = None) -> str:
    """Hexadecimal digest of a file; ``progress`` is told each block."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            if progress is not None:
                progress.add(len(block))
    return digest.hexdigest()
