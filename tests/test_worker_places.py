"""The listening sockets that a parent holds for its workers."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError

from axcollector.core.errors import ConfigError
from axcollector.workers.places import Place, open_places

LOCAL = "tcp:0:interface=127.0.0.1"


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """What is closed when the test ends."""
    with ExitStack() as stack:
        yield stack


def places_of(opened: ExitStack, *endpoints: str, count: int = 2, **given: int) -> tuple[Place, ...]:
    """Those of some endpoints, closed when the test ends; by name what systemd has opened."""

    def inherited(endpoint: str) -> int:
        name = endpoint.rpartition("=")[2]
        if name not in given:
            raise ConfigError(f"no socket for {endpoint}")
        return given[name]

    places = open_places(endpoints, count, inherited)
    for place in places:
        opened.callback(place.close)
    return places


def connected(opened: ExitStack, place: Place) -> socket.socket:
    """A client's connection."""
    host, port = place.sockets[0].getsockname()[:2]
    return opened.enter_context(socket.create_connection((host, port)))


def waiting_in(place: Place, opened: ExitStack) -> list[int]:
    """How many connections wait in the queue of each socket; all are taken."""
    found = [0] * len(place.sockets)
    for at, each in enumerate(place.sockets):
        try:
            while True:
                opened.enter_context(each.accept()[0])
                found[at] += 1
        except BlockingIOError:
            pass
    return found


def test_workers_share_a_port(opened: ExitStack) -> None:
    """Each has a socket of its own; one port is chosen for all; the kernel takes no connection for more than one."""
    (place,) = places_of(opened, LOCAL, count=2)
    assert place.endpoint == LOCAL
    assert isinstance(place.address, IPv4Address)
    assert place.address.port > 0
    assert len({each.getsockname() for each in place.sockets}) == 1
    assert place.of(0) != place.of(1)
    for _ in range(20):
        connected(opened, place)
    assert sum(waiting_in(place, opened)) == 20


def test_what_waits_outlives_a_worker(opened: ExitStack) -> None:
    """A connection that came while nobody took it is there for whoever listens next with a copy of the socket."""
    (place,) = places_of(opened, LOCAL, count=1)
    connected(opened, place)
    worker = socket.socket(fileno=os.dup(place.of(0)))
    worker.close()
    assert waiting_in(place, opened) == [1]


@pytest.mark.parametrize("endpoint", [r"tcp:0:interface=\:\:1", r"axtls:0:certificate=c:key=k:interface=\:\:1"])
def test_addresses_of_either_kind(opened: ExitStack, endpoint: str) -> None:
    """An IPv6 address makes IPv6 sockets; of `axtls:` only where it listens says something to the parent."""
    (place,) = places_of(opened, endpoint)
    assert isinstance(place.address, IPv6Address)
    assert place.address.host == "::1"


def test_a_port_that_is_taken(opened: ExitStack) -> None:
    """By whomever, also by somebody who would share it; what was opened before is closed again."""
    (other,) = places_of(opened, LOCAL)
    port = other.sockets[0].getsockname()[1]
    spare = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    free = spare.getsockname()[1]
    spare.close()
    with pytest.raises(CannotListenError, match=f"127.0.0.1:{port}"):
        places_of(opened, f"tcp:{free}:interface=127.0.0.1", f"tcp:{port}:interface=127.0.0.1")
    (again,) = places_of(opened, f"tcp:port={free}:interface=127.0.0.1:backlog=5")
    assert again.sockets[0].getsockname()[1] == free
    with pytest.raises(CannotListenError):
        places_of(opened, "tcp:0:interface=192.0.2.1")


def test_a_socket_of_systemd_is_for_all(opened: ExitStack, tmp_path: object) -> None:
    """With TLS or without; every worker has the same one."""
    first = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    second = opened.enter_context(socket.socket(socket.AF_UNIX))
    path = os.path.join(str(tmp_path), "s")
    second.bind(path)
    second.listen()
    endpoints = ["systemd:domain=INET:name=web", "axtls:certificate=c:key=k:systemd=local"]
    places = places_of(opened, *endpoints, web=first.fileno(), local=second.fileno())
    assert [len(place.sockets) for place in places] == [1, 1]
    assert places[0].of(0) == places[0].of(1) != first.fileno()
    assert places[0].sockets[0].getsockname() == first.getsockname()
    assert places[1].address == UNIXAddress(path)


def test_a_socket_that_systemd_has_not_opened(opened: ExitStack) -> None:
    """It is missed at the start; what was opened before is closed again."""
    spare = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    free = spare.getsockname()[1]
    spare.close()
    with pytest.raises(ConfigError, match="no socket for systemd:"):
        places_of(opened, f"tcp:{free}:interface=127.0.0.1", "systemd:domain=INET:name=other")
    assert places_of(opened, f"tcp:{free}:interface=127.0.0.1")
