"""The service as a process of its own: started by twistd, stopped, killed, started twice."""

import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from axcollector.registry import Registry
from tests.running import delivered_below, ids_of

ROOT = Path(__file__).parent.parent
CLEAN = -signal.SIGTERM  # when all is done, Twisted ends a process by the signal that stopped it
PORT_LINE = "listen: listening on IPv4Address(type='TCP', host='127.0.0.1', port="


class Process:
    """`twistd -n axcollector`, on ports chosen by the system."""

    command: ClassVar = [sys.executable, "-m", "twisted", "--log-format=text", "axcollector"]

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.popen = subprocess.Popen(
            [*self.command, "--listen", "tcp:0:interface=127.0.0.1", "--admin-listen", "", *options],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.watch()

    def watch(self) -> None:
        """End it, so that its log is shown, should it hang."""
        self.watchdog = threading.Timer(120, self.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def kill(self) -> None:
        """End it at once."""
        self.popen.kill()

    def wait_for_lines(self, text: str, count: int) -> None:
        """Wait until so many log lines hold the text, those that were read before included."""
        for _ in range(count - sum(text in line for line in self.lines)):
            self.wait_for(text)

    def wait_for(self, text: str) -> str:
        """The first log line from here on that holds the text."""
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError("".join(self.lines))

    def started(self) -> "Process":
        """Wait until it takes requests."""
        self.port = int(self.wait_for(PORT_LINE).partition(PORT_LINE)[2].partition(")")[0])
        self.wait_for("catalog built")
        return self

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, object]:
        """Status and answer of a POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, {"Content-Type": "application/json", **named})
        response = connection.getresponse()
        answer = response.status, json.loads(response.read())
        connection.close()
        return answer

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit status and all that it logged."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        rest, _ = self.popen.communicate(timeout=60)
        self.watchdog.cancel()
        return self.popen.returncode, "".join(self.lines) + rest


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Those started by a test; none is left when it ends."""
    started: list[Process] = []
    yield started
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()


def add_scope(directory: Path) -> str:
    """A scope in the default registry of a service that works in this directory."""
    with Registry.create(str(directory / "axcollector-data" / "registry.db")) as registry:
        return registry.add_scope("acme", "prod").id


def batch(first: int, count: int) -> bytes:
    """A body of small records."""
    records = [{"id": first + i, "client_received_start_timestamp": 1} for i in range(count)]
    return json.dumps({"records": records}).encode()


def test_killed_and_restarted_inside_an_interval(tmp_path: Path, processes: list[Process]) -> None:
    """What was acknowledged before each kill -9 is delivered, once, when a process lives long enough."""
    (tmp_path / "axcollector-data").mkdir(mode=0o700)
    scope = add_scope(tmp_path)
    for run in range(4):
        processes.append(Process(tmp_path, "--collection-interval", "3600").started())
        for i in range(5):
            answer = processes[-1].post(f"/analytics/{scope}", batch(100 * run + 10 * i, 10))
            assert answer == (200, {"accepted": 10, "rejected": 0})
        assert processes[-1].end(signal.SIGKILL)[0] == -signal.SIGKILL
    processes.append(Process(tmp_path, "--upload-interval", "0.1").started())
    store = tmp_path / "axcollector-data" / "store"
    while sum(map(len, delivered_below(store).values())) < 200:
        processes[-1].wait_for("delivered")
    expected = {100 * run + i: 1 for run in range(4) for i in range(50)}
    assert ids_of(delivered_below(store)["acme~prod"]) == expected
    status, log = processes[-1].end()
    assert (status, "Traceback" in log) == (CLEAN, False)
    assert [len(list((tmp_path / "axcollector-data" / "ax" / s).iterdir())) for s in ("tmp", "recovered")] == [0, 0]


def test_an_ordered_shutdown(tmp_path: Path, processes: list[Process]) -> None:
    """On SIGTERM the journals are split, and the process exits soon."""
    (tmp_path / "axcollector-data").mkdir(mode=0o700)
    scope = add_scope(tmp_path)
    processes.append(Process(tmp_path, "--collection-interval", "3600", "--upload-interval", "3600").started())
    assert processes[0].post(f"/analytics/{scope}", batch(0, 3))[0] == 200
    before = time.monotonic()
    status, log = processes[0].end()
    assert time.monotonic() - before < 10
    assert (status, "Traceback" in log) == (CLEAN, False)
    data = tmp_path / "axcollector-data" / "ax"
    assert list((data / "tmp").iterdir()) == []
    assert len(list((data / "staging").glob("acme~prod~*/*_writer_1-0-0.txt.gz"))) == 1


def test_who_waits_when_it_ends(tmp_path: Path, processes: list[Process]) -> None:
    """On SIGTERM also those get an answer whose large bodies nobody has looked at yet."""
    (tmp_path / "axcollector-data").mkdir(mode=0o700)
    path = f"/analytics/{add_scope(tmp_path)}"
    processes.append(Process(tmp_path).started())
    record = b'{"client_received_start_timestamp":1,"a":"\\ud800","b":"%b"}' % (b" " * (1 << 12))
    body = gzip.compress(b'{"records":[%b]}' % b",".join([record] * 2000), 9)
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    whole = (head + b"Content-Length: %d\r\n\r\n%b") % (path.encode(), len(body), body)
    clients = [socket.create_connection(("127.0.0.1", processes[0].port), 30) for _ in range(30)]
    for client in clients:
        client.sendall(whole)
    assert processes[0].post(path, batch(0, 3))[0] == 200  # so those before were received
    assert processes[0].end()[0] == CLEAN
    answers = [b"".join(iter(lambda: client.recv(1 << 16), b"")) for client in clients]  # noqa: B023 - used at once
    for client in clients:
        client.close()
    assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}


def test_the_second_process_is_refused(tmp_path: Path, processes: list[Process]) -> None:
    """It says who holds the directory and exits with 1; a killed holder's lock does not block."""
    first = Process(tmp_path)
    processes.append(first.started())
    second = Process(tmp_path)
    processes.append(second)
    output, _ = second.popen.communicate(timeout=60)
    assert second.popen.returncode == 1
    assert f"process {first.popen.pid} already works in this data directory" in output
    assert "Traceback" not in output
    first.end(signal.SIGKILL)
    processes.append(Process(tmp_path).started())
    assert processes[-1].end()[0] == CLEAN
