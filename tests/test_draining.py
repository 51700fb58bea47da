"""Draining: what was taken is delivered before its interval is over, and the collector goes on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent

from axcollector.core.delivery import Backlog, UploaderStatus
from axcollector.core.errors import Overloaded
from axcollector.draining import LOOK_SECONDS, TROUBLE_SECONDS, Draining
from tests.conftest import LoggedFailures
from tests.fakes import SameThread, result_of
from tests.running import QUICK, Running, until
from tests.test_process import CLEAN, Process, processes
from tests.test_workers import LONG, Parent, delivered, prepared

__all__ = ["processes"]  # a fixture

HELD = "20260102030400.20260102030600_x_writer_1-0-0.journal"
LATER = "20260102030400.20260102030600_x_writer_1-0-1.journal"


class Stand:
    """Journals, a splitter and an uploader that do what they are told."""

    def __init__(self, root: Path) -> None:
        (root / "tmp").mkdir()
        self.tmp = root / "tmp"
        self.clock = Clock()
        self.open = [HELD]
        self.failures = 0
        self.finished = self.splits = self.sweeps = 0
        self.backlog = Backlog()
        self.trouble: Exception | None = None
        (self.tmp / HELD).touch()
        any_self = self  # all of them
        self.draining = Draining(self.clock, SameThread(), any_self, any_self, any_self)
        self.draining.startService()

    def finish_open(self) -> "defer.Deferred[None]":
        """As journals."""
        self.finished += 1
        return defer.succeed(None)

    def journals(self) -> set[str]:
        """As the splitter."""
        return set(os.listdir(self.tmp))

    def work(self) -> int:
        """As the splitter: takes what is not open any more."""
        self.splits += 1
        if self.trouble:
            raise self.trouble
        for name in set(os.listdir(self.tmp)) - set(self.open):
            (self.tmp / name).unlink()
        return self.failures

    def sweep(self) -> "defer.Deferred[None]":
        """As the uploader."""
        self.sweeps += 1
        return defer.succeed(None)

    def status(self) -> UploaderStatus:
        """As the uploader."""
        return UploaderStatus(backlog=self.backlog)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """A stand that leaves no delayed call."""
    stand = Stand(tmp_path)
    yield stand
    result_of(stand.draining.stopService())
    assert stand.clock.getDelayedCalls() == []


def test_until_all_is_delivered(stand: Stand) -> None:
    """Journals are split when they are finished, which a worker does in its time; then staging empties."""
    stand.draining.drain()
    assert (stand.finished, stand.sweeps, stand.draining.is_under_way) == (1, 1, True)
    stand.open = []
    stand.backlog = Backlog(buckets=1)
    stand.clock.advance(LOOK_SECONDS)
    assert os.listdir(stand.tmp) == []
    assert stand.draining.is_under_way
    stand.backlog = Backlog()
    stand.clock.advance(LOOK_SECONDS)
    assert not stand.draining.is_under_way
    assert (stand.finished, stand.sweeps) == (1, 3)


def test_what_comes_later_is_not_waited_for(stand: Stand) -> None:
    """A journal that was opened meanwhile is for its interval's end, or for the next time that somebody asks."""
    stand.draining.drain()
    stand.open = [LATER]
    (stand.tmp / LATER).touch()
    stand.clock.advance(LOOK_SECONDS)
    assert (os.listdir(stand.tmp), stand.draining.is_under_way) == ([LATER], False)


def test_asked_again(stand: Stand) -> None:
    """While it is under way: what has come since is taken in."""
    stand.draining.drain()
    stand.open = [LATER]
    (stand.tmp / LATER).touch()
    stand.draining.drain()
    stand.clock.advance(LOOK_SECONDS)
    assert (stand.finished, stand.draining.is_under_way) == (2, True)
    stand.open = []
    stand.clock.advance(LOOK_SECONDS)
    assert not stand.draining.is_under_way


def test_a_split_that_fails(stand: Stand) -> None:
    """Is tried again, not as often."""
    stand.failures = 1
    stand.draining.drain()
    stand.clock.advance(LOOK_SECONDS)
    assert stand.splits == 1
    stand.clock.advance(TROUBLE_SECONDS)
    assert stand.splits == 2


@pytest.mark.parametrize("kind", [OSError, ZeroDivisionError])
def test_what_goes_wrong(
    stand: Stand, kind: type[Exception], log_events: list[LogEvent], logged_failures: LoggedFailures
) -> None:
    """It is told, and can be asked for again."""
    stand.trouble = kind("broken")
    stand.draining.drain()
    assert not stand.draining.is_under_way
    assert len(logged_failures.take(Exception)) == (kind is ZeroDivisionError)
    errors = [formatEvent(event) for event in log_events if event["log_level"] == LogLevel.error]
    assert errors == (["draining broke off: broken; ask for it again"] if kind is OSError else [])
    stand.trouble = None
    stand.draining.drain()
    assert stand.draining.is_under_way


def test_a_stop(stand: Stand) -> None:
    """Ends it at once; nothing is begun after it."""
    stand.draining.drain()
    result_of(stand.draining.stopService())
    assert not stand.draining.is_under_way
    stand.draining.drain()
    assert stand.finished == 1


@pytest_twisted.ensureDeferred
async def test_a_collector_is_drained(tmp_path: Path) -> None:
    """Long before the interval is over; then it takes records as before, and what it takes can be drained again."""
    running = await Running(tmp_path / "data", **QUICK | {"collection_interval": 86_400}).start()
    scope = await running.scope("acme", "prod")
    for count in (3, 6):
        await running.send(scope, ['{"client_received_start_timestamp": 1}'] * 3)
        running.collector.drain()
        await until(lambda count=count: running.stored() == count)
    await running.stop()
    assert running.stored() == 6
    with pytest.raises(Overloaded):
        running.collector.drain()
    with pytest.raises(Overloaded):
        await running.collector.retry_failed()


@pytest.mark.slow
def test_workers_are_drained(tmp_path: Path, processes: list[Process]) -> None:
    """Both finish the journals that they have open, and go on in others; asked for at the admin port."""
    scope = prepared(tmp_path)
    parent = Parent(tmp_path, *LONG, "--admin-listen", "tcp:0:interface=127.0.0.1")
    processes.append(parent)
    admin = int(parent.wait_for("admin_listen: listening on").partition("port=")[2].partition(")")[0])
    parent.started()
    for first in (0, 200):
        parent.send(scope, first, 20)
        ports, parent.port = parent.port, admin
        assert parent.post("/drain", b"{}", X_Axcollector="drain") == (202, {"draining": True})
        parent.port = ports
        assert delivered(parent, tmp_path, first + 200) == dict.fromkeys(range(first + 200), 1)
    status, log = parent.end()
    assert (status, "Traceback" in log) == (CLEAN, False)
