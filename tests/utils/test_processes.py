"""Processes whose parent is gone."""

import os
import signal
from threading import Event

from utils import processes


def test_a_process_whose_launcher_was_killed_is_asked_to_stop(monkeypatch):
    parents, asked, told = iter([1234, 1234, 1234, 1]), Event(), []
    monkeypatch.setattr(processes, "_LOOK_S", 0)
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "kill", lambda *who: (told.append(who), asked.set()))
    processes.stop_with_parent()
    assert asked.wait(10) and told == [(os.getpid(), signal.SIGTERM)] and not list(parents)
