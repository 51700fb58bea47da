"""Several processes: started by twistd, killed in every combination, stopped, and started again at once."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from axcollector.registry import Registry
from tests.running import delivered_below, ids_of
from tests.test_process import CLEAN, ROOT, Process, add_scope, batch, processes

__all__ = ["processes"]  # a fixture

LONG = ("--collection-interval", "3600", "--upload-interval", "0.1")


class Parent(Process):
    """A service of two workers."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.workers: dict[int, int] = {}
        super().__init__(directory, "--workers", "2", *options)

    def started(self) -> "Parent":
        """Wait until both workers take requests."""
        self.port = int(self.wait_for("listen: listening on").partition("port=")[2].partition(")")[0])
        self.wait_for_lines("takes records", 3)  # the first speaks of all
        return self

    def pids(self) -> list[int]:
        """Of the workers."""
        pid = self.popen.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def send(self, scope: str, first: int, count: int) -> None:
        """So many batches of ten records, each over a connection of its own, so that both workers get some."""
        for number in range(first, first + 10 * count, 10):
            assert self.post(f"/analytics/{scope}", batch(number, 10)) == (200, {"accepted": 10, "rejected": 0})


def gone(*pids: int) -> None:
    """Wait until none of these processes is there, or only as a zombie; a process that stays fails the test."""
    deadline = time.monotonic() + 20
    while any(is_there(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.01)


def is_there(pid: int) -> bool:
    """Whether that process executes anything."""
    try:
        return "axcollector.worker" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def prepared(directory: Path) -> str:
    """A scope in a data directory that is there."""
    (directory / "axcollector-data").mkdir(mode=0o700)
    return add_scope(directory)


def delivered(process: Process, directory: Path, count: int) -> dict[int, int]:
    """The ids in the store, once there are so many."""
    store = directory / "axcollector-data" / "store"
    while sum(map(len, delivered_below(store).values())) < count:
        process.wait_for("delivered")
    return dict(ids_of(delivered_below(store)["acme~prod"]))


def numbers(directory: Path) -> set[str]:
    """The workers that the names of delivered files tell of."""
    names = [path.name for path in (directory / "axcollector-data" / "store").rglob("*.txt.gz")]
    return {match[1] for name in names if (match := re.search(r"_writer_\d+-(\d+)-", name))}


def test_two_workers(tmp_path: Path, processes: list[Process]) -> None:
    """Both take records, into journals of their own; both see a change of the registry; the stop leaves nothing."""
    scope = prepared(tmp_path)
    parent = Parent(tmp_path, *LONG).started()
    processes.append(parent)
    workers = parent.pids()
    parent.send(scope, 0, 20)
    assert len(workers) == 2
    with Registry.open(str(tmp_path / "axcollector-data" / "registry.db")) as registry:
        other = registry.add_scope("acme", "test").id
    deadline = time.monotonic() + 20
    taken = 0
    while taken < 20:  # in a row: both workers know it
        assert time.monotonic() < deadline
        taken = taken + 1 if parent.post(f"/analytics/{other}", batch(taken, 1))[0] == 200 else 0
    before = time.monotonic()
    status, log = parent.end()
    assert time.monotonic() - before < 10
    assert (status, "Traceback" in log) == (CLEAN, False)
    gone(*workers)
    data = tmp_path / "axcollector-data"
    assert list((data / "ax" / "tmp").iterdir()) == []
    staged = sorted(path.name for path in (data / "ax" / "staging").rglob("acme~prod~*/*.txt.gz"))
    stored = sorted(path.name for path in (data / "store").rglob("acme~prod/**/*.txt.gz"))
    found = {match[1] for name in staged + stored if (match := re.search(r"_writer_1-(\d+)-0", name))}
    assert found == {"0", "1"}


def test_a_worker_is_killed(tmp_path: Path, processes: list[Process]) -> None:
    """Another takes its place; what it had acknowledged is delivered at once, in the midst of the interval."""
    scope = prepared(tmp_path)
    parent = Parent(tmp_path, *LONG).started()
    processes.append(parent)
    parent.send(scope, 0, 20)
    for pid in parent.pids():
        os.kill(pid, signal.SIGKILL)
    parent.wait_for_lines("takes records", 5)
    assert delivered(parent, tmp_path, 200) == dict.fromkeys(range(200), 1)
    assert numbers(tmp_path) == {"0", "1"}
    parent.send(scope, 200, 5)
    status, log = parent.end()
    assert (status, "Traceback" in log) == (CLEAN, False)
    assert log.count("has ended by SIGKILL, and nobody had it end") == 2


@pytest.mark.parametrize("victims", ["the parent", "all"])
def test_the_parent_is_killed(tmp_path: Path, processes: list[Process], victims: str) -> None:
    """Its workers end by themselves; the next start does not wait to be asked twice, and delivers all."""
    scope = prepared(tmp_path)
    first = Parent(tmp_path, *LONG).started()
    processes.append(first)
    first.send(scope, 0, 20)
    workers = first.pids()
    first.popen.kill()
    if victims == "all":
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
    second = Parent(tmp_path, *LONG).started()
    processes.append(second)
    gone(*workers)
    assert delivered(second, tmp_path, 200) == dict.fromkeys(range(200), 1)
    assert (second.end()[0], first.end()[0]) == (CLEAN, -signal.SIGKILL)


def test_a_worker_that_outlives_its_parent(tmp_path: Path, processes: list[Process]) -> None:
    """It is waited for, whoever comes next: as long as it is there it may be writing."""
    scope = prepared(tmp_path)
    first = Parent(tmp_path, *LONG).started()
    processes.append(first)
    first.send(scope, 0, 20)
    workers = first.pids()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    first.popen.kill()
    first.popen.wait()
    second = Process(tmp_path, *LONG)  # a single process has to wait as well
    processes.append(second)
    while (tmp_path / "axcollector-data" / "lock").read_text().strip() != str(second.popen.pid):
        assert second.popen.poll() is None
        time.sleep(0.01)
    assert [path.name.count("recovered") for path in (tmp_path / "axcollector-data" / "ax" / "tmp").iterdir()] == [0, 0]
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    assert delivered(second, tmp_path, 200) == dict.fromkeys(range(200), 1)
    gone(*workers)
    status, log = second.end()
    assert (status, "worker processes of the last run have not ended yet" in log) == (CLEAN, True)


def test_a_second_parent_is_refused(tmp_path: Path, processes: list[Process]) -> None:
    """At once, by name; and one with a directory of its own does not get in on the same port."""
    first = Parent(tmp_path).started()
    processes.append(first)
    second = Parent(tmp_path)
    third = Parent(tmp_path / "other", "--listen", f"tcp:{first.port}:interface=127.0.0.1")
    processes.extend([second, third])
    output, _ = second.popen.communicate(timeout=60)
    assert f"process {first.popen.pid} already works in this data directory" in output
    output, _ = third.popen.communicate(timeout=60)
    assert "Address already in use" in output
    assert (second.popen.returncode, third.popen.returncode) == (1, 1)
    assert first.end()[0] == CLEAN


def test_a_daemon(tmp_path: Path) -> None:
    """`twistd` without -n: the parent is in the background, and so are its workers; its log has their lines."""
    scope = prepared(tmp_path)
    command = [sys.executable, "-m", "twisted.scripts.twistd"]
    script = "import sys; from twisted.scripts.twistd import run; run()"
    command = [sys.executable, "-c", script, "--pidfile=p", "--logfile=log"]
    options = ["axcollector", "--listen", "tcp:0:interface=127.0.0.1", "--admin-listen", "", "--workers", "2"]
    subprocess.run(
        [*command, *options], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=60
    )
    pid = int((tmp_path / "p").read_text())
    try:
        log = wait_for_log(tmp_path / "log", "takes records", 3)
        port = int(log.partition("port=")[2].partition(")")[0])
        assert "worker 1: catalog built from" in log
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", f"/analytics/{scope}", batch(0, 3), {"Content-Type": "application/json"})
        assert json.loads(connection.getresponse().read()) == {"accepted": 3, "rejected": 0}
        connection.close()
        workers = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for_log(tmp_path / "log", "Server Shut Down", 1)
    gone(*workers)


def wait_for_log(path: Path, text: str, count: int) -> str:
    """A log, once it holds a text so often."""
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_text().count(text) < count:
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.05)
    return path.read_text()
