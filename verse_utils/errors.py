"""The one exception for what a user got wrong, and its kinds for a case's files."""

from __future__ import annotations

from typing import ClassVar


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
