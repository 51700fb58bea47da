"""Usual requests that come in pieces: through real connections and TLS, and what they may take of memory."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_twisted
from twisted.internet import endpoints, reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure

from axcollector.core.unpacking import Limits
from axcollector.tls import Certificates, TlsEndpoint
from axcollector.tls_files import TlsFiles
from tests.certificates import Authority
from tests.fakes import HeldThread
from tests.http_suite import Client, tick
from tests.test_usual import asked, stand
from tests.test_webapi import JSON, RECORD, Stand, batch
from tests.tls_wire import Below, MemoryClient, client_context
from tests.wire import Connection, request

LARGE = Limits(max_body_bytes=400_000, max_decompressed_bytes=400_000, max_batch_records=5)
READ_BYTES = TCPConnection.bufferSize


def large(size: int = 150_000) -> bytes:
    """A request with a body of about so many bytes."""
    return request("POST", "/analytics/s1", batch(RECORD | {"x": "y" * size}), (JSON,))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Callable[..., Stand]]:
    """Makes a stand for large bodies; in the end nothing is held."""
    made: list[Stand] = []

    def make(**others: Any) -> Stand:
        made.append(stand(tmp_path / str(len(made)), **{"limits": LARGE, **others}))
        return made[-1]

    yield make
    for each in made:
        site = each.site
        assert (site.pending.held, site.large_readers, site.channels, each.clock.getDelayedCalls()) == (0, 0, set(), [])


class Port:
    """A stand on a real port, and its clients."""

    def __init__(self, door: Stand) -> None:
        self.door = door
        self._clients: list[Client] = []

    async def __aenter__(self) -> Self:
        self._port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.door.site)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await self.leave(client)
        await self._port.stopListening()

    async def client(self) -> Client:
        """A new connection."""
        endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", self._port.getHost().port)
        client = await endpoints.connectProtocol(endpoint, Client())
        self._clients.append(client)
        return client

    async def leave(self, client: Client) -> None:
        """The client hangs up, and that is noticed."""
        client.transport.abortConnection()
        if not client.is_closed:
            await client.closed
        count = len([each for each in self._clients if not each.is_closed])
        while len(self.door.site.channels) > count:
            await tick()

    def sizes(self) -> list[int]:
        """How much is read at once, of each connection."""
        return sorted(channel.transport.bufferSize for channel in self.door.site.channels)


async def ask(client: Client, *requests: bytes) -> list[int]:
    """The statuses of the answers so far, these requests' the last."""
    found = []
    for data in requests:
        client.transport.write(data)
        count = len(found) + 1 if found else client.received.count(b"HTTP/1.1 ") + 1
        found = await client.answers(count)
    return [answer.status for answer in found]


@pytest_twisted.ensureDeferred
async def test_real_connections_read_more_at_once(here: Callable[..., Stand]) -> None:
    """Those whose usual requests are large, and only those; all that is sent is taken, in whatever pieces it comes."""
    door = here()
    async with Port(door) as port:
        one, other = await port.client(), await port.client()
        assert await ask(one, large(), large()) == [200] * 2
        assert await ask(other, large(100), large(100), large(100)) == [200] * 3
        assert port.sizes() == [READ_BYTES, 1 << 18]
        assert await ask(one, large(100), large(300_000), large(1), large()) == [200] * 6
        assert len(door.kept()) == 9


@pytest_twisted.ensureDeferred
async def test_not_all_connections_may_read_more(here: Callable[..., Stand]) -> None:
    """What is read at once may wait behind a request: beyond a number of connections, pieces are as small as ever."""
    door = here()
    door.site.large_readers = 255
    async with Port(door) as port:
        clients = [await port.client() for _ in range(3)]
        for client in clients:
            assert await ask(client, large(), large(), large()) == [200] * 3
        assert (port.sizes(), door.site.large_readers) == ([READ_BYTES, READ_BYTES, 1 << 18], 256)
        await port.leave(clients[0])
        assert door.site.large_readers == 255
        assert await ask(await port.client(), large(), large()) == [200] * 2
        assert port.sizes() == [READ_BYTES, READ_BYTES, 1 << 18]
    door.site.large_readers -= 255


@pytest_twisted.ensureDeferred
async def test_what_comes_behind_in_large_reads(here: Callable[..., Stand]) -> None:
    """While a request is answered, what its client sends on is read once, and then left to the kernel."""
    thread = HeldThread()
    door = here(writer=thread)
    async with Port(door) as port:
        client = await port.client()
        for count in (1, 2):
            client.transport.write(large())
            while not thread.jobs:
                await tick()
            thread.step()
            await client.answers(count)
        client.transport.write(large() + large(1000) * 3000)
        while not thread.jobs:
            await tick()
        for _ in range(30):
            await tick()
        (channel,) = door.site.channels
        assert len(channel._buffer) + sum(map(len, channel._dataBuffer)) <= 2 << 18
        assert len(door.kept()) == 2
        client.transport.abortConnection()
        while door.site.channels:  # which is noticed when more is read
            if thread.jobs:
                thread.step()
            door.clock.advance(0.01)
            await tick()
        while thread.jobs:
            thread.step()


def test_over_tls(here: Callable[..., Stand], tmp_path: Path) -> None:
    """The same, a record of TLS at a time."""
    door = here()
    paths = Authority().write("127.0.0.1", tmp_path)
    below = Below()
    TlsEndpoint(door.clock, below, Certificates("listen", TlsFiles(*paths, None))).listen(door.site)
    client = MemoryClient(below.factory, client_context())
    client.handshake()
    received = b""
    for size in (150_000, 150_000, 150_000, 100, 300_000, 150_000):
        client.tls.write(large(size))
        client.carry()
        door.clock.advance(0.01)
        received += client.read()
    assert (received.count(b"HTTP/1.1 200 OK"), asked(door), door.site.large_readers) == (6, 2, 0)
    assert len(door.kept()) == 6
    client.protocol.connectionLost(Failure(ConnectionDone()))
    door.clock.advance(60)


def test_large_pieces_are_taken_the_short_way(here: Callable[..., Stand]) -> None:
    """Head and body apart, and pieces of 4 kB and more: nothing is asked with patience; small ones are no matter."""
    door = here()
    connection = Connection(door.site)
    data = large(50_000)
    end = data.index(b"{")
    connection.send(data)
    connection.send(data)
    for cuts in ([end], [end, end + 4096], [end + 1, end + 10_000], [*range(end + 1, len(data), 4096)]):
        for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
            connection.send(data[start:stop])
        assert asked(door) == 2
    connection.send(data, 4095)
    assert asked(door) == 3
    connection.send(data)
    assert asked(door) == 3
    assert [answer.status for answer in connection.answers()] == [200] * 8
    connection.hang_up()


def test_memory_of_usual_bodies_that_never_end(here: Callable[..., Stand]) -> None:
    """What has come of them is counted, to the last byte but for the heads; what is beyond is refused, and not kept."""
    door = here()
    door.site.pending.limit = 1 << 20
    data = large(300_000)
    pieces = [data[start : start + 4096] for start in range(0, len(data) - 1, 4096)]
    connections = [Connection(door.site) for _ in range(50)]
    for connection in connections:
        connection.send(large(100))
        connection.send(large(100))
        connection.answers()
    tracemalloc.start()
    try:
        for piece in pieces[:-1]:
            for connection in connections:
                connection.send(bytes(bytearray(piece)))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert door.site.pending.held <= 1 << 20
    assert peak < 3 << 20
    assert held < 2 << 20
    for connection in connections:
        connection.send(data[len(b"".join(pieces[:-1])) :])
    statuses = [answer.status for connection in connections for answer in connection.answers()]
    assert (len(statuses), set(statuses) <= {200, 503}) == (50, True)
    assert door.site.pending.held == 0
    for connection in connections:
        connection.hang_up()


def test_bodies_that_are_too_large_to_be_usual(here: Callable[..., Stand]) -> None:
    """They are received as any other from their first byte: joined and parsed in one go, they would stall others."""
    bodies = HeldThread()
    door = here(bodies=bodies, limits=Limits(1 << 22, 1 << 22, 5))
    connection = Connection(door.site)
    for _ in range(2):
        connection.send(large(100))
    data = large((1 << 22) - 1000)
    pieces = [data[start : start + (1 << 16)] for start in range(0, len(data), 1 << 16)]
    tracemalloc.start()
    try:
        for piece in pieces:
            connection.send(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(data) // 2
    while bodies.jobs:
        bodies.step()
    assert [answer.status for answer in connection.answers()] == [200] * 3
    connection.hang_up()
