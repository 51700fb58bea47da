"""The example of a gateway, with real targets and clients: what it passes on, and that it records every call."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest_twisted
import treq
from twisted.internet import protocol, reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from axcollector.api import Collector, Config, RecordBuffer
from axcollector.registry import Registry
from tests.examples import load
from tests.running import QUICK, delivered_below, gather, until

gateway = load("gateway")

HOST = "127.0.0.1"
MUCH = 64 << 20


class Target(Resource):
    """An API behind the gateway.

    Attributes:
        requests: How often each path was asked for.
        connections: How many connections there were.
        written: How many bytes of `/endless` were written.
        last: The last request.
        arrived: How many bytes of bodies have come.
    """

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self.connections = self.written = self.arrived = 0
        self.last: Any = None
        self.site = Site(self, reactor=reactor)
        build = self.site.buildProtocol

        def counting(address: Any) -> Any:
            self.connections += 1
            return build(address)

        self.site.buildProtocol = counting  # type: ignore[method-assign]

    def start(self) -> str:
        """Listen; where."""
        self.port = reactor.listenTCP(0, self.site, interface=HOST)
        return f"http://{HOST}:{self.port.getHost().port}"

    def render(self, request: Any) -> Any:
        self.last = request
        name = request.path.decode().removeprefix("/api/")
        self.requests[name] += 1
        answer: Callable[[Any], Any] = getattr(self, f"_{name}")
        return answer(request)

    def _plain(self, request: Any) -> bytes:
        request.responseHeaders.setRawHeaders("X-Own", ["1", "2"])
        request.responseHeaders.setRawHeaders("Connection", ["x-hop"])
        return b"hello"

    def _echo(self, request: Any) -> int:
        """The body again, of unknown length."""
        request.setResponseCode(201, b"Made")
        request.write(request.content.read())
        request.finish()
        return NOT_DONE_YET

    def _never(self, request: Any) -> int:
        return NOT_DONE_YET

    def _cut(self, request: Any) -> int:
        request.setHeader(b"content-length", b"100")
        request.write(b"half")
        request.transport.loseConnection()
        return NOT_DONE_YET

    def _slowly(self, request: Any) -> int:
        """Begins; whoever wants more sees to it."""
        request.write(b"first ")
        return NOT_DONE_YET

    def _endless(self, request: Any) -> int:
        """As much as is read, up to a lot."""
        target = self

        class Pushing:
            paused = False

            def resumeProducing(self) -> None:
                self.paused = False
                while not self.paused and target.written < MUCH:
                    target.written += 1 << 16
                    request.write(bytes(1 << 16))
                if target.written >= MUCH:
                    request.unregisterProducer()
                    request.finish()

            def pauseProducing(self) -> None:
                self.paused = True

            def stopProducing(self) -> None:
                self.paused = True

        pushing = Pushing()
        request.registerProducer(pushing, True)
        reactor.callLater(0, pushing.resumeProducing)
        return NOT_DONE_YET


class Stand:
    """The gateway before a target, a collector behind it, and clients.

    Attributes:
        target: The target.
        url: Where the gateway listens.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target = Target()
        self._pool = HTTPConnectionPool(reactor)
        self._agent = Agent(reactor, pool=self._pool)

    async def start(self, patience_seconds: float = 60.0) -> "Stand":
        config = Config(local_storage_path=str(self.root), **QUICK)  # type: ignore[arg-type]
        with Registry.create(config.registry_file) as registry:
            scope = registry.add_scope("acme", "prod").id
            registry.add_key(scope, "good", product="p", app="a", developer="d", email="d@x.y")
        collector = Collector(reactor, config)
        self.buffer = RecordBuffer(reactor, collector, batch_seconds=0.05)
        self.buffer.startService()
        closed = reactor.listenTCP(0, Site(Resource()), interface=HOST)
        nobody = f"http://{HOST}:{closed.getHost().port}"
        await closed.stopListening()
        keys = gateway.Keys(collector, scope)
        await keys.ready(reactor)
        self.gateway = gateway.Gateway(
            reactor,
            f"tcp:0:interface={HOST}",
            {"/weather": self.target.start() + "/api", "/nobody": nobody},
            keys,
            lambda record: self.buffer.add(scope, record),
            patience_seconds,
        )
        await self.gateway.start()
        self.port = self.gateway.port.getHost().port
        self.url = f"http://{HOST}:{self.port}"
        return self

    async def call(
        self, path: str, method: str = "GET", key: str = "good", data: bytes | None = None
    ) -> tuple[int, bytes]:
        """Status and body of an answer."""
        headers = {"X-API-Key": key} if key else {}
        response = await treq.request(method, self.url + path, headers=headers, data=data, agent=self._agent)
        return response.code, await response.content()

    async def connect(self) -> "Wire":
        """A client that says what it likes."""
        return await connectProtocol(TCP4ClientEndpoint(reactor, HOST, self.port), Wire())

    async def records(self, count: int) -> list[dict[str, Any]]:
        """So many records, delivered; and then everything is stopped."""
        await until(lambda: sum(map(len, delivered_below(self.root / "store").values())) >= count)
        await self.stop()
        [lines] = delivered_below(self.root / "store").values()
        return [json.loads(line) for line in lines]

    async def stop(self) -> None:
        await self._pool.closeCachedConnections()
        await self.gateway.stop()
        await self.buffer.stopService()
        await self.target.port.stopListening()


class Wire(protocol.Protocol):
    """A connection of a client; notes what comes, as long as it reads."""

    def __init__(self) -> None:
        self.received = b""
        self.size = 0
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        self.received = (self.received + data)[:100_000]

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self.lost = True


def times(record: dict[str, Any]) -> list[str]:
    """The names of its times, in their order."""
    found = [(value, name.removesuffix("_timestamp")) for name, value in record.items() if name.endswith("_timestamp")]
    assert found == sorted(found, key=lambda each: each[0])
    return [name for _, name in found]


HEAD = b"%b /weather/%b HTTP/1.1\r\nHost: x\r\nX-API-Key: good\r\n%b\r\n"


@pytest_twisted.ensureDeferred
async def test_no_call_is_unrecorded(tmp_path: Path) -> None:
    """Each of a dozen calls, whatever became of it, is one delivered record that says so."""
    stand = await Stand(tmp_path).start()
    assert await stand.call("/weather/plain?q=1") == (200, b"hello")
    assert await stand.call("/weather/echo", "POST", data=b"x" * 3_000_000) == (201, b"x" * 3_000_000)
    assert await stand.call("/weather/plain", "HEAD") == (200, b"")
    assert (await stand.call("/weather/plain", key=""))[0] == 401
    assert (await stand.call("/weather/plain", key="bad", method="POST", data=b"x" * 1_000_000))[0] == 403
    assert (await stand.call("/weatherproof"))[0] == 404
    assert (await stand.call("/nobody/x", "POST", data=b"x"))[0] == 502
    cut = await stand.connect()
    cut.transport.write(HEAD % (b"GET", b"cut", b""))
    await until(lambda: cut.lost)
    assert cut.received.endswith(b"\r\n\r\nhalf")
    hung_up = await stand.connect()
    hung_up.transport.write(HEAD % (b"GET", b"never", b""))
    await until(lambda: stand.target.requests["never"])
    hung_up.transport.abortConnection()
    half_body = await stand.connect()
    half_body.transport.write(HEAD % (b"POST", b"echo", b"Content-Length: 100\r\n") + b"half")
    await until(lambda: len(stand.gateway.calls) == 1)
    half_body.transport.abortConnection()
    records = await stand.records(10)
    assert len({record["gateway_flow_id"] for record in records}) == len(records) == 10
    found = [(record["response_status_code"], record.get("target_response_code")) for record in records]
    assert sorted(found, key=str) == [
        *((200, 200), (200, 200), (201, 201), (401, None), (403, None), (404, None)),
        *((499, None), (499, None), (502, 200), (502, None)),
    ]
    first = next(record for record in records if record["request_uri"] == "/weather/plain?q=1")
    assert times(first) == [
        *("client_received_start", "target_sent_start", "target_sent_end", "client_received_end"),
        *("target_received_start", "client_sent_start", "target_received_end", "client_sent_end"),
    ]
    assert (first["client_id"], first["developer"], first["organization"]) == ("good", "d", "acme")
    assert (first["apiproxy"], first["request_path"], first["request_verb"]) == ("weather", "/weather/plain", "GET")
    assert all(times(record)[0] == "client_received_start" for record in records)
    assert stand.buffer.counts.dropped == {}


@pytest_twisted.ensureDeferred
async def test_a_target_that_does_not_answer(tmp_path: Path) -> None:
    """It costs its client's patience and no more: 504, and a record."""
    stand = await Stand(tmp_path).start(patience_seconds=0.2)
    assert await stand.call("/weather/never") == (504, b"the target does not answer\n")
    stand.gateway.patience_seconds = 60.0
    late = await stand.connect()
    late.transport.write(HEAD % (b"GET", b"slowly", b""))
    await until(lambda: b"first " in late.received)
    stand.gateway.patience_seconds = 0.1
    stand.target.last.write(b"the last")
    await until(lambda: late.lost)
    records = await stand.records(2)
    assert [(record["response_status_code"], record.get("target_response_code")) for record in records] == [
        (504, None),
        (504, 200),
    ]


@pytest_twisted.ensureDeferred
async def test_bodies_are_streamed_and_readers_set_the_pace(tmp_path: Path) -> None:
    """Both ways: what is sent arrives before the end is there, and what is not read is not sent."""
    stand = await Stand(tmp_path).start()
    client = await stand.connect()
    client.transport.write(HEAD % (b"GET", b"slowly", b""))
    await until(lambda: b"first " in client.received)
    stand.target.last.write(b"second")
    await until(lambda: b"second" in client.received)
    stand.target.last.finish()

    lazy = await stand.connect()
    lazy.transport.pauseProducing()
    lazy.transport.write(HEAD % (b"GET", b"endless", b""))
    await until(lambda: stand.target.written)
    written = -1
    while written != stand.target.written:
        written = stand.target.written
        await gather(stand.call("/weather/plain") for _ in range(20))
    assert written < MUCH / 2
    lazy.transport.resumeProducing()
    await until(lambda: lazy.size > MUCH)

    sender = await stand.connect()
    target = stand.target
    arrived: list[int] = []
    target.site.requestFactory.handleContentChunk, before = (  # type: ignore[attr-defined]
        lambda request, data: (arrived.append(len(data)), request.content.write(data))[1],
        target.site.requestFactory.handleContentChunk,  # type: ignore[attr-defined]
    )
    sender.transport.write(HEAD % (b"POST", b"echo", b"Transfer-Encoding: chunked\r\n") + b"4\r\nhalf\r\n")
    await until(lambda: arrived == [4])
    sender.transport.write(b"4\r\nrest\r\n0\r\n\r\n")
    await until(lambda: b"halfrest" in sender.received)
    target.site.requestFactory.handleContentChunk = before  # type: ignore[attr-defined]
    for each in (client, lazy, sender):
        each.transport.loseConnection()
    await stand.stop()


@pytest_twisted.ensureDeferred
async def test_connections_are_kept(tmp_path: Path) -> None:
    """To the target; and the client's is good for more after a refusal whose body had not come yet."""
    stand = await Stand(tmp_path).start()
    for _ in range(5):
        assert await stand.call("/weather/plain") == (200, b"hello")
    assert stand.target.connections == 1
    client = await stand.connect()
    client.transport.write(b"POST /weather/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 70\r\n\r\n")
    hidden = (HEAD % (b"GET", b"plain", b"")).ljust(70)
    await until(lambda: client.received.count(b"HTTP/1.1") == 1)
    client.transport.write(hidden + HEAD % (b"GET", b"plain", b""))
    await until(lambda: client.received.endswith(b"hello"))
    assert (client.received.count(b"HTTP/1.1"), stand.target.requests["plain"]) == (2, 6)
    assert stand.target.last.requestHeaders.hasHeader("x-api-key") is False
    assert stand.target.last.requestHeaders.getRawHeaders("x-forwarded-for") == [HOST]
    client.transport.loseConnection()
    await stand.stop()


@pytest_twisted.ensureDeferred
async def test_calls_under_way_when_it_stops(tmp_path: Path) -> None:
    """They have their time, and are recorded too."""
    stand = await Stand(tmp_path).start()
    client = await stand.connect()
    client.transport.write(HEAD % (b"GET", b"never", b""))
    await until(lambda: stand.target.requests["never"])
    await stand.gateway.stop(grace_seconds=0.05)
    await until(lambda: client.lost)
    await stand.buffer.stopService()
    await stand.target.port.stopListening()
    await stand._pool.closeCachedConnections()
    assert stand.buffer.counts.accepted == 1
