"""The signing service's protocol: in memory, and over real sockets against servers that misbehave."""

import errno
import gc
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self

import pytest
import pytest_twisted
from treq.testing import RequestTraversalAgent
from twisted.internet import defer, error, protocol
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http import Request

from axcollector.bearer import BearerToken
from axcollector.config import Config
from axcollector.core import layout
from axcollector.core.errors import (
    CredentialsRefused,
    EndpointUnavailable,
    FileRefused,
    NoTokenYet,
    TenantRefused,
    TimedOut,
    UploadFailed,
)
from axcollector.destination import store_maker
from axcollector.disk import Disk
from axcollector.stores.base import Store
from axcollector.stores.signed import SignedStore, tenant_parameter
from axcollector.stores.transfer import MAX_ANSWER_BYTES, Transfer
from tests.fakes import HeldThread
from tests.signing_server import Misbehaviour, RawServer, SigningServer, answer, never, url_of

TENANT = "acme~test"
KEY = "date=2026-01-02/time=03-04-05/f.txt.gz"
TOKEN = "secret-token"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to deliver, small enough for the server to keep it in memory."""
    path = tmp_path / "f.txt.gz"
    path.write_bytes(os.urandom(90_000))
    return path


def content(path: Path) -> bytes:
    """What is in a file."""
    return path.read_bytes()


def failure_of(deferred: "defer.Deferred[None]") -> Exception:
    """What a Deferred has failed with."""
    failures: list[Failure] = []
    deferred.addErrback(failures.append)
    assert failures, "the Deferred has not failed"
    return failures[0].value


class Memory:
    """A store and its servers, without a network."""

    def __init__(self, disk: Disk | None = None, token: Callable[[], str | None] = lambda: TOKEN) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.server = SigningServer(TOKEN)
        self.agent = RequestTraversalAgent(self.server.resource)
        transfer = Transfer(self.clock, self.agent, disk or Disk(), idle_seconds=60)
        self.store = SignedStore(transfer, "http://signer.test/", token)

    def put(self, source: Path, tenant: str = TENANT, key: str = KEY) -> "defer.Deferred[None]":
        """Put a file, and let everything happen that happens at once."""
        done = self.store.put(tenant, key, str(source))
        for _ in range(100):
            self.clock.advance(0)
            self.agent.flush()
        return done


@pytest.fixture
def memory() -> Iterator[Memory]:
    """In the end no delayed call may be left."""
    memory = Memory()
    yield memory
    assert memory.clock.getDelayedCalls() == []


def test_a_file_is_delivered(memory: Memory, source: Path) -> None:
    """The signer is asked as SPEC section 7 says; the PUT has its headers, and no others that matter."""
    assert memory.put(source).result is None
    assert memory.server.objects == {(TENANT, KEY): source.read_bytes()}
    assert memory.server.asked == [
        {
            "tenant": TENANT,
            "relative_file_path": KEY,
            "file_content_type": "application/x-gzip",
            "encrypt": "true",
        }
    ]
    (headers,) = memory.server.headers
    assert headers["content-type"] == "application/x-gzip"
    assert headers["content-length"] == "90000"
    assert not headers.keys() & {"expect", "authorization", "transfer-encoding", "cookie"}
    assert not [name for name in headers if name.startswith("x-amz")]


def test_an_empty_file_is_delivered(memory: Memory, tmp_path: Path) -> None:
    """With its length of 0."""
    path = tmp_path / "empty"
    path.touch()
    assert memory.put(path).result is None
    assert memory.server.objects == {(TENANT, KEY): b""}
    assert memory.server.headers[0]["content-length"] == "0"


def test_encryption_is_asked_for_where_it_was_signed(memory: Memory, source: Path) -> None:
    """An x-amz header that was not signed would be refused, and so would the lack of one that was."""
    memory.server.signed_headers = "content-type;host;x-amz-server-side-encryption"
    assert memory.put(source).result is None
    assert memory.server.headers[0]["x-amz-server-side-encryption"] == "AES256"


@pytest.mark.parametrize(
    ("organization", "environment", "expected"),
    [
        ("acme", "test", "acme~test"),
        ("a~b", "c", "a%7Eb~c"),
        ("a", "b~c", "a~b%7Ec"),
        ("a%7Eb", "c", "a%257Eb~c"),
        ("zürich & co/+?", "50 %", "zürich & co/+?~50 %25"),
        ("..", "", "..~"),
    ],
)
def test_tenants_at_the_signer(
    memory: Memory, source: Path, organization: str, environment: str, expected: str
) -> None:
    """The names as they are, joined by `~`; a `~` or `%` in a name is encoded first, so no two share one."""
    tenant = layout.tenant_directory(organization, environment)
    assert expected == tenant_parameter(tenant)
    assert memory.put(source, tenant).result is None
    assert expected == memory.server.asked[0]["tenant"]


@pytest.mark.parametrize("status", [200, 201, 204])
def test_successes(memory: Memory, source: Path, status: int) -> None:
    """These, and only these, mean that the file is there."""
    memory.server.next_puts.append(answer(status))
    assert memory.put(source).result is None


@pytest.mark.parametrize("status", [202, 206, 301, 307, 400, 401, 404, 405, 409, 411, 500, 502, 504])
def test_other_answers_are_attempts(memory: Memory, source: Path, status: int) -> None:
    """Redirections are not followed; nothing is sent twice."""
    memory.server.next_puts.append(answer(status, b"", Location="http://elsewhere.test/"))
    failure = failure_of(memory.put(source))
    assert type(failure) is UploadFailed
    assert str(failure) == f"store signer.test answered {status}"
    assert memory.server.objects == {}


@pytest.mark.parametrize("status", [413, 414])
def test_a_file_that_the_store_will_not_have(memory: Memory, source: Path, status: int) -> None:
    """What is too large stays so: told from what may pass, though it is an attempt as well."""
    memory.server.next_puts.append(answer(status))
    failure = failure_of(memory.put(source))
    assert type(failure) is FileRefused
    assert str(failure) == f"store signer.test answered {status}"


def test_a_proxy_that_wants_to_know_who_we_are(memory: Memory, source: Path) -> None:
    """407 comes from a proxy, whoever was asked: it costs nobody an attempt."""
    memory.server.next_puts.append(answer(407))
    failure = failure_of(memory.put(source))
    assert isinstance(failure, EndpointUnavailable)
    assert failure.authority == "store signer.test"
    assert "the proxy wants a user name and password" in str(failure)


@pytest.mark.parametrize(
    "refusal", [answer(403), answer(400, b"<Code>ExpiredToken</Code>"), answer(400, b"<Code>AccessDenied</Code>")]
)
def test_an_expired_url_is_asked_for_again(memory: Memory, source: Path, refusal: Misbehaviour) -> None:
    """Once."""
    memory.server.next_puts.append(refusal)
    assert memory.put(source).result is None
    assert len(memory.server.asked) == 2
    assert len(memory.server.objects) == 1


def test_a_second_refusal_is_an_attempt(memory: Memory, source: Path) -> None:
    """A new URL that is refused as well is no matter of time."""
    memory.server.next_puts.extend([answer(403), answer(403)])
    failure = failure_of(memory.put(source))
    assert type(failure) is UploadFailed
    assert str(failure) == "store signer.test answered 403"
    assert len(memory.server.asked) == 2


def test_a_url_that_expires_on_the_way(memory: Memory, source: Path) -> None:
    """The server checks signatures, and gets a good one in the end."""

    def expire(request: Request) -> bytes:
        memory.server.expire()
        return answer(403)(request)  # type: ignore[return-value]

    memory.server.next_puts.append(expire)
    assert memory.put(source).result is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, None),
        ({"Retry_After": "120"}, 120.0),
        ({"Retry_After": "Tue, 14 Nov 2023 22:14:20 GMT", "Date": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"Retry_After": "Tue, 14 Nov 2023 22:14:20 GMT", "Date": ""}, 60.0),
        ({"Retry_After": "whenever"}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("where", ["signer", "store signer.test"])
def test_who_is_overloaded_gets_a_pause(
    memory: Memory, source: Path, status: int, where: str, header: dict[str, str], expected: float | None
) -> None:
    """429 and 503 from either; `Retry-After` in seconds, or as a date by the answer's own clock."""
    queue = memory.server.next_signs if where == "signer" else memory.server.next_puts
    queue.append(answer(status, **header))
    failure = failure_of(memory.put(source))
    assert isinstance(failure, EndpointUnavailable)
    assert (where, expected) == (failure.authority, failure.retry_after)
    assert str(failure) == f"{where} answered {status}"


def test_an_unknown_token_pauses_the_signer(source: Path) -> None:
    """401 is about all tenants. The token is asked for anew each time, so a new one helps at once."""
    tokens: list[str | None] = [TOKEN, None, "old"]
    memory = Memory(token=tokens.pop)
    for _ in range(2):
        failure = failure_of(memory.put(source))
        assert isinstance(failure, CredentialsRefused)
        assert failure.authority == "signer"
    assert memory.put(source).result is None


def test_a_token_that_cannot_be_read_pauses_the_signer(source: Path) -> None:
    """A token file that is gone is about all tenants."""

    def missing() -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    failure = failure_of(Memory(token=missing).put(source))
    assert isinstance(failure, CredentialsRefused)
    assert str(failure) == "the bearer token cannot be read: No such file or directory"


def test_a_token_file_is_read_in_a_thread(tmp_path: Path, source: Path) -> None:
    """It may lie on a file system that does not answer; nothing is asked for meanwhile."""
    reactor, thread = MemoryReactorClock(), HeldThread()
    (tmp_path / "token").write_text(TOKEN)
    config = Config(uap_server_base="http://127.0.0.1:1", bearer_token_file=str(tmp_path / "token"))
    done = store_maker(reactor, thread, Disk(), config)(BearerToken(config)).put(TENANT, KEY, str(source))
    reactor.advance(0)
    assert (len(thread.jobs), reactor.tcpClients) == (1, [])
    thread.step()
    reactor.advance(0)
    assert [client[:2] for client in reactor.tcpClients] == [("127.0.0.1", 1)]
    done.addErrback(lambda failure: failure.trap(defer.CancelledError, EndpointUnavailable))
    done.cancel()


def test_no_token_yet_pauses_the_signer(source: Path) -> None:
    """Whoever gives tokens may have none at present; nothing is asked for without."""

    def none_yet() -> NoReturn:
        raise NoTokenYet("there is no token yet: it is being asked for")

    memory = Memory(token=none_yet)
    failure = failure_of(memory.put(source))
    assert isinstance(failure, EndpointUnavailable)
    assert (failure.authority, str(failure)) == ("signer", "there is no token yet: it is being asked for")
    assert memory.server.asked == []


def test_an_unknown_token_is_told_of(source: Path) -> None:
    """Whoever gives tokens is told which one the signer does not know, and of no other failure."""
    refused: list[str | None] = []
    memory = Memory()
    transfer = Transfer(memory.clock, memory.agent, Disk(), idle_seconds=60)
    memory.store = SignedStore(transfer, "http://signer.test/", lambda: "old", refused.append)
    memory.server.next_signs.extend([answer(500), answer(403), answer(401)])
    for _ in range(3):
        failure_of(memory.put(source))
    assert refused == ["old"]


def test_a_refused_tenant(memory: Memory, source: Path) -> None:
    """403 from the signer is about one tenant."""
    memory.server.next_signs.append(answer(403))
    failure = failure_of(memory.put(source))
    assert isinstance(failure, TenantRefused)
    assert failure.authority == memory.store.authorities(TENANT)[1] == "signer: acme~test"


@pytest.mark.parametrize("status", [302, 400, 404, 500])
def test_other_answers_of_the_signer_are_attempts(memory: Memory, source: Path, status: int) -> None:
    """Redirections are not followed: the token is for the signer alone."""
    memory.server.next_signs.append(answer(status, Location="http://signer.test/analytics"))
    failure = failure_of(memory.put(source))
    assert type(failure) is UploadFailed
    assert str(failure) == f"the signer answered {status}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"url": null}',
        b'{"url": 7}',
        b'{"url": ""}',
        b'{"url": "nonsense"}',
        b'{"url": "/objects/x"}',
        b'{"url": "http:///objects/x"}',
        b'{"url": "http://host:99999/x"}',
        b'{"url": "http://[::1/x"}',
        b'{"url": "file:///etc/passwd"}',
        b'{"url": "http://h/a b"}',
        b'{"url": "http://h/a\\r\\nX-Evil: 1"}',
        '{"url": "http://h/ü"}'.encode(),
        b'{"url": "http://h/\xff"}',
        b'{"url": "http://h/"',
        b"[" * 100_000,
        b'{"x": "' + b"y" * MAX_ANSWER_BYTES + b'", "url": "http://signer.test/objects/x"}',
    ],
)
def test_malformed_answers_of_the_signer_are_attempts(memory: Memory, source: Path, body: bytes) -> None:
    """Nothing is sent anywhere, and no part of the answer is told."""
    memory.server.next_signs.append(answer(200, body))
    failure = failure_of(memory.put(source))
    assert type(failure) is UploadFailed
    assert str(failure) == "the signer's answer holds no URL to put a file to"
    assert memory.server.objects == {}


def test_authorities(memory: Memory, source: Path) -> None:
    """The signer and the tenant there; then the host of the last file too, with its port if it is not the usual one."""
    store: Store = memory.store
    assert store.authorities(TENANT) == ("signer", "signer: acme~test")
    memory.put(source)
    assert store.authorities(TENANT) == ("signer", "signer: acme~test", "store signer.test")
    memory.server.store_base = "http://Other.test:8080"
    memory.put(source)
    assert store.authorities(TENANT)[2] == "store other.test:8080"
    assert store.authorities("x~y") == ("signer", "signer: x~y")


def test_hosts_of_ten_thousand_tenants_are_remembered(memory: Memory, tmp_path: Path) -> None:
    """Whose last file lies back furthest is forgotten first."""
    path = tmp_path / "f"
    path.write_bytes(b"1")
    for number in range(10_001):
        memory.store._remember(f"t{number}~e", "store x")
        if number == 5000:
            memory.store._remember("t0~e", "store x")
    known = [number for number in range(10_001) if len(memory.store.authorities(f"t{number}~e")) == 3]
    assert known == [0, *range(2, 10_001)]


def test_cookies_are_not_kept(memory: Memory, source: Path) -> None:
    """What a server sets is sent to nobody."""
    memory.server.next_puts.append(answer(200, b"", Set_Cookie="affinity=1; Path=/"))
    memory.put(source)
    memory.put(source)
    assert "cookie" not in memory.server.headers[0]


def test_a_missing_file_is_an_attempt(memory: Memory, tmp_path: Path) -> None:
    """It is of this file alone."""
    failure = failure_of(memory.put(tmp_path / "missing"))
    assert type(failure) is FileRefused
    assert str(failure) == "the file cannot be read: No such file or directory"


class HalfFile:
    """A file whose second piece cannot be read."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self, size: int) -> bytes:
        self.reads += 1
        if self.reads > 1:
            raise OSError(errno.EIO, "Input/output error")
        return self.file.read(min(size, 50_000))


class HalfDisk(Disk):
    """Opens half readable files."""

    def open(self, path: str) -> BinaryIO:
        return HalfFile(super().open(path))  # type: ignore[return-value]


def test_a_file_that_cannot_be_read_to_its_end(source: Path) -> None:
    """It is an attempt; nothing is stored."""
    memory = Memory(HalfDisk())
    failure = failure_of(memory.put(source))
    assert type(failure) is UploadFailed
    assert "Input/output error" in str(failure)
    assert memory.server.objects == {}


def test_a_server_that_never_answers(memory: Memory, source: Path) -> None:
    """A minute without progress pauses the signer, to whom all files are alike; at the store it is an attempt."""
    memory.server.next_signs.append(never)
    done = memory.put(source)
    memory.clock.advance(59)
    assert not done.called
    memory.clock.advance(1)
    failure = failure_of(done)
    assert isinstance(failure, EndpointUnavailable)
    assert failure.authority == "signer"
    assert str(failure) == "signer: nothing moved for 60 s"
    memory.server.next_puts.append(never)
    done = memory.put(source)
    memory.clock.advance(60)
    failure = failure_of(done)
    assert type(failure) is TimedOut
    assert str(failure) == "store signer.test: nothing moved for 60 s"


def test_a_server_that_answers_too_slowly(memory: Memory, source: Path) -> None:
    """Progress is not enough: the whole may take a minute, and the file's size at 100 kB/s."""
    slow: list[Request] = []

    def trickle(request: Request) -> int:
        slow.append(request)
        request.write(b"x")
        return never(request)

    memory.server.next_puts.append(trickle)
    done = memory.put(source)
    for _ in range(60):
        memory.clock.advance(1)
        slow[0].write(b"x")
        memory.agent.flush()
    assert not done.called
    memory.clock.advance(1)
    assert str(failure_of(done)) == "store signer.test: not done after 61 s"


@pytest.mark.parametrize("where", ["sign", "put"])
def test_cancelling(memory: Memory, source: Path, where: str) -> None:
    """It breaks off whatever is going on, and is told as what it is."""
    queue = memory.server.next_signs if where == "sign" else memory.server.next_puts
    queue.append(never)
    done = memory.put(source)
    done.cancel()
    assert isinstance(failure_of(done), defer.CancelledError)


def test_cancelling_while_the_answer_comes(memory: Memory, source: Path) -> None:
    """Half an answer is no success."""

    def half(request: Request) -> int:
        request.write(b"half")
        return never(request)

    memory.server.next_puts.append(half)
    done = memory.put(source)
    done.cancel()
    assert isinstance(failure_of(done), defer.CancelledError)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (error.ConnectionRefusedError(), EndpointUnavailable),
        (error.DNSLookupError("no such host"), EndpointUnavailable),
        (error.TimeoutError(), EndpointUnavailable),
        (error.NoRouteError(), EndpointUnavailable),
        (error.ConnectionLost(), UploadFailed),
    ],
)
def test_who_cannot_be_reached_gets_a_pause(source: Path, cause: Exception, expected: type[Exception]) -> None:
    """Name resolution and connecting are nobody's attempt."""
    reactor = MemoryReactorClock()
    store = SignedStore(Transfer(reactor, Agent(reactor), Disk(), idle_seconds=60), "http://127.0.0.1:1", lambda: TOKEN)
    done = store.put(TENANT, KEY, str(source))
    reactor.tcpClients.pop()[2].clientConnectionFailed(None, Failure(cause))
    reactor.advance(1)
    failure = failure_of(done)
    assert type(failure) is expected


def test_secrets_are_not_told(memory: Memory, source: Path, log_events: list[LogEvent]) -> None:
    """Neither the token nor a signed URL is in a failure, its causes, a repr, or the log."""
    told = []
    for misbehaviour in (answer(500), answer(503), answer(307, Location="http://signer.test/confidential-9"), never):
        memory.server.next_puts.append(misbehaviour)
        done = memory.put(source)
        memory.clock.advance(60)
        failures: list[Failure] = []
        done.addErrback(failures.append)
        told += [failures[0].getTraceback(), repr(failures[0].value)]
    memory.server.next_signs.append(answer(200, b'{"url": "http://h/x?confidential=1 "}'))
    failures = []
    memory.put(source).addErrback(failures.append)
    told += [failures[0].getTraceback(), repr(failures[0].value)]
    told += [repr(memory.store), repr(log_events)]
    assert not [text for text in told if "confidential" in text or TOKEN in text]


class Network:
    """Real servers on loopback addresses, and a store that uses them."""

    def __init__(self, reactor: Any, timeout_seconds: float) -> None:
        self.reactor = reactor
        self.timeout_seconds = timeout_seconds
        self.ports: list[IListeningPort] = []
        self.raw_servers: list[RawServer] = []
        self.server = SigningServer(TOKEN)
        self.store = self.store_for(self.listen(self.server.site()))

    def listen(self, factory: Factory) -> str:
        """Serve; the URL."""
        if isinstance(factory, RawServer):
            self.raw_servers.append(factory)
        self.ports.append(self.reactor.listenTCP(0, factory, interface="127.0.0.1"))
        return url_of(self.ports[-1])

    def store_for(self, signer: str) -> SignedStore:
        """A store of this signer."""
        self.store = SignedStore.over_network(
            self.reactor, Disk(), signer, lambda: TOKEN, timeout_seconds=self.timeout_seconds, concurrency=4
        )
        return self.store

    async def close(self) -> None:
        """Stop all of it."""
        await self.store.close()
        for server in self.raw_servers:
            await server.close()
        for port in self.ports:
            await defer.maybeDeferred(port.stopListening)

    def put(self, source: Path, name: str = "f") -> "defer.Deferred[None]":
        """Put a file."""
        return self.store.put(TENANT, f"date=2026-01-02/time=03-04-05/{name}.txt.gz", str(source))


OpenNetwork = Callable[..., Network]


@pytest.fixture
def reactor() -> Any:
    """The global reactor, which pytest-twisted has installed."""
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def network(reactor: Any) -> Iterator[OpenNetwork]:
    """Opens a network, which is closed in the end."""
    opened: list[Network] = []

    def open_network(timeout_seconds: float = 30.0) -> Network:
        opened.append(Network(reactor, timeout_seconds))
        return opened[-1]

    yield open_network
    for each in opened:
        pytest_twisted.blockon(defer.Deferred.fromCoroutine(each.close()))


@pytest_twisted.ensureDeferred
async def test_files_are_delivered_over_one_connection(network: OpenNetwork, source: Path) -> None:
    """Byte for byte; one after the other they share their connections."""
    net = network()
    seen: set[int] = set()
    factory = net.server.site()
    build = factory.buildProtocol
    factory.buildProtocol = lambda address: (seen.add(address.port), build(address))[1]
    net.store_for(net.listen(factory))
    for number in range(10):
        await net.put(source, str(number))
    assert [content(source)] * 10 == list(net.server.objects.values())
    assert len(seen) == 1


@pytest_twisted.ensureDeferred
async def test_connections_are_not_told(network: OpenNetwork, source: Path, log_events: list[LogEvent]) -> None:
    """Twisted would log each, twice, at the level of what an operator reads."""
    net = network()
    await net.put(source)
    await net.close()
    assert [event for event in log_events if "ClientFactory" in str(event.get("log_namespace"))] == []


@pytest_twisted.ensureDeferred
async def test_many_at_once(network: OpenNetwork, source: Path) -> None:
    """More than connections are kept."""
    net = network()
    await defer.gatherResults([net.put(source, str(number)) for number in range(20)])
    assert len(net.server.objects) == 20


@pytest_twisted.ensureDeferred
async def test_an_early_refusal_spoils_no_connection(
    network: OpenNetwork, tmp_path: Path, reactor: IReactorTime
) -> None:
    """A store that refuses without reading the body, and keeps the connection: it is cut, and later files arrive."""
    net = network()
    big = tmp_path / "big"
    big.write_bytes(b"0" * 30_000_000)
    refusing = RawServer(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")
    net.server.store_base = net.listen(refusing)
    for _ in range(3):
        with pytest.raises(UploadFailed, match="answered 500"):
            await net.put(big)
    for connection in list(refusing.connections):
        connection.transport.resumeProducing()
        await connection.lost
    assert refusing.accepted == 3
    net.server.store_base = None
    for number in range(5):
        await net.put(big, str(number))
    assert {len(content) for content in net.server.objects.values()} == {30_000_000}


@pytest_twisted.ensureDeferred
async def test_an_early_success_is_none(network: OpenNetwork, tmp_path: Path) -> None:
    """Who says that it has the file before it can have it is not believed."""
    net = network()
    big = tmp_path / "big"
    big.write_bytes(b"0" * 30_000_000)
    net.server.store_base = net.listen(RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    with pytest.raises(UploadFailed, match="answered 200 before it had all of the file"):
        await net.put(big)


@pytest_twisted.ensureDeferred
async def test_an_early_plea_for_a_pause_is_heard(network: OpenNetwork, tmp_path: Path) -> None:
    """503 without reading the body pauses, though the connection is closed on the rest of it."""
    net = network()
    big = tmp_path / "big"
    big.write_bytes(b"0" * 30_000_000)
    text = b"HTTP/1.1 503 Slow Down\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    net.server.store_base = net.listen(RawServer(text))
    with pytest.raises(EndpointUnavailable) as caught:
        await net.put(big)
    assert caught.value.retry_after == 7
    assert caught.value.authority == net.store.authorities(TENANT)[2]


@pytest_twisted.ensureDeferred
async def test_a_store_that_never_reads(network: OpenNetwork, tmp_path: Path) -> None:
    """When nothing has moved for the time limit, it is over, and the connection with it."""
    net = network(timeout_seconds=0.2)
    big = tmp_path / "big"
    big.write_bytes(b"0" * 30_000_000)
    stuck = RawServer(b"")
    net.server.store_base = net.listen(stuck)
    with pytest.raises(UploadFailed, match=r"nothing moved for 0\.2 s"):
        await net.put(big)
    for connection in list(stuck.connections):
        connection.transport.resumeProducing()
        await connection.lost


@pytest.mark.parametrize("after_bytes", [0, 1, 50_000])
@pytest_twisted.ensureDeferred
async def test_a_store_that_closes(network: OpenNetwork, source: Path, after_bytes: int) -> None:
    """Before or in the body: an attempt. The next file, to a better store, arrives."""
    net = network()
    net.server.store_base = net.listen(RawServer(b"", then_close=True, after_bytes=after_bytes))
    with pytest.raises(UploadFailed, match="gave no proper answer") as caught:
        await net.put(source)
    assert type(caught.value) is UploadFailed
    net.server.store_base = None
    await net.put(source)


@pytest.mark.parametrize("text", [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b"SSH-2.0-OpenSSH_9\r\n\r\n"])
@pytest_twisted.ensureDeferred
async def test_a_broken_answer_is_an_attempt(network: OpenNetwork, source: Path, text: bytes) -> None:
    """One that is cut off, and one that is no HTTP."""
    net = network()
    net.server.store_base = net.listen(RawServer(text, then_close=True, after_bytes=90_000))
    with pytest.raises(UploadFailed, match="gave no proper answer"):
        await net.put(source)


@pytest.mark.parametrize("text", [b"%b", b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n"])
@pytest_twisted.ensureDeferred
async def test_a_broken_answer_is_not_quoted(network: OpenNetwork, source: Path, text: bytes) -> None:
    """A server that sends back what it gets brings no signed URL into a log."""
    net = network()
    echo = b"PUT /objects/x?X-Amz-Signature=hush HTTP/1.1\r\n\r\n"
    net.server.store_base = net.listen(RawServer(text % echo, then_close=True, after_bytes=90_000))
    with pytest.raises(UploadFailed, match="gave no proper answer") as caught:
        await net.put(source)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest_twisted.ensureDeferred
async def test_cookies_do_not_matter(network: OpenNetwork, source: Path) -> None:
    """Not even those that are no ASCII."""
    net = network()
    text = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Domain=\xff\r\nContent-Length: 0\r\n\r\n"
    net.server.store_base = net.listen(RawServer(text, after_bytes=90_000))
    await net.put(source)


@pytest_twisted.ensureDeferred
async def test_addresses_of_ipv6(network: OpenNetwork, source: Path, reactor: Any) -> None:
    """As the signer's, and as the store's."""
    net = network()
    net.ports.append(reactor.listenTCP(0, net.server.site(), interface="::1"))
    store = net.store_for(f"http://[::1]:{net.ports[-1].getHost().port}")
    await net.put(source)
    assert content(source) in net.server.objects.values()
    assert store.authorities(TENANT)[2].startswith("store ::1")


@pytest.mark.parametrize("host", ["a_b", "my--bucket.test", "-a", "xn--a.test"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest_twisted.ensureDeferred
async def test_hosts_that_cannot_be_asked(network: OpenNetwork, source: Path, scheme: str, host: str) -> None:
    """No domain name system has such a name: it cannot be reached, like one that is not known."""
    net = network()
    net.server.store_base = f"{scheme}://{host}"
    with pytest.raises(
        EndpointUnavailable, match=f"^store {host} cannot be reached: its URL or host name is not valid"
    ):
        await net.put(source)


@pytest.mark.parametrize("text", [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, b"HTTP/1.1 102 Wait\r\n\r\n" * 5_000])
@pytest_twisted.ensureDeferred
async def test_an_endless_head_is_cut_off(network: OpenNetwork, source: Path, text: bytes) -> None:
    """It is kept in memory, so there is a limit to it, as to a body."""
    net = network()
    net.server.store_base = net.listen(RawServer(text, after_bytes=90_000))
    with pytest.raises(UploadFailed, match="gave no proper answer"):
        await net.put(source)


@pytest_twisted.ensureDeferred
async def test_an_endless_answer_is_cut_off(network: OpenNetwork, source: Path) -> None:
    """The status counts; the connection is given up."""
    net = network()
    text = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000
    net.server.store_base = net.listen(RawServer(text, after_bytes=90_000))
    await net.put(source)


@pytest_twisted.ensureDeferred
async def test_a_store_that_closes_instead_of_tls(network: OpenNetwork, source: Path) -> None:
    """One that takes connections and drops them before TLS is established cannot be reached: a pause, no attempt."""
    net = network()

    class Dropping(protocol.Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.loseConnection()

    net.server.store_base = net.listen(Factory.forProtocol(Dropping)).replace("http:", "https:")
    with pytest.raises(EndpointUnavailable, match="cannot be reached: it closed before TLS was established"):
        await net.put(source)


class ClosesWhatItKept(protocol.Protocol):
    """Answers the first question on a connection, and closes it at the next."""

    has_answered = False

    def dataReceived(self, data: bytes) -> None:
        if self.has_answered:
            self.transport.loseConnection()
        else:
            self.has_answered = True
            self.transport.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_a_signer_that_closes_a_kept_connection(network: OpenNetwork, source: Path) -> None:
    """The question is asked again, on a new connection."""
    net = network()
    connections: list[protocol.Protocol] = []

    class Closing(Factory):
        def buildProtocol(self, addr: object) -> protocol.Protocol:
            connections.append(ClosesWhatItKept())
            return connections[-1]

    net.store_for(net.listen(Closing()))
    for count in (1, 2):
        with pytest.raises(UploadFailed, match="the signer answered 500"):
            await net.put(source)
        assert len(connections) == count


@pytest_twisted.ensureDeferred
async def test_a_signer_that_closes_every_connection(network: OpenNetwork, source: Path) -> None:
    """One that was just made and is closed without an answer is an attempt: the question is asked once."""
    net = network()
    closing = RawServer(b"", then_close=True)
    net.store_for(net.listen(closing))
    with pytest.raises(UploadFailed, match="signer gave no proper answer"):
        await net.put(source)
    assert closing.accepted == 1


@pytest_twisted.ensureDeferred
async def test_nobody_there(network: OpenNetwork, source: Path) -> None:
    """A store, and a signer, that refuse connections get a pause."""
    net = network()
    gone = net.listen(net.server.site())
    await defer.maybeDeferred(net.ports.pop().stopListening)
    net.server.store_base = gone
    with pytest.raises(EndpointUnavailable, match="cannot be reached") as caught:
        await net.put(source)
    assert caught.value.authority == f"store {gone.removeprefix('http://')}"
    net.store_for(gone)
    with pytest.raises(EndpointUnavailable, match="signer cannot be reached"):
        await net.put(source)


@pytest_twisted.ensureDeferred
async def test_tls_failures_get_a_pause(network: OpenNetwork, source: Path) -> None:
    """A server that speaks no TLS is not reached by https."""
    net = network()
    plain = RawServer(b"", greeting=b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    net.server.store_base = net.listen(plain).replace("http:", "https:")
    with pytest.raises(EndpointUnavailable, match="cannot be reached"):
        await net.put(source)


@pytest_twisted.ensureDeferred
async def test_cancelling_closes_what_is_open(network: OpenNetwork, tmp_path: Path, reactor: IReactorTime) -> None:
    """In the middle of a body: the connection is closed, the file too."""
    net = network()
    big = tmp_path / "big"
    big.write_bytes(b"0" * 30_000_000)
    stuck = RawServer(b"")
    net.server.store_base = net.listen(stuck)
    done = net.put(big)
    while not stuck.connections:
        await deferLater(reactor, 0, lambda: None)
    done.cancel()
    with pytest.raises(defer.CancelledError):
        await done
    (connection,) = stuck.connections
    connection.transport.resumeProducing()
    await connection.lost
    gc.collect()
    assert [entry for entry in os.scandir("/proc/self/fd") if _target(entry) == str(big)] == []


def _target(entry: "os.DirEntry[str]") -> str:
    try:
        return os.readlink(entry.path)
    except FileNotFoundError:
        return ""
