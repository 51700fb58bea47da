"""TLS at the door: who gets in and how, certificates that are exchanged, and clients that never speak."""

import datetime as dt
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from axcollector.core.errors import ConfigError
from axcollector.listening import Listeners, check_endpoints, endpoints_of
from axcollector.site import IDLE_SECONDS, IngestSite
from axcollector.tls import HANDSHAKE_SECONDS, Certificates, TlsEndpoint
from axcollector.tls_files import TlsFiles
from tests.certificates import Authority
from tests.running import Running
from tests.tls_wire import Below, MemoryClient, client_context
from tests.wire import answers_in


class Echo(Protocol):
    """Says what it hears."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Door:
    """An endpoint in memory, behind which everything is echoed."""

    def __init__(self, directory: Path, *, client_ca: bool = False, authority: Authority | None = None) -> None:
        self.authority = authority or Authority()
        self.ca = self.authority.write_own(directory)
        self.paths = self.authority.write("127.0.0.1", directory)
        self.clock = Clock()
        self.certificates = Certificates("listen", TlsFiles(*self.paths, self.ca if client_ca else None))
        below = Below()
        TlsEndpoint(self.clock, below, self.certificates).listen(Factory.forProtocol(Echo))
        self.factory = below.factory

    def client(self, *certificate: str, **limits: Any) -> MemoryClient:
        """A client that trusts this door."""
        context = client_context(self.ca, *certificate)
        for name, value in limits.items():
            setattr(context, name, value)
        return MemoryClient(self.factory, context)

    def says(self, client: MemoryClient) -> bytes:
        """What comes back from a client's hello."""
        client.handshake()
        client.tls.write(b"hello")
        client.carry()
        self.clock.advance(0)  # small writes are gathered for a turn
        return client.read()


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """One without mutual TLS."""
    return Door(tmp_path)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_that_are_spoken(door: Door, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3, with forward secrecy and authenticated encryption, and a certificate that can be verified."""
    client = door.client(maximum_version=version)
    assert door.says(client) == b"hello"
    assert client.tls.version() == version.name.replace("_", ".")
    cipher = client.tls.cipher()
    assert cipher is not None
    assert cipher[0].startswith(("ECDHE", "TLS_"))
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_versions_that_are_not(door: Door) -> None:
    """TLS 1.1 is refused by us, with the alert that says why, however weak the client would have it."""
    context = client_context(door.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    client = MemoryClient(door.factory, context)
    with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
        client.handshake()
    assert client.transport.disconnecting


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AES256-GCM-SHA384"])
def test_ciphers_that_are_not(door: Door, ciphers: str) -> None:
    """Nothing without forward secrecy, nothing with CBC."""
    context = client_context(door.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers + ":@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        MemoryClient(door.factory, context).handshake()


def test_a_chain(tmp_path: Path) -> None:
    """Certificates behind the server's own are sent along, so that a client that knows only the root believes it."""
    root = Authority()
    between = root.below()
    certificate, _ = between.write("127.0.0.1", tmp_path)
    with open(certificate, "ab") as file:
        file.write(Path(between.write_own(tmp_path)).read_bytes())
    files = TlsFiles(certificate, str(tmp_path / "key.pem"))
    below = Below()
    TlsEndpoint(Clock(), below, Certificates("listen", files)).listen(Factory.forProtocol(Echo))
    MemoryClient(below.factory, client_context(root.write_own(tmp_path))).handshake()


def speak(client: MemoryClient) -> None:
    """Agree on a connection, and read: with TLS 1.3 a client learns only then that it was refused."""
    client.handshake()
    client.read()


def refused(client: MemoryClient) -> str:
    """The alert with which a client was refused."""
    with pytest.raises(ssl.SSLError) as caught:
        speak(client)
    assert client.transport.disconnecting
    return str(caught.value.reason)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_mutual_tls(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """With `client_ca` whoever has no certificate of that authority is refused in the handshake."""
    (tmp_path / "other").mkdir()
    stranger = Authority("somebody else").write("client", tmp_path / "other")
    door = Door(tmp_path, client_ca=True)
    friend = door.authority.write("client", tmp_path, certificate="friend.pem", key="friend.key")
    end = dt.datetime(2021, 1, 1, tzinfo=dt.UTC)
    expired = door.authority.write("client", tmp_path, certificate="e.pem", key="e.key", end=end)
    assert door.says(door.client(*friend, maximum_version=version)) == b"hello"
    alert = {"TLSv1_2": "HANDSHAKE_FAILURE", "TLSv1_3": "CERTIFICATE_REQUIRED"}[version.name]
    assert alert in refused(door.client(maximum_version=version))
    assert "UNKNOWN_CA" in refused(door.client(*stranger, maximum_version=version))
    assert "EXPIRED" in refused(door.client(*expired, maximum_version=version))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_authority_below_another(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """What is named in `client_ca` is enough: not the root above it, nor what else that has vouched for."""
    root = Authority("root")
    named, sister = root.below(), root.below()
    door = Door(tmp_path, authority=named, client_ca=True)
    for authority in (named, root, sister):
        context = client_context(None, *authority.write("client", tmp_path, certificate="c.pem", key="c.key"))
        context.maximum_version = version
        client = MemoryClient(door.factory, context)
        if authority is named:
            assert door.says(client) == b"hello"
        else:
            assert refused(client)


def test_mutual_tls_takes_no_session_up_again(tmp_path: Path) -> None:
    """A session could outlive the right to it, so that there are none."""
    door = Door(tmp_path, client_ca=True)
    friend = door.authority.write("client", tmp_path, certificate="friend.pem", key="friend.key")
    context = client_context(door.ca, *friend)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    first = MemoryClient(door.factory, context)
    first.handshake()
    assert first.tls.session is None or not first.tls.session.has_ticket
    assert not first.tls.session_reused


def serial(client: MemoryClient) -> object:
    """Which certificate a client was shown."""
    shown = client.tls.getpeercert()
    assert shown is not None
    return shown["serialNumber"]


def test_a_new_certificate(door: Door, tmp_path: Path, log_events: list[LogEvent]) -> None:
    """New connections get it; those that are open, or in the middle of a handshake, go on. It is said once."""
    old = door.client()
    assert door.says(old) == b"hello"
    halfway = door.client()
    halfway.protocol.dataReceived(halfway.begin())
    door.authority.write("127.0.0.1", tmp_path, name="the new one")
    assert door.certificates.use(door.certificates.read())
    assert not door.certificates.use(door.certificates.read())
    assert [formatEvent(event) for event in log_events] == [
        "listen: new connections get a new certificate: CN=the new one, valid until 2120-01-01 00:00 UTC"
    ]
    new = door.client()
    assert door.says(new) == b"hello"
    for each in (old, halfway):
        assert door.says(each) == b"hello"
    assert serial(old) == serial(halfway) != serial(new)


def test_a_bad_new_certificate(door: Door) -> None:
    """It is refused when it is read, and the one in use stays."""
    before = door.client()
    before.handshake()
    Path(door.paths[1]).write_text("nonsense")
    with pytest.raises(ConfigError):
        door.certificates.read()
    after = door.client()
    assert door.says(after) == b"hello"
    assert serial(before) == serial(after)


def test_warnings_are_logged(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """What somebody should look at is said when it is read for use."""
    files = TlsFiles(*Authority().write("127.0.0.1", tmp_path))
    Path(files.key).chmod(0o644)
    Certificates("admin_listen", files)
    assert [formatEvent(event) for event in log_events] == [
        f"admin_listen: key={files.key} can be read by everybody (mode 0644): chmod o= {files.key}"
    ]


@pytest.mark.parametrize("said", [0, 1, 100, -1], ids=["nothing", "a byte", "half", "all but the last byte"])
def test_handshakes_that_do_not_end(door: Door, said: int) -> None:
    """Whoever does not come to an end in time is cut, however much he said."""
    client = door.client()
    client.protocol.dataReceived(client.begin()[:said] or b"\x16")
    door.clock.advance(HANDSHAKE_SECONDS - 1)
    assert not client.transport.disconnected
    door.clock.advance(1)
    assert client.transport.disconnected


def test_slow_handshakes(door: Door) -> None:
    """A byte a second, which keeps nobody waiting at once, is cut at the same time."""
    client = door.client()
    hello = client.begin()
    for i in range(int(HANDSHAKE_SECONDS)):
        assert not client.transport.disconnected
        client.protocol.dataReceived(hello[i : i + 1])
        door.clock.advance(1)
    assert client.transport.disconnected


def test_a_handshake_in_time(door: Door) -> None:
    """Whoever came to an end stays, for as long as what lies behind has it."""
    client = door.client()
    assert door.says(client) == b"hello"
    door.clock.advance(10 * HANDSHAKE_SECONDS)
    assert not client.transport.disconnected
    assert not [call for call in door.clock.getDelayedCalls() if call.active()]


def test_a_client_that_goes_away(door: Door) -> None:
    """Nothing is left of it."""
    client = door.client()
    client.protocol.connectionLost(Failure(ConnectionDone()))
    assert door.clock.getDelayedCalls() == []


def test_many_in_the_middle_of_a_handshake(door: Door) -> None:
    """They keep nobody else waiting, and all are cut."""
    clients = [door.client() for _ in range(500)]
    for client in clients:
        client.protocol.dataReceived(client.begin())
    assert door.says(door.client()) == b"hello"
    door.clock.advance(HANDSHAKE_SECONDS)
    assert all(client.transport.disconnected for client in clients)
    assert door.clock.getDelayedCalls() == []


def test_http_without_tls(door: Door) -> None:
    """It is told in HTTP what to do; what follows is dropped, and the connection ends when the client ends it."""
    client = door.client()
    client.protocol.dataReceived(b"POST /analytics/x HTTP/1.1\r\nHost: x\r\n\r\n")
    client.protocol.dataReceived(b"x" * 100_000)
    (answer,) = answers_in(client.transport.value())
    assert answer.status == 400
    assert "use https://" in json.loads(answer.body)["reason"]
    assert client.transport.half_closed
    assert not client.transport.disconnecting
    client.protocol.connectionLost(Failure(ConnectionDone()))
    assert door.clock.getDelayedCalls() == []


def test_http_without_tls_by_a_client_that_stays(door: Door) -> None:
    """It is cut."""
    client = door.client()
    client.protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
    door.clock.advance(HANDSHAKE_SECONDS)
    assert client.transport.disconnected


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x2e\x01\x00\x02",
        b"\x00" * 50,
        b"0123456789" * 5,
        b"\x16\x03\x01\xff\xff" + b"\xff" * 300,
        b"\x17\x03\x03\x00\x01x",
    ],
)
def test_bytes_that_are_nothing(door: Door, data: bytes) -> None:
    """Neither TLS nor HTTP: closed at once, or when the time is over; never a traceback."""
    client = door.client()
    client.protocol.dataReceived(data)
    door.clock.advance(HANDSHAKE_SECONDS)
    assert client.transport.disconnecting or client.transport.disconnected


ARGUMENTS = [
    ("axtls:443:key=k", "listen: axtls: certificate is missing; allowed is axtls:PORT:certificate=FILE:key=FILE"),
    ("axtls:443:certificate=c", "listen: axtls: key is missing"),
    ("axtls:443:certificate=:key=k", "listen: axtls: certificate is missing"),
    ("axtls:443:certificate=c:key=k:privateKey=x", "listen: axtls: 'privateKey' is not understood"),
    ("axtls:443:127.0.0.1:certificate=c:key=k", "listen: axtls: '127.0.0.1' is not understood"),
    ("axtls:443:certificate=c:key=k:client_ca=", "listen: axtls: 'client_ca' is not understood"),
    ("axtls:443:certificate=c:key=k:port=444", "listen: axtls: there are two ports"),
    ("axtls:443:certificate=c:key=k:systemd=0", "listen: axtls: systemd names a socket that listens already"),
    ("axtls:443:certificate=c:key=k:interface=localhost", "listen: axtls: interface=localhost is no address"),
    ("axtls:443:certificate=/none.pem:key=k", "listen: certificate=/none.pem cannot be read: No such file"),
]


@pytest.mark.parametrize(("text", "complaint"), ARGUMENTS)
def test_endpoints_that_cannot_be_made(text: str, complaint: str) -> None:
    """The key of the configuration, what is wrong, and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        endpoints_of(Clock(), "listen", [text])
    assert str(caught.value).startswith(complaint)


def test_sockets_that_systemd_did_not_give(tmp_path: Path) -> None:
    """Their absence is explained, for plain ones and for those with TLS, by number and by name."""
    certificate, key = Authority().write("127.0.0.1", tmp_path)
    tls = f"certificate={certificate}:key={key}"
    for text in ("systemd:domain=INET:index=7", "systemd:domain=INET:name=a\\:b"):
        with pytest.raises(ConfigError, match=r"listen: 'systemd:.* systemd gave this process no such socket; is its"):
            endpoints_of(Clock(), "listen", [text])
    for which in ("7", "a\\:b"):
        with pytest.raises(ConfigError, match="systemd gave this process no such socket"):
            endpoints_of(Clock(), "listen", [f"axtls:systemd={which}:{tls}"])


def test_relative_paths_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of the start, whatever directory the process works in when they are read again."""
    Authority().write("127.0.0.1", tmp_path)
    monkeypatch.chdir(tmp_path)
    (endpoint,) = endpoints_of(Clock(), "listen", ["axtls:1:certificate=certificate.pem:key=key.pem"])
    monkeypatch.chdir("/")
    assert isinstance(endpoint, TlsEndpoint)
    assert not endpoint.certificates.use(endpoint.certificates.read())


def test_endpoints_of_the_next_start(tmp_path: Path) -> None:
    """What would be refused then is refused now; whether systemd will give a socket cannot be told."""
    certificate, key = Authority().write("127.0.0.1", tmp_path)
    tls = f"certificate={certificate}:key={key}"
    good = ["", "tcp:1", f"axtls:1:{tls}", f"axtls:systemd=9:{tls}", "systemd:domain=INET:index=9", "unix:/x"]
    check_endpoints(Clock(), "listen", good)
    for bad in ("nonsense:1", "axtls:1:certificate=/none:key=/none", "axtls:systemd=9:certificate=/none:key=/none"):
        with pytest.raises(ConfigError, match=r"^listen: "):
            check_endpoints(Clock(), "listen", [*good, bad])


class Site:
    """Our Site behind TLS, in memory."""

    def __init__(self, directory: Path) -> None:
        authority = Authority()
        self.clock = Clock()
        self.site = IngestSite(
            Resource(), self.clock, max_body_bytes=1000, max_pending_bytes=1000, request_timeout_seconds=30
        )
        self.context = client_context(authority.write_own(directory))
        certificates = Certificates("listen", TlsFiles(*authority.write("127.0.0.1", directory)))
        below = Below()
        TlsEndpoint(self.clock, below, certificates).listen(self.site)
        self.client = MemoryClient(below.factory, self.context)

    def after(self, seconds: int) -> MemoryClient:
        """The client, so many seconds later."""
        for _ in range(seconds):
            self.clock.advance(1)
        return self.client


def test_a_silent_client_behind_the_handshake(tmp_path: Path) -> None:
    """The site's limit for idle connections counts from the beginning; one that does not close in turn is cut."""
    site = Site(tmp_path)
    site.client.handshake()
    assert not site.after(IDLE_SECONDS - 1).transport.disconnected
    site.after(1)
    assert (site.client.read(), site.client.ended) == (b"", True)
    assert site.after(5).transport.disconnected


def test_a_slow_request_behind_the_handshake(tmp_path: Path) -> None:
    """The site's limit for requests holds, and its answer arrives."""
    site = Site(tmp_path)
    site.client.handshake()
    site.client.tls.write(b"POST / HTTP/1.1\r\nHost: x\r\n")
    site.client.carry()
    site.after(30)
    assert site.client.read().startswith(b"HTTP/1.1 408 ")
    assert site.client.ended
    assert site.after(5).transport.disconnected


def test_a_silent_client_is_cut_before_the_site_would(tmp_path: Path) -> None:
    """A handshake has less time than an idle connection; then the site knows nothing of it any more."""
    site = Site(tmp_path)
    assert site.after(int(HANDSHAKE_SECONDS)).transport.disconnected
    site.client.protocol.connectionLost(Failure(ConnectionDone()))
    assert site.site.channels == set()
    assert site.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("interface", "address"), [("127.0.0.1", "127.0.0.1"), ("\\:\\:1", "::1"), ("\\:\\:", "127.0.0.1")]
)
async def test_real_ports(tmp_path: Path, interface: str, address: str) -> None:
    """On addresses of both kinds; `::` takes clients of both."""
    from twisted.internet import reactor

    certificate, key = Authority().write("127.0.0.1", tmp_path)
    text = f"axtls:port=0:certificate={certificate}:key={key}:interface={interface}"
    service = Listeners("listen", endpoints_of(reactor, "listen", [text]), Factory.forProtocol(Echo))
    service.startService()
    port = service.addresses[0].port  # type: ignore[attr-defined]
    assert await deferToThread(said_back, address, port) == b"hello"
    await service.stopService()


def said_back(address: str, port: int) -> bytes:
    """What comes back from a hello over a real connection."""
    with socket.create_connection((address, port), timeout=30) as plain, client_context().wrap_socket(plain) as client:
        client.sendall(b"hello")
        return client.recv(100)


class Client:
    """A gateway's connection, which is kept; its methods are for other threads."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.http = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)

    def post(self, scope: str) -> tuple[int, str]:
        """The status of a batch of one record, and whose certificate the connection was shown."""
        self.begin(scope)
        return self.finish()

    def begin(self, scope: str) -> None:
        """All of a request but its last byte."""
        body = b'{"records":[{"client_received_start_timestamp":1}]}'
        self.http.putrequest("POST", f"/analytics/{scope}")
        self.http.putheader("Content-Type", "application/json")
        self.http.putheader("Content-Length", str(len(body)))
        self.http.endheaders(body[:-1])

    def finish(self) -> tuple[int, str]:
        """The rest."""
        self.http.send(b"}")
        response = self.http.getresponse()
        response.read()
        assert isinstance(self.http.sock, ssl.SSLSocket)
        shown: Any = self.http.sock.getpeercert()
        return response.status, shown["subject"][0][0][1]


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    """Those of a test, which are closed at its end."""
    made: list[Client] = []
    yield made
    for each in made:
        each.http.close()


@pytest.fixture
def stuck() -> Iterator[list[socket.socket]]:
    """Connections that go no further, which are closed at the test's end."""
    made: list[socket.socket] = []
    yield made
    for each in made:
        each.close()


@pytest_twisted.ensureDeferred
async def test_a_new_certificate_while_requests_are_under_way(tmp_path: Path, clients: list[Client]) -> None:
    """A kept connection and a request half sent notice nothing, and the next connection gets the new certificate."""
    authority = Authority()
    certificate, key = authority.write("127.0.0.1", tmp_path, name="old")
    context = client_context(authority.write_own(tmp_path))
    text = f"axtls:0:certificate={certificate}:key={key}:interface=127.0.0.1"
    running = await Running(tmp_path / "data", listen=[text]).start()
    scope = await running.scope("acme", "prod")
    port = int(running.url.rpartition(":")[2])
    clients += [Client(port, context) for _ in range(3)]
    kept, halfway, new = clients
    assert await deferToThread(kept.post, scope) == (200, "old")
    await deferToThread(halfway.begin, scope)
    authority.write("127.0.0.1", tmp_path, name="new")
    for listeners in (part for part in running.service._services if isinstance(part, Listeners)):
        for each in listeners.certificates:
            each.use(each.read())
    assert await deferToThread(new.post, scope) == (200, "new")
    assert await deferToThread(halfway.finish) == (200, "old")
    assert await deferToThread(kept.post, scope) == (200, "old")
    await running.stop()


@pytest_twisted.ensureDeferred
async def test_real_clients_in_the_middle_of_a_handshake(
    tmp_path: Path, clients: list[Client], stuck: list[socket.socket]
) -> None:
    """While 500 of them stay there, a gateway is served; one that closes its half is let go; a stop cuts them."""
    authority = Authority()
    certificate, key = authority.write("127.0.0.1", tmp_path, name="server")
    text = f"axtls:0:certificate={certificate}:key={key}:interface=127.0.0.1"
    running = await Running(tmp_path / "data", listen=[text]).start()
    scope = await running.scope("acme", "prod")
    port = int(running.url.rpartition(":")[2])
    context = client_context(authority.write_own(tmp_path))
    hello = MemoryClient(Door(tmp_path).factory, client_context()).begin()

    def stay() -> None:
        for i in range(500):
            stuck.append(socket.create_connection(("127.0.0.1", port), timeout=60))
            stuck[-1].sendall(hello[: (i * 7) % len(hello)])

    await deferToThread(stay)
    clients.append(Client(port, context))
    assert await deferToThread(clients[0].post, scope) == (200, "server")
    stuck[0].shutdown(socket.SHUT_WR)
    assert await deferToThread(stuck[0].recv, 1) == b""
    await running.stop()
    assert await deferToThread(lambda: [each for each in stuck if not has_ended(each)]) == []


def has_ended(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection, or does."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True
