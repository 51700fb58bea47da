"""Connections that workers hand on to each other: several of them in this process, with real sockets."""

import errno
import mmap
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec import structs
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IAddress, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure

from axcollector.connections import Connections
from axcollector.core.loads import MOST_COMING, Loads, size_bytes
from axcollector.core.messages import Sharing
from axcollector.handing import Exchange
from axcollector.listening import adopted_endpoint
from axcollector.workers.inboxes import Inboxes
from tests.certificates import Authority
from tests.conftest import LoggedFailures
from tests.running import until
from tests.test_worker import Parent

RESET = struct.pack("ii", 1, 0)


class Named(Protocol):
    """A server's connection: says whose it is, and then what it is told."""

    factory: "NamedFactory"
    transport: ITransport

    def connectionMade(self) -> None:
        self.factory.connections.entered(None)
        trouble, self.factory.trouble = self.factory.trouble, None
        if trouble is not None:
            raise trouble
        self.transport.write(self.factory.name)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.left(None)


class NamedFactory(Factory):
    """Makes them, for one endpoint of a worker; `trouble` is raised by the next one."""

    noisy = False
    trouble: Exception | None = None

    def __init__(self, name: bytes, connections: Connections) -> None:
        self.name = name
        self.connections = connections
        self.refuses = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        if self.refuses:
            return None
        protocol = Named()
        protocol.factory = self
        return protocol


class Worker:
    """One of several workers, in this process.

    Attributes:
        connections: Those that it keeps.
        factories: Of its endpoints.
    """

    def __init__(self, sharing: Sharing, listening: Sequence[socket.socket], endpoints: Sequence[str]) -> None:
        self.connections = Connections(reactor, 0, 0)  # type: ignore[arg-type]  # the module that stands for it
        self.exchange = Exchange(reactor, sharing, self.connections)
        self.factories = [NamedFactory(b"%d/%d" % (sharing.slot, at), self.connections) for at in range(len(listening))]
        self._ports: list[Any] = []
        for text, given, factory in zip(endpoints, listening, self.factories, strict=True):
            through = self.exchange.endpoint
            endpoint = adopted_endpoint(reactor, "listen", text, os.dup(given.fileno()), through)
            endpoint.listen(factory).addCallback(self._ports.append)
        self.is_there = False

    def start(self) -> "Worker":
        self.exchange.startService()
        self.is_there = True
        return self

    async def stop(self) -> None:
        """It takes no more; what it has stays."""
        if self.is_there:
            self.exchange.stopService()
            self.is_there = False
            for port in self._ports:
                await port.stopListening()


class Crew:
    """Workers with a port each at every endpoint, and clients of theirs."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened = opened
        self.inboxes = Inboxes()
        opened.callback(self.inboxes.close)
        self.workers: list[Worker] = []
        self.clients: list[socket.socket] = []
        self.listening: list[list[socket.socket]] = []
        self.endpoints: list[str] = []
        self.loads = Loads([])
        self.cells = memoryview(b"").cast("q")

    @property
    def coming(self) -> list[int]:
        """How many are on their ways to each."""
        return [self.cells[2 * slot + 1] for slot in range(len(self.cells) // 2)]

    def begin(self, count: int = 2, *given: tuple[str, socket.AddressFamily, Any]) -> "Crew":
        """So many workers, which are there."""
        self.inboxes.open(count)
        sharing = self.sharing(0)
        self.cells = memoryview(mmap.mmap(sharing.memory, size_bytes(count))).cast("q")
        self.loads = Loads(self.cells)
        for each in (sharing.memory, sharing.inbox, *sharing.entries):
            os.close(each)
        kinds = given or [("tcp:0", socket.AF_INET, ("127.0.0.1", 0))]
        self.endpoints = [text for text, _, _ in kinds]
        for slot in range(count):
            self.listening.append([])
            for at, (_, family, address) in enumerate(kinds):
                bound = self._opened.enter_context(socket.socket(family))
                bound.bind(f"{address}{slot}{at}" if family == socket.AF_UNIX else address)
                bound.listen(511)
                self.listening[-1].append(bound)
            self.worker(slot).start()
        return self

    def sharing(self, slot: int) -> Sharing:
        """What a worker inherits."""
        sharing, descriptors = self.inboxes.of(slot, 1000)
        assert sharing is not None

        def copy(descriptor: int) -> int:
            copied = os.dup(descriptors[descriptor])
            os.set_inheritable(copied, True)
            return copied

        return Sharing(slot, copy(sharing.memory), copy(sharing.inbox), list(map(copy, sharing.entries)))

    def narrow(self, slot: int) -> None:
        """Little goes into a worker's inbox from now on."""
        sharing = self.sharing(slot)
        for each in (sharing.inbox, *sharing.entries):
            with socket.socket(fileno=each) as end:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        os.close(sharing.memory)

    def worker(self, slot: int) -> Worker:
        """One that is not there yet."""
        worker = Worker(self.sharing(slot), self.listening[slot], self.endpoints)
        self.workers.append(worker)
        return worker

    def connect(self, count: int, slot: int = 0, at: int = 0) -> list[socket.socket]:
        """So many clients, whose connections come to a worker's socket."""
        bound = self.listening[slot][at]
        new = []
        for _ in range(count):
            client = self._opened.enter_context(socket.socket(bound.family))
            client.connect(bound.getsockname())
            client.setblocking(False)
            new.append(client)
        self.clients += new
        return new

    def kept(self) -> list[int]:
        """How many connections each has."""
        return [worker.connections.count for worker in self.workers]

    async def end(self) -> None:
        """All are gone."""
        for client in self.clients:
            client.close()
        await until(lambda: not any(worker.factories and worker.connections.count for worker in self.workers))
        for worker in self.workers:
            await worker.stop()
        self.workers, self.clients = [], []
        self.inboxes.close()


@pytest.fixture
def crew() -> Iterator[Crew]:
    """One without workers; its sockets are closed when the test ends."""
    with ExitStack() as opened:
        yield Crew(opened)


async def all_said(clients: Sequence[socket.socket]) -> list[bytes]:
    """The next that each client is told."""
    told: dict[socket.socket, bytes] = {}

    def have_come() -> bool:
        for client in set(clients) - told.keys():
            with suppress(BlockingIOError):
                told[client] = client.recv(100)
        return len(told) == len(clients)

    await until(have_come)
    return [told[client] for client in clients]


async def said(client: socket.socket) -> bytes:
    """The next that a client is told."""
    return (await all_said([client]))[0]


async def echoed(*clients: socket.socket) -> bool:
    """Whether clients are told what they say."""
    for client in clients:
        client.sendall(b"hello")
    return await all_said(clients) == [b"hello"] * len(clients)


def open_files() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


def inheritable() -> set[int]:
    """Which of them a program would have that this process started."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the list itself
            found |= {int(name)} if os.get_inheritable(int(name)) else set()
    return found


@pytest.mark.parametrize(("count", "most"), [(2, 38), (3, 25)])
@pytest_twisted.ensureDeferred
async def test_all_come_to_one_socket(count: int, most: int, crew: Crew) -> None:
    """Nobody has more than 60 % of 64, or 1.2 fair shares, every time; all are served.

    No descriptor is left, and none is another program's that this one starts.
    """
    others = inheritable()
    crew.begin(count)
    before = open_files()
    for each in range(3):
        clients = crew.connect(64, slot=each % count)
        await until(lambda: sum(crew.kept()) == 64)
        assert max(crew.kept()) <= most
        told = Counter(await all_said(clients))
        assert [told[b"%d/0" % slot] for slot in range(count)] == crew.kept()
        assert await echoed(*clients)
        assert inheritable() <= others
        for client in clients:
            client.close()
        await until(lambda: sum(crew.kept()) == 0)
        assert open_files() == before
    await crew.end()


@pytest_twisted.ensureDeferred
async def test_endpoints(crew: Crew, tmp_path: Path) -> None:
    """Of every kind: what is handed on reaches the endpoint that it came to, with TLS there and its own address."""
    authority = Authority()
    certificate, key = authority.write("127.0.0.1", tmp_path)
    local = ("127.0.0.1", 0)
    crew.begin(
        2,
        ("tcp:0", socket.AF_INET, local),
        (f"axtls:0:certificate={certificate}:key={key}", socket.AF_INET, local),
        (r"tcp:0:interface=\:\:1", socket.AF_INET6, ("::1", 0)),
        ("systemd:domain=UNIX:index=0", socket.AF_UNIX, str(tmp_path / "s")),
    )
    full, other = crew.workers
    for _ in range(20):
        full.connections.entered(None)
    for at in (0, 2, 3):
        (client,) = crew.connect(1, at=at)
        assert await said(client) == b"1/%d" % at
        assert await echoed(client)
    port = crew.listening[0][1].getsockname()[1]
    trusting = authority.policy().creatorForNetloc(b"127.0.0.1", port)
    secure = Client()
    await connectProtocol(wrapClientTLS(trusting, TCP4ClientEndpoint(reactor, "127.0.0.1", port)), secure)
    await until(lambda: secure.told == b"1/1")
    secure.transport.loseConnection()
    assert other.connections.count <= 4
    for _ in range(20):
        full.connections.left(None)
    await crew.end()


class Client(Protocol):
    """Keeps what it is told."""

    transport: Any
    told = b""

    def dataReceived(self, data: bytes) -> None:
        self.told += data


@pytest_twisted.ensureDeferred
async def test_an_inbox_that_is_full(crew: Crew) -> None:
    """Who cannot hand a connection on keeps it: nobody is refused, and what is in the inbox is there later."""
    crew.begin(2)
    keeper, slow = crew.workers
    await slow.stop()
    slow = crew.worker(1)
    crew.narrow(1)
    crew.loads.keeps(1, 0)  # it is there, and hangs
    clients = crew.connect(64)
    await until(lambda: len(clients) - keeper.connections.count < 10)
    assert 0 < len(clients) - keeper.connections.count < 10
    slow.start()
    await until(lambda: sum(crew.kept()) == 64)
    assert Counter(await all_said(clients)) == {b"0/0": keeper.connections.count, b"1/0": slow.connections.count}
    await crew.end()


@pytest_twisted.ensureDeferred
async def test_one_that_hangs(crew: Crew) -> None:
    """It is sent no more than so many, however few it keeps; nor is anything sent to one that has ended."""
    crew.begin(2)
    busy, other = crew.workers
    await other.stop()
    crew.connect(10)
    await until(lambda: busy.connections.count == 10)
    hung = crew.worker(1)
    crew.loads.keeps(1, 0)
    crew.connect(200)
    await until(lambda: busy.connections.count >= 210 - MOST_COMING)
    assert busy.connections.count >= 210 - MOST_COMING
    crew.inboxes.has_ended(1)
    before = busy.connections.count
    crew.connect(50)
    await until(lambda: busy.connections.count == before + 50)
    hung.start()
    await until(lambda: sum(crew.kept()) == 260)
    await crew.end()


@pytest_twisted.ensureDeferred
async def test_wrong_numbers_do_not_last(crew: Crew) -> None:
    """Such as a worker leaves that is killed while it sends something, or leaves when its successor is there."""
    crew.begin(2)
    crew.connect(2)
    await until(lambda: crew.kept() == [1, 1])
    crew.loads.keeps(0, 500)
    crew.loads.takes_none(1)
    crew.loads.comes(1, 50)
    await until(lambda: list(crew.cells) == [1, 0, 1, 0])
    await crew.end()


@pytest_twisted.ensureDeferred
async def test_what_lies_in_an_inbox_is_for_the_successor(crew: Crew) -> None:
    """Whoever leaves takes nothing more and hands nothing on; clients that have gone meanwhile are no trouble."""
    crew.begin(2)
    giver, leaving = crew.workers
    for _ in range(9):
        giver.connections.entered(None)
    await leaving.stop()
    crew.loads.keeps(1, 0)  # a successor has just said so
    here, gone = crew.connect(2)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    gone.close()
    await until(lambda: crew.coming == [0, 2])
    successor = crew.worker(1).start()
    assert await said(here) == b"1/0"
    assert (successor.connections.count, leaving.connections.count, giver.connections.count) == (1, 0, 9)
    assert crew.coming == [0, 0]
    for _ in range(9):
        giver.connections.left(None)
    await crew.end()


@pytest_twisted.ensureDeferred
async def test_what_goes_wrong_with_one(crew: Crew, logged_failures: LoggedFailures) -> None:
    """Is logged, and the next is taken; one that its factory does not want is closed."""
    crew.begin(2)
    giver, taker = crew.workers
    for _ in range(9):
        giver.connections.entered(None)
    taker.factories[0].trouble = ValueError("a bug")
    (first,) = crew.connect(1)
    assert await said(first) == b""
    assert len(logged_failures.take(Exception)) == 1
    assert taker.connections.count == 0
    taker.factories[0].refuses = True
    (second,) = crew.connect(1)
    assert await said(second) == b""
    taker.factories[0].refuses = False
    (third,) = crew.connect(1)
    assert await said(third) == b"1/0"
    for _ in range(9):
        giver.connections.left(None)
    await crew.end()


def missing(_: int) -> int:
    """What a system without shared memory has."""
    raise AttributeError("no memfd_create")


def forbidden(_: int) -> int:
    """What a sandbox makes of it."""
    raise PermissionError(errno.EPERM, "not permitted")


@pytest.mark.parametrize("memory", [missing, forbidden])
def test_where_there_is_no_such_thing(memory: Callable[[int], int], log_events: list[LogEvent]) -> None:
    """It is logged, and workers are told to keep what comes to them; one alone has nobody to hand anything to."""
    inboxes = Inboxes(memory)
    inboxes.open(1)
    assert (inboxes.of(0, 9), log_events) == ((None, {}), [])
    inboxes.open(2)
    assert inboxes.of(0, 9) == (None, {})
    (line,) = [formatEvent(event) for event in log_events]
    assert line.startswith("workers keep the connections that come to each, however many (")
    inboxes.has_ended(0)
    inboxes.close()


def test_what_is_inherited(crew: Crew) -> None:
    """By whoever is to have it: nothing of the parent's is left open in other programs, or after it."""
    before = open_files()
    crew.inboxes.open(3)
    sharing, descriptors = crew.inboxes.of(1, 7)
    assert sharing == Sharing(1, 7, 8, [9, 10, 11])
    assert [os.get_inheritable(each) for each in descriptors.values()] == [False] * 5
    crew.inboxes.close()
    assert open_files() == before


@pytest_twisted.ensureDeferred
async def test_limits_are_those_of_who_keeps_a_connection(crew: Crew, tmp_path: Path) -> None:
    """Two workers with four connections each take eight that come to one of them; a ninth is too many."""
    crew.inboxes.open(2)
    workers = [Parent(tmp_path / str(slot), max_connections=4) for slot in range(2)]
    for slot, worker in enumerate(workers):
        worker.setup = structs.replace(worker.setup, sharing=crew.sharing(slot))
        await worker.begin()
    crew.listening = [[worker.listening] for worker in workers]
    for number in range(9):
        (client,) = crew.connect(1)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await said(client)).startswith(b"HTTP/1.1 404" if number < 8 else b"HTTP/1.1 503")
    for client in crew.clients:
        client.close()
    for worker in workers:
        await worker.close()
    crew.workers, crew.clients = [], []
