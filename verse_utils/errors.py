"""The one exception for what a user got wrong, its kinds for a case's files, and how a source of VerSe can fail."""

from __future__ import annotations

from typing import ClassVar
from unicodedata import category

# Unicode's categories of control characters, of parts of characters, and of ends of lines and paragraphs.
_UNSHOWN = {"Cc", "Cs", "Zl", "Zp"}


def one_line(text: object) -> str:
    """Text with escapes for line breaks and for what can't be shown, such as undecodable bytes of a file's name."""
    return "".join(repr(char)[1:-1] if category(char) in _UNSHOWN else char for char in str(text))


class UserError(Exception):
    """A mistake the user can mend: one line that names the file, the value and the remedy.

    Scripts print it without a traceback and exit with code 2.

    Attributes:
        kind: of the fault, as the tables of ``verse_utils.check`` name it.
    """

    kind: ClassVar[str] = "other"


class FileError(UserError):
    """A file that can't be read to its end."""

    kind = "file"


class GridError(UserError):
    """A grid on which no spine can lie, or that is not its partner's."""

    kind = "grid"


class IntensityError(UserError):
    """Values that are not HU."""

    kind = "intensities"


class MaskError(UserError):
    """Values that are not VerSe's labels, or not those of a spine."""

    kind = "mask"


class DiskError(UserError):
    """Something can't be written: no fault of a case, and the next one would fare no better."""


class SourceError(Exception):
    """A source can't give the data, even if it is asked again. The user made no mistake: the next source is tried."""


class BadArchiveError(SourceError):
    """A zip is damaged, holds what VerSe's zips don't hold, or is no zip."""


class InterruptedTransferError(Exception):
    """An attempt failed, but the next one may succeed.

    Attributes:
        retry_after_s: how long the server asks to wait; 0 if it doesn't say.
        unreachable: no connection was made at all.
    """

    def __init__(self, reason: str, retry_after_s: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.unreachable = unreachable
