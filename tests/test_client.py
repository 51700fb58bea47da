"""The client of remote collectors: what it sends, what answers mean, and who is asked when one fails."""

import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_twisted
from twisted.internet import defer, protocol, reactor, task
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from zope.interface import directlyProvides, providedBy

from axcollector.api import Client, RecordBuffer
from axcollector.core.errors import (
    ConfigError,
    LookupFailed,
    NotReady,
    Overloaded,
    RateLimited,
    Refusal,
    Rejected,
    SpoolFailed,
    Unreachable,
)
from axcollector.core.remote import accepted_in, refusal_of
from tests.certificates import Authority
from tests.fakes import result_of
from tests.running import Running, until

GOOD = {"client_received_start_timestamp": 1}


class TimedReactor:
    """The network of the real reactor, and a time that passes when it is told to; what is to be done at once is."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        directlyProvides(self, *providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def seconds(self) -> float:
        return self.clock.seconds()

    def callLater(self, delay: float, function: Callable[..., object], *arguments: object) -> IDelayedCall:
        owner = self.clock if delay else reactor
        return owner.callLater(delay, function, *arguments)


def answer(status: int, body: object = b"", **headers: object) -> bytes:
    """An answer, whole."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def refusal(status: int, code: str, reason: str = "why", **headers: object) -> bytes:
    """An answer of a collector that refuses."""
    return answer(status, {"errorCode": code, "reason": reason}, **headers)


TAKEN = answer(200, {"accepted": 1, "rejected": 0})
HANG, RESET, MIDWAY = b"hang", b"reset", TAKEN[:-9]


class Conversation(protocol.Protocol):
    """A connection to a `Scripted` server."""

    factory: "Scripted"

    def connectionMade(self) -> None:
        self.buffer = b""
        self.factory.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if not end or len(body) < int(fields[b"content-length"]):
            return
        self.buffer = b""
        packed = fields.get(b"content-encoding") == b"gzip"
        self.factory.requests.append((head, fields, gzip.decompress(body) if packed else body))
        said = self.factory.answers.pop(0) if self.factory.answers else TAKEN
        if said not in {HANG, RESET}:
            self.transport.write(said)
        if said in {RESET, MIDWAY}:
            self.transport.loseConnection()

    def connectionLost(self, reason: object) -> None:
        self.factory.connections.remove(self)


class Scripted(protocol.Factory):
    """A server that answers as it is told, in turn, and then takes everything."""

    protocol = Conversation
    noisy = False

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[tuple[bytes, dict[bytes, bytes], bytes]] = []
        self.connections: list[Conversation] = []

    async def listen(self, context: Any = None) -> None:
        if context is None:
            self.port = reactor.listenTCP(0, self, interface="127.0.0.1")
        else:
            self.port = reactor.listenSSL(0, self, context, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"


async def turned() -> None:
    """Let the reactor turn a few times."""
    for _ in range(5):
        await task.deferLater(reactor, 0.01)


class Stand:
    """Servers, and a client of theirs."""

    def __init__(self, servers: int, **settings: Any) -> None:
        self.reactor = TimedReactor()
        self.clock = self.reactor.clock
        self.servers = [Scripted() for _ in range(servers)]
        self.settings = settings

    async def __aenter__(self) -> Self:
        for server in self.servers:
            await server.listen()
        urls = [server.url for server in self.servers]
        self.client = Client(self.reactor, urls, chance=lambda: 0.0, **self.settings)
        self.client.startService()
        return self

    async def __aexit__(self, *_: object) -> None:
        stopped = self.client.stopService()
        self.clock.advance(10)
        await stopped
        for server in self.servers:
            await defer.maybeDeferred(server.port.stopListening)
            for connection in list(server.connections):
                connection.transport.abortConnection()
            await until(lambda server=server: not server.connections)
        assert self.clock.getDelayedCalls() == []

    def waits(self) -> int:
        """How many batches wait for their next try."""
        return len(self.client._rests) + len(self.client._fleet._waiting)

    async def fails(self, submitting: "defer.Deferred[int]") -> Refusal:
        """What it fails with."""
        with pytest.raises(Refusal) as caught:
            await submitting
        return caught.value


@pytest_twisted.ensureDeferred
async def test_what_is_sent() -> None:
    """A batch is one request, packed where that is worth it, with the token of the moment, over a kept connection."""
    tokens = iter(["one", "two"])
    async with Stand(1, token=lambda: next(tokens), base_path="collect/") as stand:
        assert await stand.client.submit("a/ß", [{"n": 1}, b'{"n": 2}']) == 1
        assert await stand.client.submit("b", [{"n": "x" * 2000}]) == 1
        (server,) = stand.servers
        assert [head.partition(b" HTTP")[0] for head, _, _ in server.requests] == [
            b"POST /collect/a%2F%C3%9F",
            b"POST /collect/b",
        ]
        assert [fields[b"authorization"] for _, fields, _ in server.requests] == [b"bearer one", b"bearer two"]
        assert [fields.get(b"content-encoding") for _, fields, _ in server.requests] == [None, b"gzip"]
        assert [json.loads(body) for _, _, body in server.requests] == [
            {"records": [{"n": 1}, {"n": 2}]},
            {"records": [{"n": "x" * 2000}]},
        ]
        assert len(server.connections) == 1


@pytest_twisted.ensureDeferred
async def test_what_is_tried_again() -> None:
    """What may be better next time is: at once with another collector, else after a pause."""
    for said in (
        refusal(503, "OVERLOADED", Retry_After=2),
        refusal(503, "STORAGE_UNAVAILABLE", Retry_After=2),
        refusal(429, "RATE_LIMITED", Retry_After=2),
        answer(502, b"<html>"),
        answer(301, b"", Location="http://elsewhere/"),
        answer(200, b"hello"),
        RESET,
        MIDWAY,
        b"\0\1\2 no HTTP at all\r\n\r\n",
    ):
        async with Stand(1) as stand:
            (server,) = stand.servers
            server.answers = [said]
            submitting = stand.client.submit("a", [GOOD])
            await until(stand.waits)
            assert not submitting.called
            stand.clock.advance(2)
            assert await submitting == 1
            assert len(server.requests) == 2


@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs() -> None:
    """It is given up after `timeout_seconds`, and then the batch is given to another."""
    async with Stand(2, timeout_seconds=7) as stand:
        first, second = stand.servers
        first.answers = [HANG]
        submitting = stand.client.submit("a", [GOOD])
        await until(lambda: first.requests)
        stand.clock.advance(6.9)
        assert not submitting.called
        stand.clock.advance(0.2)
        assert await submitting == 1
        assert len(second.requests) == 1


@pytest_twisted.ensureDeferred
async def test_until_it_gives_up() -> None:
    """After `retry_seconds` it fails with what was said last, and with how long to wait where that was said."""
    for said, kind in (
        (refusal(503, "OVERLOADED", Retry_After=9), Overloaded),
        (refusal(503, "STORAGE_UNAVAILABLE", Retry_After=9), SpoolFailed),
        (refusal(429, "RATE_LIMITED", Retry_After=9), RateLimited),
        (refusal(500, "INTERNAL_SERVER_ERROR", NotReady().reason), NotReady),
        (refusal(500, "INTERNAL_SEARCH_ERROR"), LookupFailed),
        (answer(500), Unreachable),
        (RESET, Unreachable),
    ):
        async with Stand(1, retry_seconds=8) as stand:
            stand.servers[0].answers = [said] * 99
            submitting = stand.client.submit("a", [GOOD])
            for _ in range(200):
                if submitting.called:
                    break
                await until(lambda s=submitting, w=stand.waits: s.called or w())
                stand.clock.advance(0.5)
            failure = await stand.fails(submitting)
            assert type(failure) is kind
            if b"Retry-After" in said:
                assert failure.retry_after == 9
    async with Stand(1, retry_seconds=0) as stand:
        await stand.servers[0].port.stopListening()
        submitting = stand.client.submit("a", [GOOD])
        await turned()
        stand.clock.advance(1)  # that Twisted would look at its other addresses after
        assert "cannot be reached" in (await stand.fails(submitting)).reason


@pytest_twisted.ensureDeferred
async def test_what_is_final() -> None:
    """What is the batch's fault, or the token's, is raised at once, as a collector in this process would."""
    for status, code in ((400, "BAD_DATA"), (401, "UNAUTHORIZED"), (403, "FORBIDDEN"), (413, "PAYLOAD_TOO_LARGE")):
        for said in (refusal(status, code, "so it is (record 3)"), answer(status)):
            if status == 400 and said == answer(status):
                continue
            async with Stand(2) as stand:
                for server in stand.servers:
                    server.answers = [said]
                failure = await stand.fails(stand.client.submit("a", [GOOD]))
                assert isinstance(failure, Rejected)
                assert failure.code == code
                assert sum(len(server.requests) for server in stand.servers) == 1
    async with Stand(1) as stand:
        for scope, records, code in (
            ("", [GOOD], "UNKNOWN_SCOPE"),
            ("\ud800", [GOOD], "UNKNOWN_SCOPE"),
            ("a", [], "NO_RECORDS"),
        ):
            failure = await stand.fails(stand.client.submit(scope, records))
            assert isinstance(failure, Rejected)
            assert failure.code == code
        with pytest.raises(Rejected, match="cannot be written as JSON"):
            await stand.client.submit("a", [{"a": object()}])
        assert stand.servers[0].requests == []


@pytest_twisted.ensureDeferred
async def test_a_fleet() -> None:
    """Collectors are asked in turn; one that fails rests, is tried by one request, and is back when that is taken."""
    async with Stand(3) as stand:
        first = stand.servers[0]
        first.answers = [refusal(503, "OVERLOADED", Retry_After=60)]
        for _ in range(7):
            assert await stand.client.submit("a", [GOOD]) == 1
        assert [len(server.requests) for server in stand.servers] == [1, 4, 3]
        stand.clock.advance(61)
        first.answers = [HANG]
        slow = defer.gatherResults([stand.client.submit("a", [GOOD]) for _ in range(3)])
        await until(lambda: len(first.requests) == 2)
        for _ in range(4):
            assert await stand.client.submit("a", [GOOD]) == 1
        assert len(first.requests) == 2
        first.connections[0].transport.write(TAKEN)
        assert await slow == [1, 1, 1]
        for _ in range(3):
            assert await stand.client.submit("a", [GOOD]) == 1
        assert len(first.requests) == 3


@pytest_twisted.ensureDeferred
async def test_all_wait_for_the_first_that_is_back() -> None:
    """While all rest, requests wait; the one that finds out that a collector is back lets the others go."""
    async with Stand(1) as stand:
        (server,) = stand.servers
        server.answers = [refusal(503, "OVERLOADED", Retry_After=5), HANG]
        submitting = [stand.client.submit("a", [GOOD])]
        await until(stand.waits)
        submitting += [stand.client.submit("a", [GOOD]) for _ in range(5)]
        stand.clock.advance(5)
        await until(lambda: len(server.requests) == 2)
        assert not any(each.called for each in submitting)
        server.connections[0].transport.write(TAKEN)
        assert await defer.gatherResults(submitting) == [1] * 6


@pytest_twisted.ensureDeferred
async def test_a_stop() -> None:
    """What waits for another try fails, what is under way gets a moment, and what comes later is refused."""
    async with Stand(2) as stand:
        first, second = stand.servers
        first.answers = [refusal(429, "RATE_LIMITED", Retry_After=20)]
        second.answers = [HANG]
        waiting, slow = stand.client.submit("a", [GOOD]), stand.client.submit("a", [GOOD])
        await until(lambda: second.requests and stand.waits())
        stopped = stand.client.stopService()
        assert isinstance(await stand.fails(waiting), RateLimited)
        assert not slow.called
        second.connections[0].transport.write(TAKEN)
        assert await slow == 1
        await stopped
        with pytest.raises(NotReady):
            await stand.client.submit("a", [GOOD])
        await until(lambda: not first.connections and not second.connections)


@pytest_twisted.ensureDeferred
async def test_a_stop_breaks_off() -> None:
    """Who has no answer after a while has none."""
    async with Stand(1) as stand:
        stand.servers[0].answers = [HANG]
        slow, cancelled = stand.client.submit("a", [GOOD]), stand.client.submit("a", [GOOD])
        cancelled.cancel()
        with pytest.raises(defer.CancelledError):
            await cancelled
        await until(lambda: stand.servers[0].requests)
        stopped, again = stand.client.stopService(), stand.client.stopService()
        stand.clock.advance(2.5)
        assert not slow.called
        stand.clock.advance(2.5)
        with pytest.raises(defer.CancelledError):
            await slow
        await stopped
        await again


@pytest_twisted.ensureDeferred
async def test_cancelled_while_it_is_under_way() -> None:
    """Who cancels is told at once, and nothing else comes of it when the request has been broken off."""
    async with Stand(1) as stand:
        stand.servers[0].answers = [HANG]
        submitting = stand.client.submit("a", [GOOD])
        await until(lambda: stand.servers[0].requests)
        submitting.cancel()
        with pytest.raises(defer.CancelledError):
            await submitting
        await until(lambda: not stand.servers[0].connections)
        await turned()


@pytest_twisted.ensureDeferred
async def test_a_token_that_cannot_be_had() -> None:
    """That may pass: it is as if no collector could be reached, and what it says stays where it is."""
    tokens: list[str] = []
    async with Stand(1, token=lambda: tokens[0]) as stand:
        submitting = stand.client.submit("a", [GOOD])
        await until(stand.waits)
        tokens.append("secret")
        stand.clock.advance(1)
        assert await submitting == 1
        assert stand.servers[0].requests[0][1][b"authorization"] == b"bearer secret"
        tokens.clear()
        failing = stand.client.submit("a", [GOOD])
        await until(stand.waits)
        stand.clock.advance(30)
        assert "the function that gives the token fails: IndexError" in (await stand.fails(failing)).reason


@pytest_twisted.ensureDeferred
async def test_a_buffer_is_stopped_while_no_answer_comes(tmp_path: Path) -> None:
    """With a spool nothing is lost then: all of it is on disk, and the stop takes no longer than it may."""
    async with Stand(1, spool_directory=str(tmp_path)) as stand:
        stand.servers[0].answers = [HANG] * 100
        buffer = RecordBuffer(stand.reactor, stand.client, batch_records=2)
        buffer.startService()
        for number in range(30):
            buffer.add(f"scope{number % 3}", {"n": number})
        await until(lambda: len(stand.servers[0].requests) == 3)
        stopped = buffer.stopService()
        stand.clock.advance(2.5)
        await until(lambda: stopped.called or stand.clock.advance(0.001))  # writes wait for each other
        await stopped
        assert (buffer.counts.accepted, buffer.counts.dropped) == (30, {})
        assert stand.client.spooled is not None
        assert stand.client.spooled.bytes > 0
        slow = stand.client.submit("other", [GOOD])
        await until(lambda: slow.called or stand.clock.advance(0.001))
        assert await slow == 1


@pytest_twisted.ensureDeferred
async def test_certificates(tmp_path: Path) -> None:
    """A server is believed when an authority that is trusted has issued its certificate, and not else."""
    authority = Authority()
    server = Scripted()
    await server.listen(authority.issue("localhost"))
    url = server.url.replace("http://127.0.0.1", "https://localhost")
    trusting, other = (
        Client(reactor, url, ca_file=ca, retry_seconds=0) for ca in (authority.write_own(tmp_path), None)
    )
    trusting.startService()
    assert await trusting.submit("a", [GOOD]) == 1
    await trusting.stopService()
    other.startService()
    with pytest.raises(Unreachable, match="certificate verify failed"):
        await other.submit("a", [GOOD])
    await other.stopService()
    assert len(server.requests) == 1
    await server.port.stopListening()
    await until(lambda: not server.connections)


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    """They are refused, and the message says what is allowed."""
    for url in ("ftp://a", "http://", "http://a b", "http://a?x=1", "http://a:x", "http://ä", "http://[", ""):
        with pytest.raises(ConfigError, match="allowed is a URL such as"):
            Client(Clock(), url)
    with pytest.raises(ConfigError, match="give the token"):
        Client(Clock(), "http://me:secret@a")
    with pytest.raises(ConfigError, match="at least one URL"):
        Client(Clock(), [])
    (tmp_path / "empty").write_text("nothing")
    (tmp_path / "wrong").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    for name, words in (("none", "cannot be read"), ("empty", "no certificate"), ("wrong", "cannot be read")):
        with pytest.raises(ConfigError, match=words):
            Client(reactor, "https://a", ca_file=str(tmp_path / name)).startService()
    with pytest.raises(NotReady):
        result_of(Client(Clock(), "https://a").submit("a", [GOOD]))


def test_what_answers_mean() -> None:
    """Each refusal becomes the exception that it was; what no collector says is `Unreachable`."""
    for original in (
        Rejected("BAD_DATA", "x (record 1)"),
        Overloaded("x", 3),
        SpoolFailed("x", 4),
        RateLimited("x", 5),
        NotReady(),
        LookupFailed("x"),
    ):
        body = json.dumps({"errorCode": original.code, "reason": original.reason}).encode()
        found = refusal_of(original.status, body, original.retry_after, "http://a")
        assert (type(found), vars(found)) == (type(original), vars(original))
    for status, body in ((404, b""), (500, b"{"), (502, b"[" * 5000), (200, b"{}"), (400, b'{"errorCode":5}')):
        assert isinstance(refusal_of(status, body, 7, "http://a"), Unreachable)
        assert refusal_of(status, body, 7, "http://a").retry_after == 7
    for body in (b"", b"{}", b'{"accepted":-1}', b'{"accepted":"1"}', b"[" * 5000):
        with pytest.raises(Unreachable, match="is no collector"):
            accepted_in(body, "http://a")


@asynccontextmanager
async def both(root: Path, **settings: Any) -> AsyncIterator[tuple[Running, Client]]:
    """A service, and a client of it."""
    running = await Running(root, **settings).start()
    client = Client(reactor, running.url, retry_seconds=0)
    client.startService()
    yield running, client
    await client.stopService()
    await running.stop()


@pytest_twisted.ensureDeferred
async def test_it_is_as_a_collector_in_this_process(tmp_path: Path) -> None:
    """Whatever is submitted, a client says what the collector itself says; what both accept is delivered."""
    large = [{**GOOD, "id": 9, "text": "y" * 100} for _ in range(6000)]
    batches: list[tuple[str, list[Any]]] = [
        ("good", [{**GOOD, "id": 1}, b'{"client_received_start_timestamp": 2, "id": 2}']),
        ("good", large),
        ("good", [GOOD, {"client_received_start_timestamp": "x"}]),
        ("good", [GOOD, {}]),
        ("good", [b"no JSON"]),
        ("good", []),
        ("wrong", [GOOD]),
        ("good", [{**GOOD, "id": 3}] * 20_001),
    ]
    async with both(tmp_path / "data") as (running, client):
        scope = await running.scope("acme", "prod")
        outcomes: list[list[object]] = [[], []]
        for name, records in batches:
            for target, found in zip((client, running.collector), outcomes, strict=True):
                try:
                    found.append(await target.submit(scope if name == "good" else name, records))
                except Rejected as exc:
                    found.append((exc.code, exc.reason))
        assert outcomes[0] == outcomes[1]
        assert outcomes[0][:2] == [2, 6000]
        await until(lambda: running.stored() == 2 * 6002)


@pytest_twisted.ensureDeferred
async def test_with_a_spool(tmp_path: Path) -> None:
    """What no collector takes is durable here, and is sent when one takes it; what is final is raised all the same."""
    async with Stand(1, spool_directory=str(tmp_path), retry_seconds=0) as stand:
        (server,) = stand.servers
        assert stand.client.spooled is not None
        server.answers = [refusal(503, "OVERLOADED", Retry_After=30)]
        assert await stand.client.submit("a", [{"n": 1}, {"n": 2}]) == 2
        assert (stand.client.spooled.bytes > 0, stand.client.spooled.accepted) == (True, 0)
        assert await stand.client.submit("a", [{"n": 3}]) == 1

        def is_sent() -> bool:
            spool = stand.client._spool
            if spool._persistent._rests:  # and not while somebody is asked, who would take too long then
                stand.clock.advance(1)
            return not spool.holds

        await until(is_sent)
        assert stand.client.spooled.accepted == 3
        server.answers = [refusal(400, "BAD_DATA")]
        assert isinstance(await stand.fails(stand.client.submit("a", [GOOD])), Rejected)
        sent = [json.loads(body)["records"] for _, _, body in server.requests[1:-1]]
        assert [record["n"] for records in sent for record in records] == [1, 2, 3]
