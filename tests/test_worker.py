"""What a worker does as it is told, in this process: real sockets, files and threads, and the test for a parent."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest_twisted
import treq
from msgspec import structs
from twisted.internet import reactor, task
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool

from axcollector.config import Config
from axcollector.core.layout import JournalName, Stage
from axcollector.core.messages import (
    Changes,
    Door,
    Leave,
    Ready,
    Report,
    Reports,
    RowChange,
    Said,
    Setup,
    Shown,
    Situation,
    Snapshot,
    Standing,
    frame,
)
from axcollector.disk import Disk
from axcollector.registry import Registry
from axcollector.worker import LAST_SECONDS, Work
from axcollector.worker_pipe import ParentPipe
from axcollector.workers.inheritance import settings_of_workers
from tests.conftest import LoggedFailures
from tests.running import until

BATCH = b'{"records":[{"client_received_start_timestamp":1}]}'


class Parent:
    """A worker's parent.

    Attributes:
        reports: What the worker has said.
        ended: Whether it has ended.
        limits: After how many seconds it would have ended in any case, each time that was said.
    """

    def __init__(self, root: Path, **settings: Any) -> None:
        self.reports: list[Report] = []
        self.ended = False
        self.limits: list[float] = []
        self.work = Work(reactor, self.reports.append, self.end, self.limits.append)
        self.tmp = root / "ax" / Stage.TMP
        self.tmp.mkdir(parents=True)
        with Registry.create(str(root / "registry.db")) as registry:
            self.scope = registry.add_scope("acme", "prod").id
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}/analytics"
        config = Config(local_storage_path=str(root), collection_interval=1, workers=2, **settings)
        self.setup = Setup(
            settings=settings_of_workers(config),
            instance_id="id",
            starts=4,
            worker=7,
            doors=[Door(config.listen[0], os.dup(self.listening.fileno()))],
            situation=Situation(None, 0),
            snapshot=Snapshot(1, "v1", str(root / "registry.db")),
        )
        self.pool = HTTPConnectionPool(reactor)
        self.agent = Agent(reactor, pool=self.pool)

    def end(self) -> None:
        self.ended = True

    async def begin(self) -> "Parent":
        """It takes records."""
        self.work.take(self.setup)
        await until(lambda: Ready() in self.reports)
        return self

    async def post(self, scope: str = "") -> int:
        """The status of a batch."""
        url = f"{self.url}/{scope or self.scope}"
        response = await treq.post(url, BATCH, headers={"Content-Type": "application/json"}, agent=self.agent)
        await response.content()
        return int(response.code)

    def journals(self) -> list[JournalName]:
        return sorted((JournalName.parse(path.name)[0] for path in self.tmp.iterdir()), key=lambda name: name.sequence)

    def standing(self) -> Standing:
        """The last that was said."""
        return next(report for report in reversed(self.reports) if isinstance(report, Standing))

    async def close(self) -> None:
        """Have it leave, and close what is ours."""
        if not self.ended:
            self.work.take(Leave(gently=False))
        await until(lambda: self.ended)
        self.listening.close()
        await self.pool.closeCachedConnections()


def is_finished(path: Path) -> bool:
    """Whether a journal is not written any more."""
    with Disk().claimed(str(path)) as is_ours:
        return is_ours


@pytest_twisted.ensureDeferred
async def test_from_beginning_to_end(tmp_path: Path) -> None:
    """It reads the registry before it takes records, writes journals of its number, finishes them, and leaves."""
    parent = await Parent(tmp_path).begin()
    assert parent.reports.index(Shown(1, is_shown=True)) < parent.reports.index(Ready())
    assert await parent.post() == 200
    await until(lambda: bool(parent.standing().needs))
    (journal,) = parent.journals()
    assert (journal.instance_id, journal.starts, journal.worker, journal.sequence) == ("id", 4, 7, 0)
    assert list(parent.standing().needs) == [journal.identity]
    ingest = parent.standing().ingest
    assert ingest is not None
    assert (ingest.commits, ingest.connections, ingest.accepted_records) == (1, 1, 1)
    path = tmp_path / "ax" / "tmp" / journal.journal
    await until(lambda: is_finished(path))
    path.unlink()  # as who splits it does
    await until(lambda: parent.standing().needs == {})
    assert await parent.post() == 200
    parent.work.take(Leave(gently=False))
    parent.work.take(Leave(gently=False))
    await until(lambda: parent.ended)
    assert parent.limits == [LAST_SECONDS] * 2
    assert len(parent.journals()) == 1
    await parent.close()


@pytest_twisted.ensureDeferred
async def test_what_the_source_tells(tmp_path: Path) -> None:
    """Snapshots and changes come to the catalog; long lists in parts; each is answered."""
    parent = await Parent(tmp_path).begin()
    row = {"scope": "s", "org": "o"}
    rows = [RowChange(1, "edgex.data_scope", {**row, "id": f"s{i}", "env": f"e{i}"}, None) for i in (1, 2)]
    parent.work.take(Changes(2, "v2", rows[:1], more=True))
    assert await parent.post("s1") == 400
    parent.work.take(Changes(2, "v2", rows[1:]))
    await until(lambda: Shown(2, is_shown=True) in parent.reports)
    assert [await parent.post(scope) for scope in ("s1", "s2")] == [200, 200]
    parent.work.take(Snapshot(3, "v3", str(tmp_path / "registry.db")))
    await until(lambda: Shown(3, is_shown=True) in parent.reports)
    assert [await parent.post(scope) for scope in ("s1", "")] == [400, 200]
    await parent.close()


@pytest_twisted.ensureDeferred
async def test_room_is_the_parents_to_know(tmp_path: Path) -> None:
    """What it is told at the start and later decides; what journals of others need is kept free."""
    parent = Parent(tmp_path)
    parent.setup = structs.replace(parent.setup, situation=Situation("full", 0))
    await parent.begin()
    assert await parent.post() == 503
    assert parent.standing().problems["spool"] == "full"
    parent.work.take(Situation(None, 1 << 62))
    assert await parent.post() == 503
    parent.work.take(Situation(None, 0))
    assert await parent.post() == 200
    await parent.close()


@pytest_twisted.ensureDeferred
async def test_before_the_first_snapshot(tmp_path: Path) -> None:
    """Where there was none yet, requests are answered, with what the service says then."""
    parent = Parent(tmp_path)
    parent.setup = structs.replace(parent.setup, snapshot=None)
    await parent.begin()
    assert await parent.post() == 500
    assert parent.standing().problems["catalog"] == "Service is not initialized completely"
    await parent.close()


@pytest_twisted.ensureDeferred
async def test_leaving_gently(tmp_path: Path) -> None:
    """A client that is used to its connection is told to close it; an idle one has a while; then the end comes."""
    parent = await Parent(tmp_path).begin()
    idle = socket.create_connection(parent.listening.getsockname())
    busy = socket.create_connection(parent.listening.getsockname())
    head = f"POST /analytics/{parent.scope} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(BATCH)}\r\n\r\n".encode() + BATCH
    await until(lambda: parent.standing().ingest.connections == 2)
    parent.work.take(Leave(gently=True))
    busy.setblocking(False)
    busy.sendall(request)
    answer = bytearray()

    def is_answered() -> bool:
        try:
            piece = busy.recv(1000)
        except BlockingIOError:
            return False
        answer.extend(piece)
        return not piece

    await until(is_answered)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in bytes(answer).lower()
    assert not parent.ended
    parent.work.leave(gently=False)  # the parent is gone: no more patience
    await until(lambda: parent.ended)
    idle.settimeout(10)
    assert idle.recv(1) == b""
    for each in (idle, busy):
        each.close()
    await parent.close()


@pytest_twisted.ensureDeferred
async def test_leaving_before_it_has_begun(tmp_path: Path) -> None:
    """It ends, whatever it was doing: it had nothing to do yet, or waited for its catalog."""
    parent = Parent(tmp_path / "1")
    parent.work.leave(gently=False)
    await until(lambda: parent.ended)
    await parent.close()
    parent = Parent(tmp_path / "2")
    (tmp_path / "2" / "registry.db").write_bytes(b"no registry")
    parent.work.take(parent.setup)
    parent.work.take(Leave(gently=True))
    parent.work.leave(gently=False)
    await until(lambda: parent.ended)
    assert Ready() not in parent.reports
    await parent.close()


@pytest_twisted.ensureDeferred
async def test_what_it_cannot_do(tmp_path: Path, logged_failures: LoggedFailures) -> None:
    """It says so in its log, and ends."""
    parent = Parent(tmp_path)
    os.close(parent.setup.doors[0].descriptor)
    parent.work.take(structs.replace(parent.setup, doors=[Door("tcp:0", 9999)]))
    await until(lambda: parent.ended)
    assert len(logged_failures.take(OSError)) == 1
    await parent.close()


class Told:
    """Whoever is told what a parent says."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def take(self, order: object) -> None:
        self.heard.append(order)

    def leave(self, *, gently: bool) -> None:
        self.heard.append(f"leave, gently: {gently}")


@pytest_twisted.ensureDeferred
async def test_the_pipes() -> None:
    """Orders come in, in pieces; reports and log lines go out; when the parent is gone it is time to leave."""
    pipe = ParentPipe(reactor)
    pipe.report(Ready())  # there is nobody yet
    pipe.work = told = Told()
    transport = StringTransport()
    pipe.makeConnection(transport)
    data = frame(Leave(gently=True)) + frame(Situation(None, 3))
    pipe.dataReceived(data[:7])
    pipe.dataReceived(data[7:])
    pipe.report(Ready())
    log = Logger(namespace="axcollector.x", observer=pipe)
    log.error("no {what}", what="room", bytes=2**80, times=3)
    try:
        raise ValueError("why")
    except ValueError:
        log.failure("a bug")
    pipe({"log_format": "old style", "log_time": 0})
    await task.deferLater(reactor, 0)
    ready, *said = Reports().feed(transport.value())
    assert ready == Ready()
    assert [(each.level, each.namespace) for each in said if isinstance(each, Said)] == [
        ("error", "axcollector.x"),
        ("critical", "axcollector.x"),
        ("info", ""),
    ]
    texts = [each.text for each in said if isinstance(each, Said)]
    assert texts == ["no room", "a bug", "old style"]
    first, second, third = (each for each in said if isinstance(each, Said))
    assert (first.event, first.fields) == ("no {what}", {"what": "room", "bytes": str(2**80), "times": 3})
    assert (first.traceback, third.traceback) == (None, None)
    assert second.traceback is not None
    assert second.traceback.startswith("Traceback ")
    assert second.traceback.rstrip().endswith("ValueError: why")
    pipe.connectionLost()
    assert told.heard == [Leave(gently=True), Situation(None, 3), "leave, gently: False"]
