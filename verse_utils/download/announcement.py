"""What is said before a download begins."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from verse_utils.cases import LICENCE
from verse_utils.download.progress import say
from verse_utils.download.sources import MIRROR, sources
from verse_utils.files.disk import free_bytes, in_units, require_free, used_bytes
from verse_utils.names import SPLITS

# Bytes of all three splits, as VerSe's users report them.
APPROXIMATE_BYTES = {19: 20 * 10**9, 20: 35 * 10**9}
CITATION = (
    "Löffler et al. 2020, doi.org/10.1148/ryai.2020190138",
    "Liebl et al. 2021, doi.org/10.1038/s41597-021-01060-0",
    "Sekuboyina et al. 2021, doi.org/10.1016/j.media.2021.102166",
)
_PAUSE_S = 5


def require_room(root: Path, missing: Sequence[tuple[int, str]], kept: Path) -> None:
    """Raise UserError if the disk surely has too little room for these splits.

    What a mirror has is not known, so only the lengths that it tells count.

    Args:
        root: where they are written.
        missing: edition and split of each.
        kept: folder of what came in earlier runs.
    """
    needed = _approximate_bytes(missing) - used_bytes(kept)
    if not os.environ.get(MIRROR):
        require_free(root, needed, "what is missing of VerSe")


def _approximate_bytes(splits: Sequence[tuple[int, str]]) -> float:
    return sum(APPROXIMATE_BYTES[edition] / len(SPLITS) for edition, _ in splits)


def announce(root: Path, missing: Sequence[tuple[int, str]], reason: str | None) -> None:
    """Say what is downloaded, from where, to where, and under which licence.

    On a terminal, a download that was not asked for begins some seconds later, so that Ctrl-C can stop it.

    Args:
        root: where it is written.
        missing: edition and split of what is to come.
        reason: why it is downloaded although the user only named ``root``; None if a download was asked for.
    """
    editions = sorted({edition for edition, _ in missing})
    names = " and ".join(f"VerSe{edition}" for edition in editions)
    if reason is None:
        say(f"{root}: {names} is downloaded there")
    else:
        say(f"{root}: {reason}, so {names} is downloaded there; --no_download (in Python: download=False) prevents it")
    splits = ", ".join(split if len(editions) == 1 else f"{split} of VerSe{edition}" for edition, split in missing)
    first, *others = sources(*missing[0])
    alternatives = "".join(f", or {other.shown}" for other in others)
    for title, text in (
        ("splits", splits),
        ("size", f"about {in_units(_approximate_bytes(missing))}, and a third more while it is unpacked"),
        ("free", f"{in_units(free_bytes(root))} on the disk"),
        ("to", str(root.resolve())),
        ("from", f"{first.shown}{alternatives}"),
        ("licence", f"{LICENCE}; users say CC BY-NC-ND of the scans named sub-gl*"),
        ("cite", "; ".join(CITATION)),
    ):
        say(f"  {title:8} {text}")
    if sys.stderr.isatty() and reason is not None:
        say(f"It begins in {_PAUSE_S} s; Ctrl-C stops it.")
        time.sleep(_PAUSE_S)
