"""utils/pool.py: here, in processes and on a real Dask scheduler; each way's results, errors and early end.

The work is ``eval`` or ``exec`` of a string, as every process can import these, wherever it runs.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils import pool
from utils.pool import run_all
from verse_utils.errors import UserError

PROCESS_ID = "__import__('os').getpid()"
RAISE = "from verse_utils.errors import UserError; raise UserError('case 7: broken; mend it')"
DIE = "import os; os._exit(1)"


@pytest.fixture(params=["here", "processes", "cluster"])
def way(request) -> dict:
    """Keyword arguments of run_all."""
    if request.param == "cluster":
        return {"workers": 1, "scheduler": request.getfixturevalue("dask_scheduler")}
    return {"workers": 1 if request.param == "here" else 2}


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Don't wait for what never comes."""
    monkeypatch.setattr(pool, "PATIENCE_SECONDS", 1.5)


def _touch(path) -> str:
    return f"import pathlib, time; time.sleep(0.2); pathlib.Path({str(path)!r}).touch()"


def test_every_item_has_a_result(way):
    results = list(run_all(eval, [f"{number} ** 2" for number in range(7)], **way))
    assert sorted(results) == [0, 1, 4, 9, 16, 25, 36]
    assert list(run_all(eval, [], **way)) == []


def test_an_exception_reaches_the_consumer(way):
    with pytest.raises(UserError, match=r"^case 7: broken; mend it$"):
        list(run_all(exec, [RAISE, "pass"], **way))
    with pytest.raises(ZeroDivisionError):
        list(run_all(eval, ["1 / 0", "1"], **way))


def test_a_consumer_that_stops_early_cancels_the_rest(way, tmp_path):
    items = [_touch(tmp_path / str(number)) for number in range(60)]
    results = run_all(exec, items, **way)
    next(results)
    results.close()
    done = len(list(tmp_path.iterdir()))
    assert 1 <= done < 60
    time.sleep(1.2)  # in which a worker would do six
    assert len(list(tmp_path.iterdir())) <= done + 2


def test_one_item_or_worker_stays_here_and_in_order():
    assert list(run_all(eval, [PROCESS_ID], workers=2)) == [os.getpid()]
    assert list(run_all(eval, ["3", "1", "2"], workers=1)) == [3, 1, 2]
    assert os.getpid() not in run_all(eval, [PROCESS_ID] * 4, workers=2)


def test_a_killed_process_is_one_line():
    with pytest.raises(UserError, match=r"worker process was killed .* lower --workers, now 2$"):
        list(run_all(exec, [DIE] * 2, workers=3))


KILL = "__import__('os').kill(__import__('os').getpid(), 9)"


def test_a_killed_process_costs_its_own_item_alone():
    items = ["1", KILL, "2", KILL, *"34567"]
    results = list(run_all(eval, items, 2, killed=lambda item, reason: (item, reason.split(" (")[0])))
    assert sorted(map(str, results)) == sorted([*"1234567", *[str((KILL, "a worker process was killed"))] * 2])


_PARENT = """
import os, sys
from utils.pool import run_all
work = "import os, pathlib, time; pathlib.Path({folder!r}, str(os.getpid())).touch(); time.sleep(60)"
if __name__ == "__main__":
    list(run_all(exec, [work] * 4, workers=2))
"""


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent_though_nobody_tells_them(tmp_path, with_signal, wait_until, group_runs):
    script = tmp_path / "parent.py"
    (tmp_path / "ids").mkdir()
    script.write_text(_PARENT.replace("{folder!r}", repr(str(tmp_path / "ids"))), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(pool.__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, script], env=environment, start_new_session=True)
    wait_until(lambda: len(list((tmp_path / "ids").iterdir())) == 2)
    assert group_runs(parent.pid)
    parent.send_signal(with_signal)
    assert parent.wait() == -with_signal
    wait_until(lambda: not group_runs(parent.pid))


def test_the_cluster_works_in_its_own_processes_and_the_client_is_closed(dask_scheduler, monkeypatch):
    import distributed

    clients = []

    def recorded(*arguments, connect=distributed.Client, **options):
        clients.append(connect(*arguments, **options))
        return clients[-1]

    monkeypatch.setattr(distributed, "Client", recorded)
    # One item too: with a scheduler nothing is done here. The same call twice is two calls.
    assert os.getpid() not in run_all(eval, [PROCESS_ID], workers=1, scheduler=dask_scheduler)
    assert len(list(run_all(eval, ["__import__('random').random()"] * 4, 1, dask_scheduler))) == 4
    assert [client.status for client in clients] == ["closed"] * 2


def test_workers_killed_again_and_again_cost_their_own_item_in_one_line(dask_scheduler):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(dask_scheduler, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=120)  # on a busy machine, those that other tests killed come back late
    results = run_all(exec, [DIE, "pass"], 1, dask_scheduler, killed=lambda item, reason: f"{item}: {reason}")
    lost, kept = sorted(results, key=lambda result: result is None)
    assert kept is None
    assert lost.startswith(f"{DIE}: {dask_scheduler}: Dask workers were killed again and again")


def test_workers_without_the_project_are_one_line(dask_scheduler, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def work(item):\n    return item\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import work

    with pytest.raises(UserError, match=r"lacks this project \(No module named 'only_here'\); install it"):
        list(run_all(work, [1], workers=1, scheduler=dask_scheduler))


@pytest.mark.parametrize(
    "address", ["", "scheduler", "10.0.0.1", "http://10.0.0.1:8787/status", "tcp://10.0.0.1:x", ":1", "[::1]:65536"]
)
def test_an_address_that_is_none_is_one_line(address):
    with pytest.raises(
        UserError, match=f"^'{re.escape(address)}' is no scheduler's address; give what `dask scheduler` prints"
    ):
        list(run_all(eval, ["1"], workers=1, scheduler=address))


def test_nobody_at_the_address_is_one_line(impatient):
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, but isn't a scheduler: such as the dashboard
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"^{address}: no Dask scheduler answers; start `dask scheduler`, or corr"):
            list(run_all(eval, ["1"], workers=1, scheduler=address))
    with pytest.raises(UserError, match=rf"^{address}: no Dask scheduler answers \(.*\); start `dask scheduler`, or"):
        list(run_all(eval, ["1"], workers=1, scheduler=address))


def test_a_scheduler_without_workers_is_one_line(impatient):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(
            UserError, match=f"^{address}: the Dask scheduler has no workers; start `dask worker {address}`$"
        ):
            list(run_all(eval, ["1"], workers=1, scheduler=address))


@pytest.mark.parametrize(
    ("leave", "words"),
    [
        (lambda cluster: cluster.scale(0), "has no workers; start"),
        (lambda cluster: cluster.close(), "went away; start"),
    ],
    ids=["workers", "scheduler"],
)
def test_a_cluster_that_leaves_meanwhile_is_one_line(impatient, leave, words):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options, protocol="tcp", host="127.0.0.1") as cluster:
        results = run_all(exec, ["pass", *["import time; time.sleep(0.7)"] * 30], 1, cluster.scheduler_address)
        next(results)
        leave(cluster)
        with pytest.raises(UserError, match=f"^{cluster.scheduler_address}: the Dask scheduler {words}"):
            list(results)


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr(pool, "_check_address", lambda address: None)
    with pytest.raises(UserError, match=r"pip install distributed$"):
        list(run_all(eval, ["1"], workers=1, scheduler="tcp://127.0.0.1:8786"))
