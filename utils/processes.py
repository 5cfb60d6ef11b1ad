"""Processes that work for another one."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import parent_process
from threading import Thread

_LOOK_S = 1.0  # between two looks at whether a parent is still there


def end_with_parent() -> None:
    """Have this process end when its parent does. If that was killed, it would wait for work for ever."""

    def watch() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def stop_with_parent() -> None:
    """Have this process get SIGTERM when the program that started it is gone, as it was killed."""
    started_by = os.getppid()

    def watch() -> None:
        while os.getppid() == started_by:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, daemon=True).start()
