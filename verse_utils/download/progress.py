"""What a download says on standard error: messages, and how far it is."""

from __future__ import annotations

import sys
from typing import NoReturn, TextIO

from tqdm import tqdm

from verse_utils.errors import one_line

_LOG_EVERY_S = 60.0


def say(message: str) -> None:
    """Print a line on standard error, above a progress bar if there is one."""
    tqdm.write(one_line(message), file=sys.stderr)


class _Lines:
    """A log in place of a terminal: each state of the progress bar is a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


class Progress:
    """Bytes that have come, with speed and time left: a bar on a terminal, a line a minute in a log.

    Args:
        title: what the bytes are.
        total: bytes in all, if known.
    """

    def __init__(self, title: str, total: int | None = None) -> None:
        self._title = title
        self._total = total
        self._bar: tqdm[NoReturn] | None = None

    def _new_bar(self, done: int, total: int | None) -> tqdm[NoReturn]:
        terminal = sys.stderr.isatty()
        every_s = 0.1 if terminal else _LOG_EVERY_S
        return tqdm(
            desc=self._title,
            initial=done,
            total=total,
            unit="B",
            unit_scale=True,
            mininterval=every_s,
            maxinterval=max(every_s, 10.0),
            file=sys.stderr if terminal else _Lines(sys.stderr),
            dynamic_ncols=terminal,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def start(self, done: int, total: int | None) -> None:
        """Begin at ``done`` of ``total`` bytes, which earlier attempts brought; they don't count for the speed."""
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()
        self._bar = self._new_bar(done, total)

    def add(self, count: int) -> None:
        """Count bytes that have come."""
        if self._bar is None:
            self._bar = self._new_bar(0, self._total)
        self._bar.update(count)
