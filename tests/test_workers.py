"""Several processes: started by twistd, killed in every combination, stopped, and started again at once."""

import contextlib
import gzip
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from axcollector.registry import Registry
from tests.certificates import Authority
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
        self.wait_for_lines("catalog built", 2)
        return self

    def pids(self) -> list[int]:
        """Of the workers."""
        return workers_of(self.popen.pid)

    def send(self, scope: str, first: int, count: int) -> None:
        """So many batches of ten records, each over a connection of its own, so that both workers get some."""
        for number in range(first, first + 10 * count, 10):
            assert self.post(f"/analytics/{scope}", batch(number, 10)) == (200, {"accepted": 10, "rejected": 0})


def workers_of(parent: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def gone(*pids: int) -> None:
    """Wait until none of these processes is there, or only as a zombie; a process that stays fails the test."""
    deadline = time.monotonic() + 60
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
    cores = [os.sched_getaffinity(pid) for pid in workers]
    if len(os.sched_getaffinity(0)) == 2:  # one each, all threads of it
        assert sorted(map(sorted, cores)) == [[core] for core in sorted(os.sched_getaffinity(0))]
        for pid, core in zip(workers, cores, strict=True):
            assert {frozenset(os.sched_getaffinity(int(thread))) for thread in os.listdir(f"/proc/{pid}/task")} == {
                frozenset(core)
            }
    assert os.sched_getaffinity(parent.popen.pid) == os.sched_getaffinity(0)
    with Registry.open(str(tmp_path / "axcollector-data" / "registry.db")) as registry:
        other = registry.add_scope("acme", "test").id
    deadline = time.monotonic() + 60
    taken = 0
    while taken < 20:  # in a row: both workers know it
        assert time.monotonic() < deadline
        taken = taken + 1 if parent.post(f"/analytics/{other}", batch(taken, 1))[0] == 200 else 0
    before = time.monotonic()
    status, log = parent.end()
    assert time.monotonic() - before < 30  # ten, and what a busy machine adds
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


class Connections:
    """Clients' connections that stay open, with records sent over them now and then."""

    def __init__(self, pids: Callable[[], list[int]], port: int, scope: str) -> None:
        self._path = f"/analytics/{scope}"
        self._port = port
        self._pids = pids
        self._before = self._sockets()
        self.all: list[http.client.HTTPConnection] = []

    def make(self, count: int) -> list[http.client.HTTPConnection]:
        """So many more, as fast as it goes."""
        new = [http.client.HTTPConnection("127.0.0.1", self._port, timeout=60) for _ in range(count)]
        for each in new:
            each.connect()
        self.all += new
        return new

    def send(self, connections: list[http.client.HTTPConnection]) -> list[int]:
        """The status of a record over each; 0: the connection is broken."""
        return [self._sent(each) for each in connections]

    def _sent(self, connection: http.client.HTTPConnection) -> int:
        connection.auto_open = 0
        try:
            connection.request("POST", self._path, batch(0, 1), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
        except (ConnectionError, http.client.NotConnected):
            return 0
        return response.status

    def _sockets(self) -> dict[int, int]:
        """How many sockets each worker has open."""
        found = dict.fromkeys(self._pids(), 0)
        for pid in found:
            for path in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # it is closed meanwhile
                    found[pid] += os.readlink(path).startswith("socket:")
        return found

    def kept(self) -> dict[int, int]:
        """How many connections each worker has; those are answering nothing."""
        return {pid: count - self._before[pid] for pid, count in self._sockets().items() if pid in self._before}

    def close(self) -> None:
        """Close them, and wait until workers have."""
        for each in self.all:
            each.close()
        self.all = []
        deadline = time.monotonic() + 60
        while any(self.kept().values()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.slow
def test_connections_are_shared(tmp_path: Path, processes: list[Process]) -> None:
    """Of 64, made at once, none of two workers has more than 60 %, every time; all are answered, and not logged.

    Nor is a descriptor left in who has handed one on.
    """
    scope = prepared(tmp_path)
    parent = Parent(tmp_path, *LONG).started()
    processes.append(parent)
    connections = Connections(parent.pids, parent.port, scope)
    said = len(parent.lines)
    for _ in range(5):
        made = connections.make(64)
        assert set(connections.send(made)) == {200}
        assert sum(connections.kept().values()) == 64
        assert max(connections.kept().values()) <= 38
        connections.close()
    assert len(parent.lines) - said < 64
    assert parent.end()[0] == CLEAN


@pytest.mark.slow
def test_a_worker_is_killed_while_connections_are_handed_on(tmp_path: Path, processes: list[Process]) -> None:
    """Clients of the other one go on; whoever comes behind it is served, by that one or by its successor."""
    scope = prepared(tmp_path)
    parent = Parent(tmp_path, *LONG).started()
    processes.append(parent)
    connections = Connections(parent.pids, parent.port, scope)
    first = connections.make(32)
    assert set(connections.send(first)) == {200}
    killed, staying = parent.pids()
    kept = connections.kept()[staying]
    between = connections.make(16)
    os.kill(killed, signal.SIGKILL)
    gone(killed)
    last = connections.make(32)
    assert set(connections.send(last)) == {200}
    assert sorted(connections.send(first)) == [0] * (32 - kept) + [200] * kept
    assert set(connections.send(between)) <= {0, 200}
    parent.wait_for_lines("takes records", 4)
    for each in connections.all:
        each.close()
    status, log = parent.end()
    assert (status, "Traceback" in log) == (CLEAN, False)


class Gateway(threading.Thread):
    """A client that sends single records over one kept connection, and over a new one where it is told to close.

    It leaves the machine some time between two of them: what it waits for is not how many they become.
    """

    def __init__(self, port: int, path: str, first: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.path = path
        self.sent = range(first, first)
        self.ending = threading.Event()
        self.refused: list[object] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.ending.wait(0.01):
            number = self.sent.stop
            connection.request("POST", self.path, batch(number, 1), {"Content-Type": "application/json"})
            response = connection.getresponse()  # a connection that is cut raises, and the thread ends
            answer = response.status, response.read()
            if response.status != 200:
                self.refused.append(answer)
            self.sent = range(self.sent.start, number + 1)
        connection.close()

    def end(self) -> range:
        """Stop; what was acknowledged. The thread must have lived until now."""
        assert self.is_alive()
        self.ending.set()
        self.join(60)
        assert self.refused == []
        return self.sent


def test_sighup_replaces_workers_and_refuses_nobody(tmp_path: Path, processes: list[Process]) -> None:
    """One after the other; new ones do as the configuration says now; a bad one changes nothing."""
    scope = prepared(tmp_path)
    config = tmp_path / "axcollector.yaml"
    config.write_text("max_batch_records: 50\nupload_timeout: 60\n")
    parent = Parent(tmp_path, *LONG, "--config", str(config)).started()
    processes.append(parent)
    path = f"/analytics/{scope}"
    assert parent.post(path, batch(0, 51))[0] == 413
    gateways = [Gateway(parent.port, path, 10**6 * number) for number in range(1, 7)]
    for gateway in gateways:
        gateway.start()
    before = parent.pids()
    config.write_text("max_batch_records: 60\nupload_timeout: 50\n")
    parent.popen.send_signal(signal.SIGHUP)
    parent.wait_for("changed and in force: max_batch_records; changed, for the next start: upload_timeout")
    parent.wait_for_lines("takes records", 5)
    parent.wait_for_lines("has ended with status 0", 2)
    after = parent.pids()
    assert not set(before) & set(after)
    gone(*before)
    assert parent.post(path, batch(0, 51))[0] == 200
    config.write_text("max_batch_records: -1\n")
    parent.popen.send_signal(signal.SIGHUP)
    parent.wait_for("the configuration cannot be used")
    sent = [gateway.end() for gateway in gateways]
    assert min(map(len, sent)) > 0
    assert parent.end()[0] == CLEAN
    data = tmp_path / "axcollector-data"
    # A file whose upload the stop broke off may lie in both.
    paths = [*data.glob("ax/staging/acme~prod~*/*.gz"), *data.glob("store/acme~prod/**/*.gz")]
    files = {path.name: path for path in paths}.values()
    lines = [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]
    expected = {number: 1 for numbers in (range(51), *sent) for number in numbers}
    assert dict(ids_of(lines)) == expected


def test_a_worker_that_cannot_begin_replaces_none(tmp_path: Path, processes: list[Process]) -> None:
    """TLS is spoken by workers; where the certificate cannot be read any more the old ones go on with it."""
    prepared(tmp_path)
    certificate, key = map(Path, Authority().write("127.0.0.1", tmp_path))
    endpoint = f"axtls:0:interface=127.0.0.1:certificate={certificate.name}:key={key.name}"
    parent = Parent(tmp_path, "--listen", endpoint).started()
    processes.append(parent)
    before = parent.pids()
    found = re.findall(r" listen: listening on .*?port=(\d+)", "".join(parent.lines))
    port = next(int(each) for each in found if int(each) != parent.port)
    assert shown_certificate(port)
    key.rename(tmp_path / "elsewhere")
    parent.popen.send_signal(signal.SIGHUP)
    parent.wait_for("stays")
    assert parent.pids() == before
    assert shown_certificate(port)
    (tmp_path / "elsewhere").rename(key)
    parent.popen.send_signal(signal.SIGHUP)
    parent.wait_for_lines("has ended with status 0", 2)
    assert not set(parent.pids()) & set(before)
    assert parent.end()[0] == CLEAN


def shown_certificate(port: int) -> bytes | None:
    """What a client that trusts everybody is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as secure:
        return secure.getpeercert(binary_form=True)


def test_a_socket_of_systemd(tmp_path: Path) -> None:
    """All workers take connections of the one that was handed over; of 64 none of two has more than 60 %."""
    scope = prepared(tmp_path)
    given = socket.create_server(("127.0.0.1", 0))
    port = given.getsockname()[1]
    script = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
        " os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    options = ["axcollector", "--listen", "systemd:domain=INET:name=ingest", "--admin-listen", "", "--workers", "2"]
    with open(tmp_path / "log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(given.fileno()), "-m", "twisted", *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "ingest"},
            pass_fds=[given.fileno()],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for_log(tmp_path / "log", "takes records", 3)
        wait_for_log(tmp_path / "log", "catalog built", 2)
        connections = Connections(lambda: workers_of(process.pid), port, scope)
        made = connections.make(64)
        assert set(connections.send(made)) == {200}
        assert sum(connections.kept().values()) == 64
        assert max(connections.kept().values()) <= 38
        connections.close()
    finally:
        process.terminate()
        process.wait(60)
    given.close()


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
        wait_for_log(tmp_path / "log", "takes records", 3)
        log = wait_for_log(tmp_path / "log", "catalog built", 2)
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
