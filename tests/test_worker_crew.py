"""The parent's side of workers: starting, following, replacing, ending them, and speaking for all."""

import json
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure

from axcollector.config import Config
from axcollector.core import messages
from axcollector.core.layout import JournalName, Stage
from axcollector.core.loads import Loads, size_bytes
from axcollector.core.messages import Finish, Leave, Orders, Ready, Said, Setup, Shown, Situation, Standing, frame
from axcollector.core.model import Batch, Interval, Tenant
from axcollector.core.status import CatalogStatus, IngestStatus, TenantTraffic
from axcollector.core.tally import Tally
from axcollector.disk import Disk
from axcollector.log_json import json_line
from axcollector.premises import Identity
from axcollector.quarantine import Quarantine
from axcollector.reserve import SplitReserve
from axcollector.room import Lack
from axcollector.sync.events import ChangeList, Snapshot
from axcollector.workers.crew import LEAVE_SECONDS, REPLACED_SECONDS, START_SECONDS, TELL_SECONDS, Workers
from axcollector.workers.inheritance import environment_of_workers, worker_count
from axcollector.workers.process import FIRST_SOCKET, LOCK, REPORTS, WorkerProcess
from tests.fakes import result_of

WELL = Standing({"catalog": None, "spool": None}, {})
LOCK_FILE = 77


class FakeProcess:
    """A worker process that does what the test says; the parent's transport to it."""

    pid = 4711

    def __init__(self, protocol: WorkerProcess, descriptors: Mapping[int, Any]) -> None:
        self.protocol = protocol
        self.descriptors = descriptors
        self.orders: list[messages.Order] = []
        self._reader = Orders()
        self.is_there = True
        self.is_killed = False
        protocol.makeConnection(self)  # type: ignore[arg-type]

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert descriptor == 0
        self.orders.extend(self._reader.feed(data))

    def signalProcess(self, signal: object) -> None:
        if not self.is_there:
            raise ProcessExitedAlready
        self.is_killed = True

    @property
    def setup(self) -> Setup:
        setup = self.orders[0]
        assert isinstance(setup, Setup)
        return setup

    def says(self, *reports: messages.Report) -> None:
        """It reports something."""
        self.protocol.childDataReceived(REPORTS, b"".join(map(frame, reports)))

    def ends(self, status: int = 0, signal: int | None = None) -> None:
        """It has ended."""
        self.is_there = False
        done = ProcessDone(status) if not status and signal is None else ProcessTerminated(status, signal)
        self.protocol.processEnded(Failure(done))


class FakeReactor(Clock):
    """Time, and processes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[FakeProcess] = []
        self.when_running: list[Callable[[], object]] = []
        self.failure: OSError | None = None
        self.cores: list[set[int]] = []
        self.advance(1_480_000_000)

    def callWhenRunning(self, function: Callable[[], object]) -> None:
        self.when_running.append(function)

    def spawnProcess(
        self, protocol: WorkerProcess, executable: str, args: Sequence[str], env: Any, childFDs: Mapping[int, Any]
    ) -> None:
        if self.failure is not None:
            raise self.failure
        assert args[0] == executable
        self.cores.append(os.sched_getaffinity(0))
        self.started.append(FakeProcess(protocol, childFDs))

    def run(self) -> None:
        """The reactor begins to run."""
        for function in self.when_running:
            function()


class Fixture:
    """Workers whose parent is the test."""

    def __init__(self, data: Path, count: int = 2, **settings: Any) -> None:
        self.reactor = FakeReactor()
        self.config = Config(
            local_storage_path=str(data), listen=["tcp:0:interface=127.0.0.1"], workers=count, **settings
        )
        self.tmp = data / "ax" / Stage.TMP
        self.tmp.mkdir(parents=True)
        self.workers = Workers(self.reactor, self.config, Disk(), count, lambda: LOCK_FILE, int)
        self.room = Lack()
        self.reserve = SplitReserve(Disk(), str(data))
        self.quarantine = Quarantine(str(data / "ax"), 1000)
        self.workers.prepare(Identity("id", 3), self.room, self.reserve, self.quarantine)
        self.workers.startService()

    @property
    def started(self) -> list[FakeProcess]:
        return self.reactor.started

    def begin(self, *reports: messages.Report) -> "Fixture":
        """The reactor runs, and all workers are ready."""
        self.reactor.run()
        for process in self.started:
            process.says(WELL, *reports, Ready())
        return self

    def end(self) -> None:
        """Stop; every worker does as it is told."""
        closed = self.workers.close()
        for process in self.started:
            if process.is_there:
                process.ends()
        result_of(closed)
        result_of(self.workers.stopService())
        assert self.reactor.getDelayedCalls() == []


def test_open_journals_are_finished(tmp_path: Path) -> None:
    """When that is asked for: each worker is told, also one that is leaving; it has its own way to say when it has."""
    f = Fixture(tmp_path).begin()
    result_of(f.workers.finish_open())
    assert [process.orders[-1] for process in f.started] == [Finish()] * 2
    f.end()


def journal(worker: int) -> JournalName:
    """One that a worker has written."""
    return JournalName(Interval(10, 20), "id", 3, worker, 0)


def test_each_has_a_core_where_there_are_as_many(tmp_path: Path) -> None:
    """Its successor has the same one; with one worker more than cores, all may run everywhere."""
    everywhere = os.sched_getaffinity(0)
    count = max(2, len(everywhere))
    own = [{core} for core in sorted(everywhere)] if len(everywhere) > 1 else [everywhere] * 2
    f = Fixture(tmp_path / "as many", count).begin()
    assert f.reactor.cores == own
    f.started[1].ends(1)
    f.reactor.advance(60)
    assert f.reactor.cores == [*own, own[1]]
    f.end()
    f = Fixture(tmp_path / "more", count + 1).begin()
    assert f.reactor.cores == [everywhere] * (count + 1)
    f.end()
    assert os.sched_getaffinity(0) == everywhere


def test_each_gets_its_sockets_and_its_number(tmp_path: Path) -> None:
    """Nothing is started before the reactor runs; then each worker is told what it needs, and nothing secret."""
    f = Fixture(tmp_path, bearer_token="hush", admin_listen="unix:/a")
    assert f.started == []
    f.room.lack = "full"
    f.reactor.run()
    first, second = f.started
    assert (first.setup.worker, second.setup.worker) == (0, 1)
    assert (first.setup.instance_id, first.setup.starts) == ("id", 3)
    assert first.setup.situation == Situation("full", 0)
    assert first.setup.snapshot is None
    assert first.descriptors[LOCK] == LOCK_FILE
    sockets = [process.descriptors[FIRST_SOCKET] for process in f.started]
    assert sockets == [each.fileno() for each in f.workers.places[0].sockets]
    assert [(door.endpoint, door.descriptor) for door in first.setup.doors] == [(f.config.listen[0], FIRST_SOCKET)]
    assert "hush" not in repr(first.setup)
    assert Config(**first.setup.settings).workers == 1
    f.end()


def test_each_can_hand_connections_to_all(tmp_path: Path) -> None:
    """It has its own inbox, which its successor gets too, the entries of all, and numbers that tell who is there."""
    f = Fixture(tmp_path).begin()
    first, second = (process.setup.sharing for process in f.started)
    assert first is not None
    assert second is not None
    assert (first.slot, second.slot) == (0, 1)
    shared = [first.memory, *first.entries]
    of_first, of_second = ([process.descriptors[each] for each in shared] for process in f.started)
    assert of_first == of_second
    inboxes = [process.descriptors[first.inbox] for process in f.started]
    assert len({FIRST_SOCKET, *shared, first.inbox}) == len({*of_first, *inboxes}) == 5
    memory = mmap.mmap(os.dup(of_first[0]), size_bytes(2))
    loads = Loads(memoryview(memory).cast("q"))
    assert loads.taker(0, 50) is None
    loads.keeps(1, 0)
    assert loads.taker(0, 50) == 1
    f.started[1].ends(signal=9)
    assert loads.taker(0, 50) is None
    f.reactor.advance(1)
    third = f.started[2]
    assert third.setup.sharing == second
    assert [third.descriptors[each] for each in (*shared, first.inbox)] == [*of_second, inboxes[1]]
    f.end()


def test_readiness_of_several(tmp_path: Path) -> None:
    """Not ready when no worker is; who has room is enough, but whoever takes records needs to know the tenants."""
    f = Fixture(tmp_path)
    assert f.workers.problems()["workers"] == "No worker process takes records"
    f.reactor.run()
    f.started[0].says(Standing({"catalog": "none yet", "spool": "full"}, {}))
    assert f.workers.problems()["workers"] == "No worker process takes records"
    f.started[0].says(Ready())
    assert f.workers.problems() == {"catalog": "none yet", "spool": "full", "workers": None}
    f.started[1].says(Standing({"catalog": None, "spool": "also full"}, {}), Ready())
    assert f.workers.problems() == {"catalog": "none yet", "spool": "full", "workers": None}
    f.started[1].says(Standing({"catalog": None, "spool": None}, {}))
    assert f.workers.problems() == {"catalog": "none yet", "spool": None, "workers": None}
    f.started[0].says(Standing({"catalog": None, "spool": "full", "tokens": "cannot be read"}, {}))
    assert f.workers.problems() == {"catalog": None, "spool": None, "tokens": "cannot be read", "workers": None}
    f.end()


def ingest_of(records: int, waiting: int) -> IngestStatus:
    """What a worker has counted."""
    tally = Tally()
    tally.committed([Batch(Tenant("1", "acme", "prod"), b"x", records)], 0.01, 1.0)
    return tally.ingest(waiting)


def test_sums_outlive_workers(tmp_path: Path) -> None:
    """What one said last stays in the totals when it has ended, what waited in it does not; tenants are added up."""
    f = Fixture(tmp_path)
    f.reactor.run()
    traffic = (TenantTraffic("acme", "prod", 5, 50, 7.0),)
    failures = {"heartbeat": (2, "why")}
    older, newer = (CatalogStatus(source="", version=str(at), changed_at=at) for at in (1.0, 2.0))
    f.started[0].says(Standing({}, {}, 0, ingest_of(5, 1), newer, traffic, failures), Ready())
    f.started[1].says(Standing({}, {}, 0, ingest_of(7, 2), older, traffic), Ready())
    account = f.workers.account()
    assert (account.ingest.accepted_records, account.ingest.pending_batches, account.ingest.commits) == (12, 3, 2)
    assert account.catalog.version == "1.0"
    assert [(worker.number, worker.ready) for worker in account.workers] == [(0, True), (1, True)]
    f.started[0].ends(signal=9)
    f.started[1].says(Standing({}, {}, 0, ingest_of(8, 0), older, traffic, failures))
    account = f.workers.account()
    assert (account.ingest.accepted_records, account.ingest.pending_batches, account.ingest.commits) == (13, 0, 2)
    jobs = {job.name: (job.failures, job.reason) for job in account.jobs}
    assert jobs == {"telling workers how things stand": (0, ""), "heartbeat": (4, "why")}
    assert list(f.workers.traffic.pieces(9)) == [[TenantTraffic("acme", "prod", 15, 150, 7.0)]]
    f.end()


def test_one_that_dies_is_followed(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """By one with another number, on the same sockets, told the last snapshot; its journals are abandoned at once."""
    f = Fixture(tmp_path).begin()
    shown = f.workers.sync.snapshot_received(Snapshot("v1", "/r.db"))
    assert not f.workers.is_abandoned(journal(1))
    f.started[0].says(Shown(1, is_shown=True))
    f.started[1].ends(signal=9)
    assert result_of(shown)
    assert f.workers.is_abandoned(journal(1))
    assert not f.workers.is_abandoned(journal(0))
    f.reactor.advance(1)
    third = f.started[2]
    assert third.setup.worker == 2
    assert third.setup.snapshot == messages.Snapshot(1, "v1", "/r.db")
    assert third.descriptors[FIRST_SOCKET] == f.started[1].descriptors[FIRST_SOCKET]
    assert not f.workers.is_abandoned(journal(2))
    assert [e["how"] for e in log_events if "nobody had it end" in e["log_format"]] == ["by SIGKILL"]
    f.end()


def test_one_that_cannot_live_is_started_ever_more_seldom(tmp_path: Path) -> None:
    """As long as it ends before it takes records, or cannot be started at all."""
    f = Fixture(tmp_path, count=1)
    f.reactor.run()
    for _ in range(600):
        if f.started[-1].is_there:
            f.started[-1].ends(status=1)
        f.reactor.advance(1)
    count = len(f.started)
    assert 25 < count < 120
    f.reactor.failure = OSError(11, "Resource temporarily unavailable")
    for _ in range(60):
        f.reactor.advance(1)
    assert len(f.started) <= count + 1
    f.reactor.failure = None
    for _ in range(60):
        f.reactor.advance(1)
    assert f.started[-1].is_there
    f.end()


def test_stopping(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """All are told to leave, at once; none follows; one that does not leave in time is killed."""
    f = Fixture(tmp_path).begin()
    port = f.workers.places[0].sockets[0]
    closed = f.workers.close()
    assert [process.orders[-1] for process in f.started] == [Leave(gently=False)] * 2
    f.started[0].ends()
    f.reactor.advance(LEAVE_SECONDS - 0.1)
    assert not f.started[1].is_killed
    f.reactor.advance(0.2)
    assert f.started[1].is_killed
    assert not closed.called
    f.started[1].ends(signal=9)
    result_of(closed)
    assert port.fileno() == -1
    result_of(f.workers.stopService())
    assert len(f.started) == 2
    assert f.reactor.getDelayedCalls() == []
    assert len([e for e in log_events if "does not leave" in e["log_format"]]) == 1


def test_stopping_before_it_has_begun(tmp_path: Path) -> None:
    """Or while a worker's successor is waited for: nothing is started any more."""
    f = Fixture(tmp_path / "1")
    result_of(f.workers.close())
    f.reactor.run()
    assert f.started == []
    f = Fixture(tmp_path / "2").begin()
    f.started[0].ends(status=1)
    f.end()
    f.reactor.advance(100)
    assert len(f.started) == 2


def test_replacing_one_after_the_other(tmp_path: Path) -> None:
    """A second one is started in a slot; when it takes records the first leaves, gently; then comes the next slot."""
    f = Fixture(tmp_path).begin()
    done = defer.ensureDeferred(f.workers.replace(replace(f.config, max_body_bytes=99)))
    assert [process.setup.worker for process in f.started] == [0, 1, 2]
    new = f.started[2]
    assert new.setup.settings["max_body_bytes"] == 99
    assert new.descriptors[FIRST_SOCKET] == f.started[0].descriptors[FIRST_SOCKET]
    assert not isinstance(f.started[0].orders[-1], Leave)
    new.says(WELL, Ready())
    assert f.started[0].orders[-1] == Leave(gently=True)
    assert len(f.started) == 3
    f.started[0].ends()
    assert f.started[3].descriptors[FIRST_SOCKET] == f.started[1].descriptors[FIRST_SOCKET]
    f.started[3].says(WELL, Ready())
    f.reactor.advance(REPLACED_SECONDS + 0.1)
    assert f.started[1].is_killed
    f.started[1].ends(signal=9)
    result_of(done)
    assert len(f.started) == 4
    f.started[2].ends(status=3)  # one that came in another's place is followed like any other
    f.reactor.advance(1)
    assert f.started[4].setup.settings["max_body_bytes"] == 99
    f.end()


@pytest.mark.parametrize("how", ["it ends", "it never takes records"])
def test_a_replacement_that_fails(tmp_path: Path, how: str, log_events: list[LogEvent]) -> None:
    """The old ones stay, all of them, and go on as they were."""
    f = Fixture(tmp_path).begin()
    done = defer.ensureDeferred(f.workers.replace(f.config))
    if how == "it ends":
        f.started[2].ends(status=1)
    else:
        f.reactor.advance(START_SECONDS + 1)
        assert f.started[2].is_killed
        f.started[2].ends(signal=9)
    result_of(done)
    assert len(f.started) == 3
    assert not any(isinstance(process.orders[-1], Leave) for process in f.started)
    assert len([e for e in log_events if "stays" in e["log_format"]]) == 1
    f.end()


def test_replacing_meets_accidents(tmp_path: Path) -> None:
    """An old one that ends meanwhile is followed, and the new one is not needed; the stop interrupts it all."""
    f = Fixture(tmp_path).begin()
    done = defer.ensureDeferred(f.workers.replace(f.config))
    f.started[0].ends(signal=9)
    f.reactor.advance(1)
    assert f.started[3].setup.worker == 3
    f.started[2].says(WELL, Ready())
    assert f.started[2].orders[-1] == Leave(gently=True)
    f.started[2].ends()
    assert len(f.started) == 5  # the next slot's turn
    f.end()
    result_of(done)
    assert len(f.started) == 5


def test_the_old_one_ends_while_its_successor_begins(tmp_path: Path) -> None:
    """Then that is the one that follows it."""
    f = Fixture(tmp_path, count=1).begin()
    done = defer.ensureDeferred(f.workers.replace(f.config))
    f.started[0].ends(signal=9)
    f.started[1].says(WELL, Ready())
    result_of(done)
    f.reactor.advance(100)
    assert len(f.started) == 2
    assert not any(isinstance(order, Leave) for order in f.started[1].orders)
    f.end()


def test_workers_are_told_how_things_stand(tmp_path: Path) -> None:
    """What lacks, and what the journals of others need; only where that has changed."""
    f = Fixture(tmp_path).begin()
    f.reserve.note_need("recovered", 1000)
    f.started[0].says(Standing({}, {journal(0).identity: 30}))
    f.started[1].says(Standing({}, {journal(1).identity: 4}))
    for _ in range(3):
        f.reactor.advance(TELL_SECONDS)
    assert [process.orders[1:] for process in f.started] == [[Situation(None, 1004)], [Situation(None, 1030)]]
    f.room.lack = "full"
    (f.tmp / journal(1).journal).write_bytes(b"left")
    f.started[1].says(Standing({}, {journal(1).identity: 5, "split already": 70}))
    f.started[1].ends(signal=9)
    assert f.reserve.needs == {"recovered": 1000, journal(1).identity: 5}
    f.reactor.advance(TELL_SECONDS)
    assert f.started[0].orders[-1] == Situation("full", 1005)
    f.end()


def test_workers_share_the_quarantines_room(tmp_path: Path) -> None:
    """Each is told what lies there, what the others have set aside, and how often that was measured."""
    f = Fixture(tmp_path).begin()
    (tmp_path / "ax" / "quarantine").mkdir()
    (tmp_path / "ax" / "quarantine" / "file").write_bytes(b"x" * 100)
    f.quarantine.measure()
    f.started[0].says(Standing({}, {}, 30))
    f.started[1].says(Standing({}, {}, 4))
    f.reactor.advance(TELL_SECONDS)
    told = [process.orders[-1] for process in f.started]
    assert told == [Situation(None, 0, 104, 1), Situation(None, 0, 130, 1)]
    f.end()


def test_what_workers_say_is_logged(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """With their numbers; lines that something in them prints too, however they come."""
    f = Fixture(tmp_path, count=1).begin()
    f.started[0].says(Said("error", "axcollector.spool", "no {room}", "no {what}", {"limit": 7, "worker": 9}))
    f.started[0].says(Said("critical", "axcollector.bugs", "a bug", "a {what}", {}, "Traceback: why"))
    protocol = f.started[0].protocol
    protocol.childDataReceived(2, b"one\ntw")
    protocol.childDataReceived(1, b"x" * 20_000)
    protocol.childDataReceived(2, b"o\n\nthree")
    f.started[0].ends(status=1)
    said = [(e["log_level"].name, e["log_namespace"], formatEvent(e)) for e in log_events if "said" in e]
    assert said == [
        ("error", "axcollector.spool", "worker 0: no {room}"),
        ("critical", "axcollector.bugs", "worker 0: a bug\nTraceback: why"),
    ]
    lines = [json.loads(json_line(e)) for e in log_events if "said" in e]
    assert [(line["event"], line["text"], line.get("traceback")) for line in lines] == [
        ("no {what}", "worker 0: no {room}", None),
        ("a {what}", "worker 0: a bug", "Traceback: why"),
    ]
    assert [(line["worker"], line.get("limit"), line["level"]) for line in lines] == [
        (0, 7, "error"),
        (0, None, "critical"),
    ]
    assert [e["printed"] for e in log_events if "printed" in e] == ["one", "x" * 20_000, "two", "three"]
    assert {e["worker"] for e in log_events if "printed" in e} == {0}
    f.end()


def test_one_that_is_not_understood_is_killed(tmp_path: Path) -> None:
    """It is no worker of this version."""
    f = Fixture(tmp_path, count=1).begin()
    f.started[0].protocol.childDataReceived(REPORTS, b"\xff\xff\xff\xff")
    assert f.started[0].is_killed
    f.started[0].protocol.kill()
    f.end()
    f.started[0].protocol.kill()  # there is nobody any more


def test_events_of_one_that_leaves(tmp_path: Path) -> None:
    """They are not waited for, and it is told no others; an answer nobody waits for is passed over."""
    f = Fixture(tmp_path, count=1).begin()
    shown = f.workers.sync.snapshot_received(Snapshot("v1", "/r.db"))
    f.started[0].protocol.leave(gently=True)
    assert result_of(shown)
    assert result_of(f.started[0].protocol.tell(9, []))
    f.started[0].says(Shown(1, is_shown=False))
    assert result_of(f.workers.sync.changes_received(ChangeList([])))
    assert isinstance(f.started[0].orders[-1], Leave)
    f.end()
    assert result_of(f.started[0].protocol.ended()) is None
    assert result_of(f.started[0].protocol.ready_or_ended()) is None
    assert result_of(f.workers.finish_due()) is None


def test_the_count() -> None:
    """Nought is one for each core."""
    assert [worker_count(configured, 4) for configured in (0, 1, 3)] == [4, 1, 3]
    assert worker_count(0, 0) == 1


def test_what_workers_inherit() -> None:
    """All but what is meant for the parent alone; this package is found first."""
    given = {
        "HOME": "/h",
        "LISTEN_FDS": "1",
        "NOTIFY_SOCKET": "/n",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "PYTHONPATH": "/p",
    }
    inherited = environment_of_workers(given)
    assert inherited.keys() == {"HOME", "PYTHONPATH"}
    root = str(Path(__file__).parent.parent)
    assert inherited["PYTHONPATH"] == os.pathsep.join([root, "/p"])
    assert environment_of_workers({})["PYTHONPATH"] == root
