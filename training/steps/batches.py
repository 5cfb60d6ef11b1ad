"""Batches of image and target from the subjects of a data set, and their order in an epoch."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import SimpleITK
import torch
import torchio as tio
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dataloader import h5VerSe
from utils.processes import end_with_parent
from verse_utils.errors import UserError


class Batch(NamedTuple):
    """Patches for the network.

    Attributes:
        image: (B, 1, X, Y, Z) float, scaled.
        target: (B, 1, X, Y, Z) of the loss.
        places: where each patch comes from, for messages: the case, and the patch's first voxel.
        spacings_mm: of each patch along X, Y, Z.
    """

    image: Tensor
    target: Tensor
    places: list[str]
    spacings_mm: list[tuple[float, float, float]]


class Sample(NamedTuple):
    """A patch, as ``Batch`` without the first axis."""

    image: Tensor
    target: Tensor
    place: str
    spacing_mm: tuple[float, float, float]


Loader = DataLoader[Batch | UserError]


class PatchOrder(Sampler[list[tuple[int, int]]]):
    """Every index of a data set once an epoch, as (epoch, index), in batches for one of several processes.

    Seed and epoch alone decide the order. Of each ``batch_size * ranks`` patches that follow one another, each process
    gets every ``ranks``-th. Where the last of them are fewer than the processes, a process without one gets a patch
    that another one has too, and must give it no weight (see ``patches_at``).

    Attributes:
        epoch: from 0.
        start: patches at the beginning of the epoch that are left out, as they were trained on already.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.ranks = rank, ranks
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return -(-(self.length - self.start) // (self.batch_size * self.ranks))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)[self.start :].tolist()
        for first in range(0, len(order), self.batch_size * self.ranks):
            turn = order[first : first + self.batch_size * self.ranks]
            yield [(self.epoch, index) for index in turn[self.rank :: self.ranks] or turn[:1]]

    def patches_at(self, position: int) -> tuple[int, int]:
        """Patches of the turn that begins at a position of the epoch: of all processes, and of this one."""
        together = min(self.batch_size * self.ranks, self.length - position)
        return together, len(range(self.rank, together, self.ranks))


def load_batches(
    dataset: h5VerSe,
    target_key: str,
    workers: int,
    order: Iterable[list[tuple[int, int]]] | Iterable[list[int]],
) -> Loader:
    """Load a data set in batches, which ``batches_of`` gives.

    Args:
        dataset: of subjects.
        target_key: image of a subject that is the target of the loss.
        workers: processes that prepare batches; 0 prepares them in this process.
        order: lists of indices, each of which is a batch.
    """
    return DataLoader(
        _ImagesAndTargets(dataset, target_key),
        batch_sampler=order,
        collate_fn=_batch,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_prepare_worker,
        pin_memory=torch.cuda.is_available(),
        # By default, its seed is drawn from the global generator, whose numbers a network with dropout needs too.
        generator=torch.Generator(),
    )


def batches_of(loader: Loader) -> Iterator[Batch]:
    """The batches of an epoch.

    Raises:
        UserError: a case can't be read, or a worker process was killed.
    """
    try:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"{reason}; if memory was too small, lower --workers {loader.num_workers}") from None


def end_workers(loader: Loader) -> None:
    """End the worker processes of a loader. They ignore SIGTERM, so a program that doesn't do this waits for them."""
    iterator: Any = loader._iterator
    if iterator is None or not loader.num_workers:
        return
    try:
        iterator._shutdown_workers()  # lets each of them finish its patch, but not for long
    finally:
        for process in iterator._workers:
            process.kill()


class _ImagesAndTargets(Dataset[Any]):
    """Image and target of each subject as plain tensors, which can be batched."""

    def __init__(self, dataset: h5VerSe, target_key: str) -> None:
        self.dataset, self.target_key = dataset, target_key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Sample | UserError:
        try:
            subject = self.dataset[index]
        except UserError as error:  # torch would add the traceback of its worker process to the message
            return error
        except MemoryError:
            return UserError("memory was not enough for a patch; choose a smaller --input_shape, or fewer --workers")
        image, target = subject["image"], subject[self.target_key]
        return Sample(image.data, target.data, place_of(subject), image.spacing)


def _batch(samples: list[Sample | UserError]) -> Batch | UserError:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    images, targets, places, spacings_mm = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.stack(targets), list(places), list(spacings_mm))


def place_of(subject: tio.Subject) -> str:
    """The case of a subject and, if it is a patch, the first voxel of it."""
    start = subject.get("patch_start")
    return str(subject["case_id"]) + (f" at {tuple(start)}" if start is not None else "")


def case_of(place: str) -> str:
    """The case of a place."""
    return place.partition(" at ")[0]


def _prepare_worker(_worker: int) -> None:
    # By default, each worker's SimpleITK would use the cores that training needs.
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    # Ctrl-C and schedulers signal every process; training ends its workers itself, after its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()
