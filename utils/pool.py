"""Run a function on many items: in this process, in processes of this machine, or on a Dask scheduler's workers."""

from __future__ import annotations

import logging
import pickle
import re
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

from utils.processes import end_with_parent
from verse_utils.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
R = TypeVar("R")

ADDRESS = re.compile(r"(?:(?P<scheme>tcp|tls)://)?\[?(?P<host>[^\s/]+?)\]?:(?P<port>\d{1,5})")
# How long a scheduler may take to answer, and its first worker to come.
PATIENCE_SECONDS = 10.0


def run_all(
    work: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    scheduler: str | None = None,
    killed: Callable[[T, str], R] | None = None,
) -> Iterator[R]:
    """Results of ``work`` in the order in which they finish.

    With one worker or one item, and no scheduler, everything runs in this process and in order. If the consumer stops
    early or an exception is raised, items that have not started are cancelled. Processes of this machine finish the
    items that they have started before the error is raised; a scheduler's workers finish them in the background.

    Args:
        work: a function that can be imported (no lambda, nothing of ``__main__`` with a scheduler), or a
            ``functools.partial`` of one.
        items: what it is called with, one at a time; arguments and results must pickle.
        workers: processes at most; a scheduler has its own number of workers instead.
        scheduler: address of a running Dask scheduler, such as tcp://10.0.0.1:8786. It and its workers need this
            project installed in the same version. Workers that come and go meanwhile are fine.
        killed: makes the result of an item whose process was killed, of the item and of what the user should know. The
            others go on. Without it, that is an error.

    Yields:
        One result for each item.

    Raises:
        UserError: a process was killed, without ``killed``; or the scheduler's address is invalid, no scheduler answers
            there, it has no workers, a worker lacks the project, or the package ``distributed`` isn't installed.
        Exception: what ``work`` raised.
    """
    if scheduler is None and (workers == 1 or len(items) <= 1):
        yield from map(work, items)
        return
    outcomes = _in_processes(work, items, workers) if scheduler is None else _on_cluster(work, items, scheduler)
    with closing(outcomes):
        for item, future, loss in outcomes:
            if not loss:
                yield future.result()
            elif killed is None:
                raise UserError(loss)
            else:
                yield killed(item, loss)


# An item, what holds its result, and what to say where its process was killed; else "".
Outcome = tuple[T, "Future[R]", str]


def _in_processes(work: Callable[[T], R], items: Sequence[T], workers: int) -> Generator[Outcome[T, R], None, None]:
    """Work in processes of this machine; each has an executor of its own, so that its death costs only its own item."""
    workers = min(workers, len(items))
    advice = f"a worker process was killed (out of memory?); lower --workers, now {workers}"
    waiting = iter(items)
    running: dict[Future[R], tuple[T, ProcessPoolExecutor]] = {}

    def start_next(executor: ProcessPoolExecutor) -> None:
        for item in islice(waiting, 1):
            running[executor.submit(work, item)] = item, executor

    executors = [_new_process() for _ in range(workers)]
    try:
        for executor in executors:
            start_next(executor)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item, executor = running.pop(future)
                was_killed = isinstance(future.exception(), BrokenProcessPool)
                if was_killed:
                    executor = _new_process()
                    executors.append(executor)
                start_next(executor)
                yield item, future, advice if was_killed else ""
    finally:
        for executor in executors:
            executor.shutdown()


def _new_process() -> ProcessPoolExecutor:
    """An executor of one process; spawned, as a fork of a process in which torch runs threads can hang."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent)


def _on_cluster(work: Callable[[T], R], items: Sequence[T], address: str) -> Generator[Outcome[T, R], None, None]:
    """Let the workers of a Dask scheduler work, once a sample of the work was unpickled by all of them."""
    _check_address(address)
    try:
        from distributed import KilledWorker
        from distributed.utils import silence_logging_cmgr
    except ImportError:
        raise UserError(
            "a scheduler needs the package distributed, which is missing; pip install distributed"
        ) from None

    advice = (
        f"{address}: Dask workers were killed again and again (out of memory?); "
        "start `dask worker` with more memory or fewer threads"
    )

    def outcomes(some: Sequence[T]) -> Iterator[tuple[T, Future[R], bool]]:
        """Each item, what holds its result, and whether a worker was killed at it."""
        pending = {executor.submit(work, item): item for item in some}
        while pending:
            done = wait(pending, PATIENCE_SECONDS, FIRST_COMPLETED).done
            if not done:  # slow work, or nobody left to do it
                _await_worker(client, address)
            for future in done:
                yield pending.pop(future), future, isinstance(future.exception(), KilledWorker)

    with silence_logging_cmgr(logging.CRITICAL), closing(_connect(address)) as client:
        _await_worker(client, address)
        _check_imports(client, address, pickle.dumps((work, items[:1])))
        executor = client.get_executor(pure=False)
        try:
            suspects: list[Outcome[T, R]] = []
            for item, future, was_killed in outcomes(items):
                if was_killed:
                    suspects.append((item, future, advice))
                else:
                    yield item, future, ""
            if len(suspects) == 1:
                yield suspects.pop()
            # Dask suspects all items that a killed worker was given. One at a time, the innocent come through.
            for suspect, _, _ in suspects:
                for item, future, was_killed in outcomes([suspect]):
                    yield item, future, advice if was_killed else ""
        except CancelledError:
            raise UserError(
                f"{address}: the Dask scheduler went away; start it and its workers again, and repeat"
            ) from None
        finally:
            executor.shutdown(wait=False)


def _check_address(address: str) -> None:
    """Raise UserError if no Dask scheduler can be at the address; Dask would wait forever for another server."""
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise UserError(f"{address!r} is no scheduler's address; give what `dask scheduler` prints: tcp://HOST:PORT")
    if match["scheme"] == "tls":
        return
    try:
        with socket.create_connection((match["host"], int(match["port"])), PATIENCE_SECONDS) as connection:
            # A scheduler speaks first, with the length of its greeting; a web server, such as its own dashboard,
            # waits to be asked.
            is_scheduler = int.from_bytes(connection.recv(8), "little") < 2**30
    except TimeoutError:
        is_scheduler = False
    except OSError:  # it may be about to start, and Dask tries more than once
        return
    if not is_scheduler:
        raise UserError(f"{address}: no Dask scheduler answers; start `dask scheduler`, or correct the address")


def _connect(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=PATIENCE_SECONDS, set_as_default=False)
    except Exception as error:  # whatever the reason, there is no connection
        reason = " ".join(str(error).split())
        raise UserError(
            f"{address}: no Dask scheduler answers ({reason}); start `dask scheduler`, or correct the address"
        ) from None


def _await_worker(client: Client, address: str) -> None:
    from distributed import TimeoutError as NoWorkerError

    try:
        client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
    except NoWorkerError:
        raise UserError(f"{address}: the Dask scheduler has no workers; start `dask worker {address}`") from None


def _check_imports(client: Client, address: str, pickled: bytes) -> None:
    """Unpickle the work once on the scheduler and every worker: a worker that fails to do so later exits silently."""
    try:
        client.run_on_scheduler(pickle.loads, pickled)
        client.run(pickle.loads, pickled)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{address}: the Dask scheduler or a worker lacks this project ({error}); "
            "install it in the same version where they run"
        ) from None
