"""Run a function on many items: in this process, in processes of this machine, or on a Dask scheduler's workers."""

from __future__ import annotations

import logging
import pickle
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
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


def run_all(work: Callable[[T], R], items: Sequence[T], workers: int, scheduler: str | None = None) -> Iterator[R]:
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

    Yields:
        One result for each item.

    Raises:
        UserError: a process was killed; or the scheduler's address is invalid, no scheduler answers there, it has no
            workers, a worker lacks the project, or the package ``distributed`` isn't installed.
        Exception: what ``work`` raised.
    """
    if scheduler is None and (workers == 1 or len(items) <= 1):
        yield from map(work, items)
        return
    pool = _processes(min(workers, len(items))) if scheduler is None else _cluster(scheduler, (work, items[:1]))
    with pool as (executor, check_workers):
        pending = {executor.submit(work, item) for item in items}
        while pending:
            done, pending = wait(pending, PATIENCE_SECONDS, FIRST_COMPLETED)
            if not done:  # slow work, or nobody left to do it
                check_workers()
            for future in done:
                yield future.result()


# An executor, and what raises UserError where none of its workers is left.
Pool = tuple[Executor, Callable[[], None]]


@contextmanager
def _processes(workers: int) -> Iterator[Pool]:
    """Processes of this machine; spawned, as a fork of a process in which torch runs threads can hang."""
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent)
    try:
        yield executor, lambda: None
    except BrokenProcessPool:
        raise UserError(f"a worker process was killed (out of memory?); lower --workers, now {workers}") from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _cluster(address: str, sample: object) -> Iterator[Pool]:
    """The workers of a Dask scheduler, once a sample of the work was unpickled by all of them."""
    _check_address(address)
    try:
        from distributed import KilledWorker
        from distributed.utils import silence_logging_cmgr
    except ImportError:
        raise UserError(
            "a scheduler needs the package distributed, which is missing; pip install distributed"
        ) from None

    with silence_logging_cmgr(logging.CRITICAL), closing(_connect(address)) as client:
        _await_worker(client, address)
        _check_imports(client, address, pickle.dumps(sample))
        executor = client.get_executor(pure=False)
        try:
            yield executor, lambda: _await_worker(client, address)
        except CancelledError:
            raise UserError(
                f"{address}: the Dask scheduler went away; start it and its workers again, and repeat"
            ) from None
        except KilledWorker:
            raise UserError(
                f"{address}: Dask workers were killed again and again (out of memory?); "
                "start `dask worker` with more memory or fewer threads"
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
