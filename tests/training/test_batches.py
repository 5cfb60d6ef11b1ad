"""Batches that worker processes prepare, and what happens to these processes."""

import os
import signal
from multiprocessing import active_children

import pytest
import torch
import torchio as tio
from torch.utils.data import Dataset

from training.steps.batches import batches_of, end_workers, load_batches
from verse_utils.errors import FileError, UserError


class Cases(Dataset):
    """Only the first case can be read; reading the others fails as it is told to."""

    def __init__(self, fail):
        self.fail = fail

    def __getitem__(self, index):
        if index:
            self.fail()
        image = tio.ScalarImage(tensor=torch.zeros(1, 2, 2, 2))
        return {"image": image, "label": image, "case_id": "sub-1"}


def unreadable():
    raise FileError("a.h5: case sub-2 can't be read; run preprocessing.py again")


def too_large():
    raise MemoryError("Unable to allocate 7.45 TiB")


def broken():
    raise RuntimeError("a bug")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_is_the_error_itself(workers):
    loader = load_batches(Cases(unreadable), "label", workers, [[0], [1]])
    batches = batches_of(loader)
    assert next(batches).places == ["sub-1"]
    with pytest.raises(FileError, match=r"^a.h5: case sub-2 can't be read; run preprocessing.py again$"):
        next(batches)
    end_workers(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_little_memory_for_a_patch_is_one_line(workers):
    loader = load_batches(Cases(too_large), "label", workers, [[1]])
    with pytest.raises(UserError, match=r"^memory was not enough for a patch; choose a smaller --input_shape"):
        list(batches_of(loader))
    end_workers(loader)


def test_a_bug_in_a_worker_is_not_taken_for_its_death():
    loader = load_batches(Cases(broken), "label", 1, [[1]])
    with pytest.raises(RuntimeError, match="a bug"):
        list(batches_of(loader))
    end_workers(loader)


def test_workers_end_though_they_ignore_signals():
    others = set(active_children())
    loader = load_batches(Cases(unreadable), "label", 2, [[0], [0]])
    assert len(list(batches_of(loader))) == 2
    workers = set(active_children()) - others
    assert len(workers) == 2
    for worker in workers:
        worker.terminate()
    end_workers(loader)
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_a_worker_that_was_killed_is_one_line():
    batches = batches_of(load_batches(Cases(killed), "label", 1, [[0], [1]]))
    with pytest.raises(UserError, match=r"^DataLoader worker [^\n]*; [^\n]*lower --workers 1$"):
        list(batches)
