"""Listening: real ports, and endpoints that take their time."""

import socket
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import defer
from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from zope.interface import implementer

from axcollector.config_endpoints import split_endpoint
from axcollector.core.errors import ConfigError
from axcollector.listening import Listeners, absolute_endpoint, endpoints_of
from tests.conftest import LoggedFailures
from tests.fakes import result_of


@pytest_twisted.ensureDeferred
async def test_ports_are_open_between_start_and_stop(tmp_path: Path) -> None:
    """All endpoints are listened on once started, and none any more once stopped; then it can be started again."""
    from twisted.internet import reactor

    texts = ["tcp:0:interface=127.0.0.1", f"unix:{tmp_path}/socket"]
    service = Listeners("listen", endpoints_of(reactor, "listen", texts), Factory.forProtocol(Protocol))
    assert service.addresses == ()
    for _ in range(2):
        service.startService()
        assert service.running
        tcp, _unix = service.addresses
        assert isinstance(tcp, IPv4Address)
        assert tcp.port > 0
        with socket.create_connection(("127.0.0.1", tcp.port)), socket.socket(socket.AF_UNIX) as other:
            other.connect(f"{tmp_path}/socket")
        await service.stopService()
        assert service.addresses == ()
        with socket.socket() as again:
            assert again.connect_ex(("127.0.0.1", tcp.port)) != 0


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken() -> None:
    """What keeps one endpoint from listening is raised at once, and the others are closed."""
    from twisted.internet import reactor

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        texts = ["tcp:0:interface=127.0.0.1", f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"]
        service = Listeners("listen", endpoints_of(reactor, "listen", texts), Factory.forProtocol(Protocol))
        with pytest.raises(CannotListenError):
            service.startService()
        assert (service.running, service.addresses) == (False, ())


@pytest.mark.parametrize(
    "text", ["nonsense:1", "tcp:80:interface=a:b:c:d", "tcp:80:color=red", "ssl:443:privateKey=/none.pem"]
)
def test_texts_that_are_no_endpoints(text: str) -> None:
    """What Twisted makes no endpoint of is refused with the key and the text."""
    with pytest.raises(ConfigError, match=r"^listen: ") as caught:
        endpoints_of(MemoryReactor(), "listen", [text])
    assert repr(text) in str(caught.value)


def test_empty_texts_are_left_out() -> None:
    """An empty endpoint means: do not listen."""
    assert endpoints_of(MemoryReactor(), "admin_listen", [""]) == []


@implementer(IStreamServerEndpoint)
class SlowEndpoint:
    """Listens when it is told that it does."""

    def __init__(self) -> None:
        self.opening: defer.Deferred[IListeningPort] = defer.Deferred()

    def listen(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IListeningPort]":
        """Fires later."""
        return self.opening


def started(endpoint: SlowEndpoint) -> Listeners:
    """Listeners that wait for it."""
    service = Listeners("listen", [endpoint], Factory.forProtocol(Protocol))
    service.startService()
    return service


def test_an_endpoint_that_takes_its_time() -> None:
    """A port that opens later is one of the addresses from then on."""
    endpoint = SlowEndpoint()
    service = started(endpoint)
    assert service.addresses == ()
    port = MemoryReactor().listenTCP(80, Factory())
    endpoint.opening.callback(port)
    assert service.addresses == (port.getHost(),)
    result_of(service.stopService())
    assert service.addresses == ()


def test_an_endpoint_that_fails_later(logged_failures: LoggedFailures) -> None:
    """A failure that comes too late to be raised is logged."""
    endpoint = SlowEndpoint()
    service = started(endpoint)
    endpoint.opening.errback(OSError("no, password=x"))
    assert [str(failure) for failure in logged_failures.take(OSError)] == ["no, password=…"]
    result_of(service.stopService())


def test_stopping_while_opening() -> None:
    """An endpoint that is still opening is told not to, and that is no failure."""
    endpoint = SlowEndpoint()
    result_of(started(endpoint).stopService())
    assert endpoint.opening.called


def test_an_endpoint_that_means_the_same_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files of `axtls:` are named from the root; everything else stays as it is."""
    monkeypatch.chdir(tmp_path)
    text = absolute_endpoint(r"axtls:443:certificate=c.pem:key=/k\:1:interface=\:\:1")
    kind, arguments, named = split_endpoint(text)
    assert (kind, arguments) == ("axtls", ["443"])
    assert named == {"certificate": str(tmp_path / "c.pem"), "key": "/k:1", "interface": "::1"}
    assert absolute_endpoint("tcp:9000:interface=x") == "tcp:9000:interface=x"
