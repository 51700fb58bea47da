"""Where records are taken, as the parent of worker processes holds it: a listening socket for each place and worker.

The sockets share a port (SO_REUSEPORT), and the kernel chooses one for each connection by a hash; of one socket that
all inherit, whoever asks first gets nearly all. Workers put either right (`inboxes`). The parent never accepts. It
keeps each socket open for as long as it runs, so that what waits in its queue waits for the worker's successor.

A socket that systemd has opened is one for all.
"""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError

from axcollector.config_endpoints import split_endpoint

_BACKLOG: Final = 511
"""How many connections may wait for each worker, where the endpoint does not say."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place, and the sockets that are bound to it.

    Attributes:
        endpoint: As the configuration has it.
        sockets: One a worker, or one for all.
    """

    endpoint: str
    sockets: Sequence[socket.socket]

    def of(self, slot: int) -> int:
        """The descriptor of the socket of the worker in this slot."""
        return self.sockets[slot % len(self.sockets)].fileno()

    @property
    def address(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """Where it is; with the port, where 0 was asked for."""
        first = self.sockets[0]
        name = first.getsockname()
        if first.family == socket.AF_UNIX:
            return UNIXAddress(name)
        return (IPv6Address if first.family == socket.AF_INET6 else IPv4Address)("TCP", *name[:2])

    def close(self) -> None:
        """Close all of its sockets."""
        for each in self.sockets:
            each.close()


def open_places(endpoints: Sequence[str], count: int, inherited: Callable[[str], int]) -> tuple[Place, ...]:
    """Listen at all endpoints, for so many workers.

    Args:
        endpoints: Of kinds that may be shared.
        count: How many workers there are.
        inherited: Gives the descriptor of the socket that systemd has opened for an endpoint; may raise `ConfigError`.

    Raises:
        CannotListenError: A port is taken, or an address is not of this machine.
        ConfigError: systemd has opened no such socket.
    """
    with contextlib.ExitStack() as opened:
        places = []
        for endpoint in endpoints:
            places.append(Place(endpoint, _sockets(endpoint, count, inherited)))
            opened.callback(places[-1].close)
        opened.pop_all()
    return tuple(places)


def _sockets(endpoint: str, count: int, inherited: Callable[[str], int]) -> Sequence[socket.socket]:
    kind, arguments, named = split_endpoint(endpoint)
    if kind == "systemd" or "systemd" in named:
        return [socket.socket(fileno=os.dup(inherited(endpoint)))]
    places = dict(zip(("port", "interface", "backlog"), arguments, strict=False)) if kind == "tcp" else {}
    values = {"port": arguments[0] if arguments else "", **places, **named}
    host, port = values.get("interface", ""), int(values["port"])
    backlog = int(values.get("backlog", _BACKLOG))
    opened: list[socket.socket] = []
    try:
        if port:
            # Whoever else shares a port like that would share these; a socket that does not share finds him out.
            _bound(host, port, shared=False).close()
        for _ in range(count):
            opened.append(_bound(host, port, shared=True))
            port = opened[0].getsockname()[1]
        for each in opened:
            each.listen(backlog)
    except OSError as exc:
        for each in opened:
            each.close()
        raise CannotListenError(host, port, exc) from exc
    return opened


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    result = socket.socket(_family_of(host), socket.SOCK_STREAM)
    try:
        result.setblocking(False)  # noqa: FBT003 - the standard library's signature
        result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        result.bind((host, port))
    except BaseException:
        result.close()
        raise
    return result


def _family_of(host: str) -> socket.AddressFamily:
    try:
        return socket.AF_INET6 if ipaddress.ip_address(host.partition("%")[0]).version == 6 else socket.AF_INET
    except ValueError:
        return socket.AF_INET
