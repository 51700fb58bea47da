"""Telling the supervisor: what it is told, and when."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from axcollector.notify import LOOK_SECONDS, Readiness, Supervisor
from tests.fakes import result_of


@pytest.fixture(params=["file", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A supervisor's socket, and how it is named to services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = str(tmp_path / "notify")
        listener.bind("\0" + name if request.param == "abstract" else name)
        listener.setblocking(False)
        yield listener, "@" + name if request.param == "abstract" else name


def heard(listener: socket.socket) -> list[str]:
    """The messages that have come."""
    messages = []
    while True:
        try:
            messages.append(listener.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_from_start_to_stop(listener: tuple[socket.socket, str]) -> None:
    """Patience is asked for until requests are taken; then ready, once; the state when it changes; stopping."""
    problems: list[str | None] = ["no snapshot\nyet"]
    clock = Clock()
    service = Readiness(clock, Supervisor({"NOTIFY_SOCKET": listener[1]}), lambda: problems[-1], "taking records")
    service.startService()
    assert heard(listener[0]) == ["EXTEND_TIMEOUT_USEC=30000000\nSTATUS=no snapshot yet"]
    service.reloading()
    service.reloaded()
    assert heard(listener[0]) == []
    clock.advance(LOOK_SECONDS)
    assert heard(listener[0]) == ["EXTEND_TIMEOUT_USEC=30000000"]
    problems.append(None)
    clock.advance(LOOK_SECONDS)
    assert heard(listener[0]) == ["READY=1\nSTATUS=taking records"]
    clock.advance(LOOK_SECONDS)
    assert heard(listener[0]) == []
    service.reloading()
    service.reloaded()
    reloading, ready = heard(listener[0])
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert reloading.rpartition("=")[2].isdecimal()
    assert ready == "READY=1"
    problems.append("trouble")
    clock.advance(LOOK_SECONDS)
    assert heard(listener[0]) == ["STATUS=trouble"]
    result_of(service.stopService())
    assert heard(listener[0]) == ["STOPPING=1\nSTATUS=stopping: committing, answering and splitting what waits"]
    assert clock.getDelayedCalls() == []


def test_without_a_supervisor() -> None:
    """Nobody is told anything, and nothing is looked at."""
    clock = Clock()
    supervisor = Supervisor({})
    service = Readiness(clock, supervisor, lambda: 1 / 0, "taking records")  # type: ignore[arg-type,return-value]
    service.startService()
    assert not supervisor.is_there
    assert clock.getDelayedCalls() == []
    service.reloading()
    result_of(service.stopService())


def test_a_supervisor_that_is_gone(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """One line says so, and the service goes on."""
    supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    for _ in range(2):
        supervisor.tell(READY=1)
    assert [formatEvent(event) for event in log_events] == [
        "the supervisor cannot be told anything: No such file or directory"
    ]


def test_a_supervisor_that_does_not_listen(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """Nobody waits for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "deaf")})
        for _ in range(10_000):
            supervisor.tell(STATUS="x")
    assert [formatEvent(event) for event in log_events] == [
        "the supervisor cannot be told anything: Resource temporarily unavailable"
    ]


def test_a_supervisor_that_hears_later(listener: tuple[socket.socket, str], log_events: list[LogEvent]) -> None:
    """What it waits for, and could not be told because its queue was full, it is told when there is room."""
    clock = Clock()
    supervisor = Supervisor({"NOTIFY_SOCKET": listener[1]})
    service = Readiness(clock, supervisor, lambda: None, "taking records")
    while supervisor.tell(STATUS="full"):
        pass
    service.startService()
    heard(listener[0])
    clock.advance(LOOK_SECONDS)
    assert heard(listener[0]) == ["READY=1\nSTATUS=taking records"]
    service.reloading()
    while supervisor.tell(STATUS="full"):
        pass
    service.reloaded()
    heard(listener[0])
    clock.advance(LOOK_SECONDS)
    assert heard(listener[0]) == ["READY=1"]
    clock.advance(LOOK_SECONDS)
    assert heard(listener[0]) == []
    result_of(service.stopService())
    assert len(log_events) == 1


def test_a_reload_that_ends_while_it_stops(listener: tuple[socket.socket, str]) -> None:
    """A service that has said that it stops says nothing else any more, whatever is reloaded then."""
    service = Readiness(Clock(), Supervisor({"NOTIFY_SOCKET": listener[1]}), lambda: None, "taking records")
    service.startService()
    service.reloading()
    result_of(service.stopService())
    heard(listener[0])
    service.reloaded()
    service.reloading()
    assert heard(listener[0]) == []
