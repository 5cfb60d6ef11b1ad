"""One process at a time in a run's folder."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from verse_utils.errors import UserError
from verse_utils.files.lock import locked


def only_trainer(folder: Path) -> AbstractContextManager[None]:
    """Hold a run's folder, which is made if it is missing. The lock ends with its process, even if that is killed.

    Raises:
        UserError: on entry, if another process holds it.
    """

    def on_busy(holder: str) -> None:
        raise UserError(f"{folder}: {holder} holds this run; wait for it, stop it, or choose another --model_name")

    return locked(folder / ".lock", on_busy)
