"""Backpressure: beyond the limits a batch is refused at once, below them nobody waits long."""

import gc
import gzip
import json
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_twisted
import treq
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer, reactor
from twisted.internet.task import Clock
from twisted.web.client import Agent, HTTPConnectionPool

from axcollector.access import Access
from axcollector.core.commit import PACE_SECONDS, GroupCommit
from axcollector.core.errors import Overloaded, SpoolFailed
from axcollector.core.frames import FrameReader
from axcollector.core.layout import JournalName
from axcollector.core.model import Batch, DeveloperInfo, Tenant
from axcollector.core.payload import Limits
from axcollector.core.records import Rules
from axcollector.core.tally import Tally
from axcollector.disk import AppendFile, Disk
from axcollector.intake import Intake
from axcollector.journal import Durability, JournalPlan, JournalWriter
from axcollector.room import Room
from axcollector.services import Worker, WorkThread
from axcollector.site import IngestSite
from axcollector.spool import Spool
from axcollector.webapi import AnalyticsAPI
from tests.fakes import HeldThread, SameThread, result_of
from tests.running import until
from tests.wire import Connection, request

ACME = Tenant("s1", "acme", "prod")
MAX_BATCHES, MAX_BYTES = 8, 400
JSON = ("Content-Type", "application/json")
GZIP = ("Content-Encoding", "gzip")
LIMITS = Limits(max_body_bytes=10 << 20, max_decompressed_bytes=50 << 20, max_batch_records=20_000)


class SlowFile(AppendFile):
    """A file of a `SlowDisk`."""

    disk: "SlowDisk"

    def sync(self) -> None:
        self.disk.syncs += 1
        assert self.disk.go_on.wait(60)
        super().sync()


class SlowDisk(Disk):
    """A real directory whose syncs take until it is told to go on.

    Attributes:
        go_on: Set, it is as fast as any.
        syncs: How many were begun.
    """

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.syncs = 0

    def create(self, path: str) -> AppendFile:
        file = super().create(path)
        slow = SlowFile(path, file._descriptor)
        slow.disk = self
        return slow


class FailingDisk(Disk):
    """A real directory in which nothing can be made while it is told to fail."""

    fails = False

    def create(self, path: str) -> AppendFile:
        if self.fails:
            raise OSError(28, "No space left on device")
        return super().create(path)


class OneTenant:
    """A `Directory` that knows one tenant, whatever it is asked."""

    catalog = None

    def ready(self) -> bool:
        return True

    async def tenant_for_scope(self, scope: str) -> Tenant:
        return ACME

    async def tenant_for_names(self, organization: str, environment: str) -> Tenant:
        return ACME

    async def developers(self, tenant: Tenant, client_ids: Collection[str]) -> Mapping[str, DeveloperInfo]:
        return {}


@dataclass(frozen=True)
class Config:
    """What the routes ask of a configuration."""

    base_path: str = "/analytics"


class Stand:
    """The doors and the way in, down to a journal, with limits of their own."""

    def __init__(
        self,
        root: Path,
        *,
        clock: object = None,
        disk: Disk | None = None,
        writer: Worker | None = None,
        bodies: Worker | None = None,
        batches: int = 1000,
        pending_bytes: int = 1 << 20,
        limits: Limits = LIMITS,
    ) -> None:
        self.config = Config()
        self.tally = Tally()
        self.directory = OneTenant()
        clock = clock or Clock()
        self.access = Access(clock, self.directory)
        disk = disk or Disk()
        self.journal = JournalWriter(disk, JournalPlan(str(root), "id", 1, 120, 1 << 30, Durability.FSYNC))
        self.spool = Spool(clock, writer or SameThread(), self.journal, GroupCommit(batches, pending_bytes))
        room = Room(disk, str(root), 1 << 40)
        bodies = bodies or SameThread()
        self.intake = Intake(clock, bodies, self.directory, self.spool, room, limits, Rules(), pending_bytes)
        self.site = IngestSite(
            AnalyticsAPI(self).resource(),
            clock,
            max_body_bytes=limits.max_body_bytes,
            max_pending_bytes=pending_bytes,
            request_timeout_seconds=60,
        )


def body_of(size: int, count: int = 1) -> bytes:
    """A body of so many records of about this size."""
    record = {"client_received_start_timestamp": 1, "filler": "x" * max(0, size - 60)}
    return json.dumps({"records": [record] * count}).encode()


# Waiting


@dataclass
class Waiter:
    """A batch that waits.

    Attributes:
        due: It is to be answered when so many writes have ended.
        answered: How many had ended when it was.
    """

    size: int
    due: int
    answered: int | None = None


class Arrivals:
    """A spool whose writes end when told to, and a model of it: who waits, and until when."""

    def __init__(self, root: str) -> None:
        self.thread = HeldThread()
        self.disk = FailingDisk()
        writer = JournalWriter(self.disk, JournalPlan(root, "id", 1, 120, 1, Durability.WRITE))
        self.clock = Clock()
        self.spool = Spool(self.clock, self.thread, writer, GroupCommit(MAX_BATCHES, MAX_BYTES))
        self.waiters: list[Waiter] = []
        self.gone: list[Waiter] = []
        self.writes = 0

    def submit(self, size: int, *, hang_up: bool) -> None:
        """A batch is refused at once, exactly where as many wait as may; else it waits for one write or two."""
        waiting = [waiter for waiter in self.waiters if waiter.due > self.writes]
        assert self.spool.waiting == len(waiting)
        full = len(waiting) >= MAX_BATCHES or sum(waiter.size for waiter in waiting) >= MAX_BYTES
        under_way = len(self.thread.jobs)
        result = self.spool.submit(Batch(ACME, b"x" * (size - 1) + b"\n", 1))
        if full:
            with pytest.raises(Overloaded) as refusal:
                result_of(result)
            assert (refusal.value.status, refusal.value.retry_after) == (503, 1)
            return
        waiter = Waiter(size, self.writes + 1 + under_way)
        self.waiters.append(waiter)
        if hang_up:
            self.gone.append(waiter)
            result.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
            result.cancel()
        else:
            result.addBoth(self._answered, waiter)

    def _answered(self, outcome: object, waiter: Waiter) -> None:
        assert outcome is None if not self.disk.fails else outcome.check(SpoolFailed)
        waiter.answered = self.writes

    def write(self, *, fails: bool) -> None:
        """Let the write under way end, well or badly; or the pause that those who wait make for others."""
        if not self.thread.jobs:
            self.clock.advance(PACE_SECONDS)
        else:
            assert len(self.thread.jobs) == 1
            self.disk.fails = fails
            self.writes += 1
            self.thread.step()


STEPS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 150), st.booleans()),
    st.tuples(st.just("write"), st.just(0), st.booleans()),
)


@given(st.lists(STEPS, max_size=80))
def test_nobody_waits_for_more_than_two_writes(steps: list[tuple[str, int, bool]]) -> None:
    """Whoever comes, hangs up and fails in whatever order: the write under way, a pause, and the one that takes him."""
    with TemporaryDirectory() as root:
        arrivals = Arrivals(root)
        for what, size, flag in steps:
            if what == "submit":
                arrivals.submit(size, hang_up=flag)
            else:
                arrivals.write(fails=flag)
        while arrivals.spool.waiting:
            arrivals.write(fails=False)
            assert arrivals.thread.jobs or arrivals.clock.getDelayedCalls() or not arrivals.spool.waiting
        arrivals.spool.close()
        arrivals.thread.step()
        told = [waiter for waiter in arrivals.waiters if waiter not in arrivals.gone]
        assert [waiter.answered for waiter in told] == [waiter.due for waiter in told]
        assert arrivals.spool.waiting == 0


def test_durability_memory_is_bounded_too(tmp_path: Path) -> None:
    """Answered at once, batches wait for their write all the same: beyond the limit they are refused, none is lost."""
    thread, disk = HeldThread(), FailingDisk()
    writer = JournalWriter(disk, JournalPlan(str(tmp_path), "id", 1, 120, 1 << 30, Durability.MEMORY))
    spool = Spool(Clock(), thread, writer, GroupCommit(MAX_BATCHES, 1 << 20), wait=False)
    for _ in range(MAX_BATCHES):
        result_of(spool.submit(Batch(ACME, b"{}\n", 1)))
    with pytest.raises(Overloaded):
        result_of(spool.submit(Batch(ACME, b"{}\n", 1)))
    assert list(tmp_path.iterdir()) == []
    closed = spool.close()
    assert not closed.called
    while thread.jobs:
        thread.step()
    result_of(closed)
    (journal,) = tmp_path.iterdir()
    reader = FrameReader(JournalName.parse(journal.name)[0].identity)
    found = [*reader.feed(journal.read_bytes()), *reader.finish()]
    assert [frame.records for frame in found] == [1, MAX_BATCHES - 1]


# At once, while the disk is slow


@pytest.fixture
def slow_disk() -> Iterator[SlowDisk]:
    """A disk that goes on in the end."""
    disk = SlowDisk()
    yield disk
    disk.go_on.set()


async def pushed(
    root: Path,
    disk: SlowDisk,
    send: Callable[[Callable[[bytes], Awaitable[tuple[int, str | None, str]]]], object],
    **more: int,
) -> None:
    """Let `send` push requests at a real port, through a writer thread of its own, onto the disk."""
    writer = WorkThread(reactor, "writer")
    writer.startService()
    stand = Stand(root, clock=reactor, disk=disk, writer=writer, **more)
    port = reactor.listenTCP(0, stand.site, interface="127.0.0.1")
    pool = HTTPConnectionPool(reactor, persistent=False)
    agent = Agent(reactor, pool=pool)
    url = f"http://127.0.0.1:{port.getHost().port}/analytics/s1"

    async def post(body: bytes) -> tuple[int, str | None, str]:
        response = await treq.post(url, body, headers={"Content-Type": "application/json"}, agent=agent)
        content = json.loads(await response.content())
        (retry_after,) = response.headers.getRawHeaders("Retry-After", [None])
        return response.code, retry_after, content.get("errorCode", "")

    try:
        await send(post)
    finally:
        disk.go_on.set()
        await stand.spool.close()
        await writer.stopService()
        await port.stopListening()
        await pool.closeCachedConnections()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("size", "limits"), [(100, {"batches": 10}), (20_000, {"batches": 1000, "pending_bytes": 205_000})]
)
async def test_a_slow_disk(tmp_path: Path, slow_disk: SlowDisk, size: int, limits: dict[str, int]) -> None:
    """As many as may wait, wait; all others get their 503 while the disk is still at the first; then all is well."""
    answers: list[tuple[int, str | None, str]] = []

    async def send(post: Callable[[bytes], Awaitable[tuple[int, str | None, str]]]) -> None:
        async def one() -> None:
            answers.append(await post(body_of(size)))

        begun = [defer.ensureDeferred(one()) for _ in range(60)]
        await until(lambda: len(answers) == 50)
        assert not slow_disk.go_on.is_set()
        assert slow_disk.syncs == 1
        assert answers == [(503, "1", "OVERLOADED")] * 50
        slow_disk.go_on.set()
        await defer.gatherResults(begun)
        assert answers[50:] == [(200, None, "")] * 10
        assert slow_disk.syncs == 2
        assert await post(body_of(size)) == (200, None, "")

    await pushed(tmp_path, slow_disk, send, **limits)


# Memory


def peak_of(work: Callable[[], None]) -> int:
    """How many bytes a function takes at its worst; the garbage collector, which comes seldom, is no help."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()


def test_memory_while_nothing_is_written(tmp_path: Path) -> None:
    """However much is sent, what is held is what may be pending, twice: as bodies and as lines."""
    writer = HeldThread()
    stand = Stand(tmp_path, writer=writer, pending_bytes=1 << 20)
    data = request("POST", "/analytics/s1", body_of(1000, 100), (JSON,))
    connections = [Connection(stand.site) for _ in range(400)]

    def push() -> None:
        for connection in connections:
            connection.send(data)

    assert len(data) * len(connections) > 30 << 20
    assert peak_of(push) < 6 << 20
    assert stand.spool.waiting == 10
    while writer.jobs:
        writer.step()
    statuses = [answer.status for connection in connections for answer in connection.answers()]
    assert (statuses.count(200), statuses.count(503)) == (10, 390)
    for connection in connections:
        connection.hang_up()
    assert stand.site.pending.held == 0


def test_memory_of_bodies_that_never_end(tmp_path: Path) -> None:
    """Bodies that are being received count as well; what is beyond is read and dropped, and refused."""
    stand = Stand(tmp_path, pending_bytes=1 << 20)
    data = request("POST", "/analytics/s1", body_of(1000, 100), (JSON,))
    connections = [Connection(stand.site) for _ in range(400)]

    def push() -> None:
        for connection in connections:
            connection.send(data[:-1], 1 << 14)

    assert peak_of(push) < 6 << 20
    assert stand.site.pending.held <= 1 << 20
    for connection in connections:
        connection.send(data[-1:])
    answers = [answer for connection in connections for answer in connection.answers()]
    assert {answer.status for answer in answers} == {200, 503}
    for answer in answers:
        assert (answer.headers.get("retry-after"), b"OVERLOADED" in answer.body) in {(None, False), ("1", True)}
    for connection in connections:
        connection.hang_up()


def push_large(stand: Stand, count: int) -> list[Connection]:
    """Requests with bodies that are small as sent and large when inflated, each on a connection of its own."""
    data = request("POST", "/analytics/s1", gzip.compress(body_of(1000, 4000), 9), (JSON, GZIP))
    assert len(data) < 20_000
    connections = [Connection(stand.site) for _ in range(count)]
    for connection in connections:
        connection.send(data)
    return connections


def statuses_of(connections: list[Connection]) -> list[int]:
    """What was answered; the clients are gone then."""
    found = [answer.status for connection in connections for answer in connection.answers()]
    for connection in connections:
        connection.hang_up()
    return found


def test_memory_of_large_bodies(tmp_path: Path) -> None:
    """Of bodies that are small as sent and large when inflated, those that wait are there as they were sent."""
    writer, bodies = HeldThread(), HeldThread()
    stand = Stand(tmp_path, writer=writer, bodies=bodies, pending_bytes=16 << 20)
    connections: list[Connection] = []

    def push() -> None:
        connections.extend(push_large(stand, 40))
        while bodies.jobs or writer.jobs:
            (bodies if bodies.jobs else writer).step()

    assert peak_of(push) < 60 << 20  # of 160 << 20, were they all there
    statuses = statuses_of(connections)
    assert len(statuses) == 40
    assert set(statuses) <= {200, 503}


def test_large_bodies_are_written_one_after_the_other(tmp_path: Path) -> None:
    """They are taken apart in turn; of those that wait each goes with the next write, or with one of those behind it.

    Each makes a batch of more bytes than a write is given, so nobody waits for the compression of all of them.
    """
    writer, bodies = HeldThread(), HeldThread()
    stand = Stand(tmp_path, writer=writer, bodies=bodies, pending_bytes=64 << 20)
    connections = push_large(stand, 6)
    while bodies.jobs:
        bodies.step()
    assert stand.spool.waiting == 6
    answered = []
    while writer.jobs:
        writer.step()
        answered.append(sum(bool(connection.transport.value()) for connection in connections))
    assert answered == [1, 2, 3, 4, 5, 6]
    assert statuses_of(connections) == [200] * 6
    assert stand.spool.waiting_bytes == 0
