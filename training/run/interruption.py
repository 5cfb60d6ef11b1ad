"""Signals that ask a run to stop: Ctrl-C, and what schedulers send before they kill."""

from __future__ import annotations

import os
import signal
import sys
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Any

from utils.misc import Stopped

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long after one that was lost a signal is sent again: by then, what lost it has come to its end.
_AGAIN_S = 0.05


class Interruption:
    """While it is entered, a signal raises ``Stopped`` at once or, where ``may_wait`` is set, is only noted.

    A second signal of the same kind doesn't wait. Python drops what is raised in callbacks of weak references and in
    ``__del__``, and some places make another error of it; a signal that comes just there is not lost.

    Attributes:
        again: the command that goes on from there, for ``Stopped``.
        signal_number: of the signal that was noted; None before.
        may_wait: whether the program asks for ``signal_number`` and stops by itself.
    """

    def __init__(self) -> None:
        self.again = "the same command"
        self.signal_number: int | None = None
        self.may_wait = False
        self._raised: int | None = None
        self._handlers: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    def __enter__(self) -> Interruption:
        self._hook, sys.unraisablehook = sys.unraisablehook, self._send_again
        self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook
        if self._raised is not None and error is not None and not isinstance(error, Stopped):
            raise Stopped(self._raised, again=self.again) from None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.may_wait or self.signal_number == number:
            self._raised = number
            raise Stopped(number, again=self.again)
        self.signal_number = number

    def _send_again(self, lost: UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, Stopped):
            Timer(_AGAIN_S, os.kill, (os.getpid(), lost.exc_value.signal_number)).start()
        else:
            self._hook(lost)
