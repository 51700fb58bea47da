"""Uploads through a forward proxy: real sockets, and a certificate that is verified through the tunnel."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer, error
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS, HTTPConnectionPool

from axcollector.core.errors import EndpointUnavailable, UploadFailed
from axcollector.disk import Disk
from axcollector.stores.proxy import ProxiedAgent, Proxy
from axcollector.stores.signed import SignedStore
from axcollector.stores.transfer import Transfer
from tests.certificates import Authority
from tests.forward_proxy import PlainProxy, TunnelProxy
from tests.signing_server import RawServer, SigningServer

TENANT = "acme~test"
KEY = "date=2026-01-02/time=03-04-05/f.txt.gz"
TOKEN = "secret-token"
LOGIN = "Basic bWU6aHVzaA=="
"""me:hush"""


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Whom these tests trust."""
    return Authority()


@pytest.fixture
def reactor() -> Any:
    """The global reactor, which pytest-twisted has installed."""
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to deliver, larger than what is sent at once."""
    path = tmp_path / "f.txt.gz"
    path.write_bytes(os.urandom(1_000_000))
    return path


def content(path: Path) -> bytes:
    """What is in a file."""
    return path.read_bytes()


class Network:
    """A signing server, a proxy, and a store that reaches the one through the other."""

    def __init__(self, reactor: Any, authority: Authority) -> None:
        self.reactor = reactor
        self.authority = authority
        self.ports: list[IListeningPort] = []
        self.server = SigningServer(TOKEN)
        self.tunnels = TunnelProxy(reactor)
        self.stores: list[SignedStore] = []

    def listen(self, factory: Factory, tls_name: str | None = None, authority: Authority | None = None) -> int:
        """Serve, with a certificate for this name; the port."""
        interface = {"interface": "127.0.0.1"}
        if tls_name is None:
            self.ports.append(self.reactor.listenTCP(0, factory, **interface))
        else:
            options = (authority or self.authority).issue(tls_name)
            self.ports.append(self.reactor.listenSSL(0, factory, options, **interface))
        return self.ports[-1].getHost().port

    def store(self, signer: str, proxy: str, seconds: float = 30.0) -> SignedStore:
        """A store of this signer, through this proxy."""
        transfer = Transfer.over_network(
            self.reactor, Disk(), idle_seconds=seconds, connections=4, proxy=proxy, policy=self.authority.policy()
        )
        self.stores.append(SignedStore(transfer, signer, lambda: TOKEN))
        return self.stores[-1]

    def secure(self, seconds: float = 30.0, name: str = "store.test", login: str = "") -> SignedStore:
        """A store whose signer is store.test, by https, whatever name its certificate has; through a proxy."""
        port = self.listen(self.server.site(), name)
        self.server.store_base = f"https://store.test:{port}"
        proxy = self.listen(self.tunnels)
        return self.store(f"https://store.test:{port}", f"http://{login}127.0.0.1:{proxy}", seconds)

    async def close(self) -> None:
        """Stop all of it, and wait until all connections are gone."""
        for store in self.stores:
            await store.close()
        for port in self.ports:
            await defer.maybeDeferred(port.stopListening)
        while self.tunnels.open:
            for connection in self.tunnels.open:
                connection.transport.abortConnection()
            await deferLater(self.reactor, 0)


@pytest.fixture
def network(reactor: Any, authority: Authority) -> Iterator[Network]:
    """A network, which is closed in the end."""
    network = Network(reactor, authority)
    yield network
    pytest_twisted.blockon(defer.Deferred.fromCoroutine(network.close()))


@pytest_twisted.ensureDeferred
async def test_https_goes_through_a_tunnel(network: Network, source: Path) -> None:
    """Signer and store are reached by name through one tunnel, which is kept; what is in it is TLS."""
    store = network.secure(login="me:hush@")
    for number in range(5):
        await store.put(TENANT, f"{number}", str(source))
    assert [content(source)] * 5 == list(network.server.objects.values())
    (head,) = network.tunnels.heads
    assert head.startswith(b"CONNECT store.test:")
    assert f"\r\nProxy-Authorization: {LOGIN}\r\n".encode() in head
    assert network.tunnels.bytes_in > 5_000_000
    assert not [headers for headers in network.server.headers if "proxy-authorization" in headers]


@pytest_twisted.ensureDeferred
async def test_many_at_once(network: Network, source: Path) -> None:
    """More than connections are kept."""
    store = network.secure()
    await defer.gatherResults([store.put(TENANT, str(number), str(source)) for number in range(12)])
    assert set(network.server.objects.values()) == {content(source)}
    assert len(network.server.objects) == 12
    assert b"Proxy-Authorization" not in network.tunnels.heads[0]


@pytest.mark.parametrize(("name", "is_trusted"), [("other.test", True), ("127.0.0.1", True), ("store.test", False)])
@pytest_twisted.ensureDeferred
async def test_the_hosts_certificate_is_verified(network: Network, source: Path, name: str, is_trusted: bool) -> None:
    """Through the tunnel: another name, or an authority that is not trusted, is a host that cannot be reached."""
    port = network.listen(network.server.site(), name, None if is_trusted else Authority())
    proxy = network.listen(network.tunnels)
    store = network.store(f"https://store.test:{port}", f"http://127.0.0.1:{proxy}")
    with pytest.raises(EndpointUnavailable, match="signer cannot be reached") as caught:
        await store.put(TENANT, KEY, str(source))
    assert caught.value.authority == "signer"
    assert network.server.asked == []


@pytest_twisted.ensureDeferred
async def test_certificates_are_verified_without_a_proxy(network: Network, source: Path, reactor: Any) -> None:
    """By what the system trusts, to which this authority does not belong; and it is for another host besides."""
    port = network.listen(network.server.site(), "store.test")
    store = SignedStore.over_network(
        reactor, Disk(), f"https://127.0.0.1:{port}", lambda: TOKEN, timeout_seconds=30, concurrency=1
    )
    network.stores.append(store)
    with pytest.raises(EndpointUnavailable, match="signer cannot be reached"):
        await store.put(TENANT, KEY, str(source))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", "it answered 407; the user name and password"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", "it answered 403"),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n\r\n", "it answered 503"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "its answer is no HTTP"),
        (b"x" * 20_000, "its answer is no HTTP"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_proxy_that_opens_no_tunnel(network: Network, source: Path, answer: bytes, expected: str) -> None:
    """It pauses whoever was to be reached, says so, costs no attempt; the next try is a new connection."""
    store = network.secure(login="me:hush@")
    network.tunnels.answer = answer
    with pytest.raises(EndpointUnavailable) as caught:
        await store.put(TENANT, KEY, str(source))
    assert expected in str(caught.value)
    assert str(caught.value).startswith("signer cannot be reached: the proxy 127.0.0.1:")
    assert "hush" not in repr(caught.value)
    network.tunnels.answer = None
    await store.put(TENANT, KEY, str(source))


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_closes(network: Network, source: Path) -> None:
    """Before it has answered."""
    store = network.secure()
    network.tunnels.answer, network.tunnels.then_close = b"", True
    with pytest.raises(EndpointUnavailable, match="opens no tunnel: it closed the connection"):
        await store.put(TENANT, KEY, str(source))


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_hangs(network: Network, source: Path) -> None:
    """Half the time that a request may take without progress, and it is over."""
    store = network.secure(seconds=0.4)
    network.tunnels.answer = b""
    with pytest.raises(EndpointUnavailable, match=r"opens no tunnel: it did not answer within 0\.2 s"):
        await store.put(TENANT, KEY, str(source))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest_twisted.ensureDeferred
async def test_no_proxy_there(network: Network, source: Path, scheme: str) -> None:
    """It is told that it is the proxy that is not there."""
    proxy = network.listen(network.tunnels)
    await defer.maybeDeferred(network.ports.pop().stopListening)
    store = network.store(f"{scheme}://store.test:1", f"http://127.0.0.1:{proxy}")
    with pytest.raises(EndpointUnavailable, match=f"signer cannot be reached: the proxy 127.0.0.1:{proxy}: "):
        await store.put(TENANT, KEY, str(source))


@pytest_twisted.ensureDeferred
async def test_cancelling_while_a_tunnel_is_opened(network: Network, source: Path, reactor: Any) -> None:
    """The connection to the proxy is closed."""
    store = network.secure()
    network.tunnels.answer = b""
    done = store.put(TENANT, KEY, str(source))
    while not network.tunnels.heads:
        await deferLater(reactor, 0)
    done.cancel()
    with pytest.raises(defer.CancelledError):
        await done
    while network.tunnels.open:
        await deferLater(reactor, 0)


@pytest_twisted.ensureDeferred
async def test_an_early_refusal_through_a_tunnel(network: Network, tmp_path: Path) -> None:
    """It cuts the connection, as without a proxy; later files arrive."""
    big = tmp_path / "big"
    big.write_bytes(b"0" * 30_000_000)
    store = network.secure()
    good = network.server.store_base
    refusing = RawServer(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")
    network.server.store_base = f"https://store.test:{network.listen(refusing, 'store.test')}"
    with pytest.raises(UploadFailed, match="answered 500"):
        await store.put(TENANT, KEY, str(big))
    network.server.store_base = good
    await store.put(TENANT, KEY, str(big))
    assert [len(each) for each in network.server.objects.values()] == [30_000_000]
    await refusing.close()


@pytest_twisted.ensureDeferred
async def test_a_proxy_by_tls(network: Network, source: Path) -> None:
    """TLS to the proxy, and TLS to the host in it; both certificates are verified."""
    port = network.listen(network.server.site(), "store.test")
    network.server.store_base = f"https://store.test:{port}"
    proxy = network.listen(network.tunnels, "127.0.0.1")
    await network.store(f"https://store.test:{port}", f"https://127.0.0.1:{proxy}").put(TENANT, KEY, str(source))
    assert list(network.server.objects.values()) == [content(source)]
    impostor = network.listen(network.tunnels, "127.0.0.1", Authority())
    with pytest.raises(EndpointUnavailable):
        await network.store(f"https://store.test:{port}", f"https://127.0.0.1:{impostor}").put(TENANT, KEY, str(source))
    assert len(network.tunnels.heads) == 1


@pytest_twisted.ensureDeferred
async def test_http_goes_to_the_proxy_itself(network: Network, source: Path, reactor: Any) -> None:
    """With the whole URL, and with the credentials; a wrong password pauses and costs no attempt."""
    port = network.listen(network.server.site())
    proxy = PlainProxy(reactor, LOGIN)
    at = network.listen(proxy)
    await network.store(f"http://127.0.0.1:{port}", f"http://me:hush@127.0.0.1:{at}").put(TENANT, KEY, str(source))
    assert network.server.objects == {(TENANT, KEY): content(source)}
    assert [url.partition(b"?")[0].decode() for url in proxy.seen] == [
        f"http://127.0.0.1:{port}/analytics",
        f"http://127.0.0.1:{port}/objects/acme~test/date%3D2026-01-02/time%3D03-04-05/f.txt.gz",
    ]
    with pytest.raises(EndpointUnavailable, match=r"signer cannot be reached: the proxy wants .* 407"):
        await network.store(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{at}").put(TENANT, KEY, str(source))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.test", Proxy("proxy.test", 80)),
        ("https://proxy.test", Proxy("proxy.test", 443, True)),
        ("http://me:hush@[::1]:3128", Proxy("::1", 3128, False, LOGIN)),
        ("http://m%C3%A9:a%3Ab%40c@h:1", Proxy("h", 1, False, "Basic bcOpOmE6YkBj")),
        ("http://me@h:1", Proxy("h", 1, False, "Basic bWU6")),
    ],
)
def test_urls_of_proxies(url: str, expected: Proxy) -> None:
    """Their defaults are those of the schemes; percent signs encode; neither name nor password is ever shown."""
    assert expected == Proxy.from_url(url)
    assert "Basic" not in repr(expected)
    assert str(expected) == f"the proxy {expected.host}:{expected.port}"


class Transport(StringTransport):
    """What HTTP asks of a TCP connection besides."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It has none."""


class Memory:
    """An agent that connects to a proxy in memory."""

    def __init__(self, uri: bytes = b"https://[::2]/x") -> None:
        self.reactor = MemoryReactorClock()
        pool = HTTPConnectionPool(self.reactor, persistent=False)
        proxy = Proxy.from_url("http://127.0.0.1:3128")
        self.agent = ProxiedAgent(self.reactor, proxy, pool, BrowserLikePolicyForHTTPS(), 10)
        self.answer = self.agent.request(b"GET", uri)
        (_, _, factory, _, _) = self.reactor.tcpClients[-1]
        self.factory = factory
        self.protocol = factory.buildProtocol(None)
        self.transport = Transport()
        self.protocol.makeConnection(self.transport)

    def failure(self) -> Failure:
        """Why there is no answer."""
        failures: list[Failure] = []
        self.answer.addErrback(failures.append)
        return failures[0]


def test_addresses_of_ipv6_are_in_brackets() -> None:
    """In the request for a tunnel; the answer may come byte by byte, and TLS begins behind it."""
    memory = Memory()
    assert memory.transport.value() == b"CONNECT [::2]:443 HTTP/1.1\r\nHost: [::2]:443\r\n\r\n"
    memory.transport.clear()
    for byte in b"HTTP/1.1 200 Yes\r\nX: y\r\n\r":
        memory.protocol.dataReceived(bytes([byte]))
    assert memory.transport.value() == b""
    memory.protocol.dataReceived(b"\n")
    assert memory.transport.value().startswith(b"\x16\x03")
    memory.protocol.dataReceived(b"no TLS at all")
    memory.protocol.connectionLost(Failure(error.ConnectionLost()))
    assert memory.failure()


def test_what_comes_with_the_answer_is_the_hosts() -> None:
    """Bytes behind the answer's end go to TLS, which can make nothing of these."""
    memory = Memory()
    memory.protocol.dataReceived(b"HTTP/1.1 200 Yes\r\n\r\nno TLS at all")
    memory.protocol.connectionLost(Failure(error.ConnectionLost()))
    assert memory.failure()


def test_a_late_answer_is_not_heard() -> None:
    """The connection is aborted when time is over, and what still comes opens nothing."""
    memory = Memory()
    memory.reactor.advance(10)
    assert memory.transport.disconnected
    memory.protocol.dataReceived(b"HTTP/1.1 200 Yes\r\n\r\n")
    assert "did not answer within 10 s" in memory.failure().getErrorMessage()
    assert memory.reactor.getDelayedCalls() == []
    assert isinstance(memory.reactor, Clock)
