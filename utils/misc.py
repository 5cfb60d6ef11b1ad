"""Command-line habits: options, one-line errors, signals, words for counts."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from verse_utils.errors import UserError, one_line

# Why a system refuses a file, where nothing is wrong with the program: whoever started it must mend that.
_REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE),
}


class Stopped(BaseException):
    """A signal asked the program to stop. Like KeyboardInterrupt, it is nothing that ``except Exception`` may catch.

    Attributes:
        signal_number: of the signal.
        where: how far the work had come, for the user; "" if unknown.
        again: what goes on from there.
    """

    def __init__(self, signal_number: int, where: str = "", again: str = "the same command") -> None:
        super().__init__(signal_number, where, again)
        self.signal_number, self.where, self.again = signal_number, where, again


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, like every other, and that takes no empty text for a path."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", Path, _named_path)

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing the usage too."""
        raise UserError(f"{message} (see --help)")


def _named_path(text: str) -> Path:
    """A path; of nothing, as a shell's variable that isn't set gives, it would be the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("'' names no file or folder")
    return Path(text)


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Make a function a whole command, for a script and for an entry of ``[project.scripts]`` alike.

    A UserError becomes one line on stderr and exit code 2, a warning one line on stderr. Ctrl-C and ``Stopped`` become
    one line and the exit code of shells: 128 and the signal's number; so does, without a line, output that nobody reads
    any more. A file that the system refuses, and output for which the disk has no room, are one line and exit code 2.
    What is printed reaches a log file line by line.
    """

    @wraps(main)
    def run() -> None:
        warnings.showwarning = _show_warning
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # closed by whoever started this
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for as long as the program
            elif isinstance(stream, io.TextIOWrapper):
                # A terminal that has no × is no reason to fail.
                stream.reconfigure(errors="replace", line_buffering=True)
        try:
            main()
        except UserError as error:
            # A DataLoader passes an error of its workers on with their traceback before it.
            line = re.sub(r"(?s)^.*^verse_utils\.errors\.\w+: ", "", str(error).strip(), flags=re.MULTILINE)
            print(f"error: {one_line(line)}", file=sys.stderr)
            sys.exit(2)
        except (KeyboardInterrupt, Stopped) as error:
            stop = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
            where = f" {stop.where}" if stop.where else ""
            print(f"stopped{where}; {stop.again} goes on from here", file=sys.stderr)
            sys.exit(128 + stop.signal_number)
        except OSError as error:
            if error.filename is not None and error.errno in _REFUSALS:
                where, reason = one_line(error.filename), os.strerror(error.errno)
                print(f"error: {where}: can't be used ({reason}); mend that, or choose another place", file=sys.stderr)
                sys.exit(2)
            if error.errno not in (errno.EPIPE, errno.ENOSPC):
                raise
            for stream in (sys.stdout, sys.stderr) if error.errno == errno.EPIPE else (sys.stdout,):
                with suppress(OSError, ValueError):  # or Python complains at its end, too
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if error.errno == errno.EPIPE:  # who read the output is gone, as in "… | head -1"
                sys.exit(128 + signal.SIGPIPE)
            with suppress(OSError):
                print(f"error: the output can't be written ({os.strerror(error.errno)}); make room", file=sys.stderr)
            sys.exit(2)

    return run


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {one_line(message)}", file=sys.stderr)


def parse_bool(text: str) -> bool:
    """Read true/false from a command line. Raises ValueError."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ValueError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def counted(number: int, what: str) -> str:
    """A number of things: 1 case, 2 cases."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
