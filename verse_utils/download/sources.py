"""Where VerSe's splits are to be had."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from verse_utils.download.osf_source import OsfSource
from verse_utils.download.transfer import without_password
from verse_utils.download.zip_source import ZipSource
from verse_utils.errors import UserError

MIRROR = "VERSE_MIRROR"  # the environment variable

_S3 = "https://s3.bonescreen.de/public/VerSe-complete/{name}.zip"
_OSF_ZIP = "https://files.de-1.osf.io/v1/resources/{project}/providers/osfstorage/{folder}/?zip="
_OSF_LISTING = "https://api.osf.io/v2/nodes/{project}/files/osfstorage/{folder}/"
# Project and folder of each edition and split.
_OSF_FOLDERS: dict[tuple[int, str], tuple[str, str]] = {
    (19, "training"): ("jtfa5", "5ffca086e80d370320a594cc"),
    (19, "validation"): ("jtfa5", "5ffcb524ba0109031c8931fa"),
    (19, "test"): ("jtfa5", "5ffcbd71e80d370336a56f8c"),
    (20, "training"): ("4skx2", "5ffa463786541a01e714d390"),
    (20, "validation"): ("4skx2", "5ffa463686541a01eb15048c"),
    (20, "test"): ("4skx2", "5ffa4635ba010901f0891bd0"),
}

Source = ZipSource | OsfSource


def dataset_name(edition: int, split: str) -> str:
    """Name of a split's dataset folder and, with ``.zip``, of its zip."""
    return f"dataset-verse{edition}{split}"


def sources(edition: int, split: str) -> tuple[Source, ...]:
    """The sources of a split, the preferred one first; where ``VERSE_MIRROR`` is set, only the mirror.

    Raises:
        UserError: ``VERSE_MIRROR`` is no address.
    """
    name = dataset_name(edition, split)
    mirror = os.environ.get(MIRROR, "").strip()
    if mirror:
        if not _is_address(mirror):
            raise UserError(
                f"{MIRROR}={without_password(mirror)}: not an address like https://HOST/FOLDER; "
                "for zips on a disk, use --from_zip"
            )
        return (ZipSource(f"{mirror.rstrip('/')}/{name}.zip"),)
    project, folder = _OSF_FOLDERS[edition, split]
    return (
        ZipSource(_S3.format(name=name)),
        OsfSource(_OSF_ZIP.format(project=project, folder=folder), _OSF_LISTING.format(project=project, folder=folder)),
    )


def _is_address(text: str) -> bool:
    """Whether a server of the web can be there; without a query, as names are added to it."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        return False
