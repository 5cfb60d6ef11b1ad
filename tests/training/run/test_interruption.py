"""Signals that ask a run to stop."""

import signal
import sys
import time
import weakref

import pytest

from training.run.interruption import Interruption
from utils.misc import Stopped


class Something:
    """What a weak reference can point to."""


class AsksToStop:
    """A signal comes while a class is made that has this as an attribute."""

    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGTERM)


def wait_for_it():
    for _ in range(1000):
        time.sleep(0.01)


def test_a_signal_in_a_callback_of_a_weak_reference_is_not_lost():
    """Python drops what is raised there."""
    thing = Something()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    before = sys.unraisablehook, signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stop, Interruption():
        del thing
        assert reference() is None
        wait_for_it()
    assert stop.value.signal_number == signal.SIGTERM
    assert (sys.unraisablehook, signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_while_a_class_is_made_is_no_other_error():
    """Before 3.12, Python makes a RuntimeError of it."""
    with pytest.raises(Stopped), Interruption():
        type("Made", (), {"attribute": AsksToStop()})


def test_errors_without_a_signal_are_as_they_are():
    with pytest.raises(ValueError, match="a bug"), Interruption() as interruption:
        interruption.may_wait = True
        signal.raise_signal(signal.SIGTERM)  # noted
        raise ValueError("a bug")


def test_other_things_that_are_dropped_are_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    thing = Something()
    reference = weakref.ref(thing, lambda _: 1 / 0)
    with Interruption():
        del thing
    assert reference() is None and [type(one.exc_value) for one in told] == [ZeroDivisionError]
