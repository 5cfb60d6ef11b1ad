"""Fetch VerSe's zips: the S3 mirror first, OSF second."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from verse_utils.errors import UserError
from verse_utils.names import SPLITS

_S3 = "https://s3.bonescreen.de/public/VerSe-complete/dataset-verse{edition}{split}.zip"
_OSF = "https://files.de-1.osf.io/v1/resources/{resource}/providers/osfstorage/{identifier}/?zip="
_OSF_FOLDERS: dict[tuple[int, str], tuple[str, str]] = {
    (19, "training"): ("jtfa5", "5ffca086e80d370320a594cc"),
    (19, "validation"): ("jtfa5", "5ffcb524ba0109031c8931fa"),
    (19, "test"): ("jtfa5", "5ffcbd71e80d370336a56f8c"),
    (20, "training"): ("4skx2", "5ffa463786541a01e714d390"),
    (20, "validation"): ("4skx2", "5ffa463686541a01eb15048c"),
    (20, "test"): ("4skx2", "5ffa4635ba010901f0891bd0"),
}
_ATTEMPTS = 3
_CHECKSUMS = "checksums.json"


def sources(edition: int, split: str) -> tuple[str, str]:
    """The addresses of one split's zip, the preferred one first."""
    resource, identifier = _OSF_FOLDERS[edition, split]
    return _S3.format(edition=edition, split=split), _OSF.format(resource=resource, identifier=identifier)


def download_verse(root: Path, edition: int) -> None:
    """Download and unpack the three splits of an edition below ``root`` (VerSe19 ~ 20 GB, VerSe20 ~ 35 GB).

    A split is unpacked aside and renamed, so that it is there whole or not at all; a split that is there is kept.
    The SHA-256 of each zip is written to ``checksums.json``, as none is published.

    Raises:
        UserError: a split can't be fetched from any source.
    """
    root = Path(root)
    for split in SPLITS:
        folder = root / f"dataset-verse{edition}{split}"
        if folder.exists():
            continue
        root.mkdir(parents=True, exist_ok=True)
        archive, unpacked = root / f".{folder.name}.zip.partial", root / f".{folder.name}.partial"
        try:
            address = _fetch(sources(edition, split), archive)
            _record_checksum(root / _CHECKSUMS, address, archive)
            shutil.rmtree(unpacked, ignore_errors=True)
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(unpacked)
            unpacked.rename(folder)
        except zipfile.BadZipFile:
            raise UserError(f"{address}: not a zip file; try again later or download it by hand to {root}") from None
        finally:
            archive.unlink(missing_ok=True)
            shutil.rmtree(unpacked, ignore_errors=True)
            if not any(root.iterdir()):
                root.rmdir()


def _fetch(addresses: tuple[str, ...], target: Path) -> str:
    """Download the first address that answers, backing off between attempts; returns that address."""
    reasons = []
    for address in addresses:
        for attempt in range(_ATTEMPTS):
            try:
                with urllib.request.urlopen(address, timeout=60) as response, target.open("wb") as file:
                    shutil.copyfileobj(response, file, length=1 << 20)
                return address
            except (urllib.error.URLError, OSError) as error:
                reasons.append(f"{address}: {getattr(error, 'reason', error)}")
                unreachable = isinstance(getattr(error, "reason", None), OSError)
                if unreachable:  # no network at all: waiting doesn't help
                    break
                time.sleep(2.0**attempt)
    raise UserError(f"VerSe can't be downloaded ({reasons[0]}); fetch it elsewhere and pass its folder as --data_path")


def _record_checksum(path: Path, address: str, archive: Path) -> None:
    checksums = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    checksums[address] = digest.hexdigest()
    path.write_text(json.dumps(checksums, indent=2), encoding="utf-8")
