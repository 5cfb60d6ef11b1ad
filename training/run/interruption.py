"""Signals that ask a run to stop: Ctrl-C, and what schedulers send before they kill."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from utils.misc import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While it is entered, a signal raises ``Stopped`` at once or, where ``may_wait`` is set, is only noted.

    A second signal of the same kind doesn't wait.

    Attributes:
        signal_number: of the signal that was noted; None before.
        may_wait: whether the program asks for ``signal_number`` and stops by itself.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.may_wait = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.may_wait or self.signal_number == number:
            raise Stopped(number)
        self.signal_number = number
