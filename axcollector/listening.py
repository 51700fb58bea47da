"""Listening on endpoints, as a service that is up when it says so and down when it says so.

Endpoints are those of Twisted, and `axtls:`, ours. It is made here and is no plugin of Twisted's, so that nothing
depends on a cache of plugins being up to date, and so that its certificates can be found to be exchanged.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.bugs import report
from axcollector.config_endpoints import check_tls_arguments, split_endpoint
from axcollector.core.errors import ConfigError
from axcollector.tls import Certificates, TlsEndpoint
from axcollector.tls_files import TlsFiles

_BACKLOG: Final = 511
"""How many connections may wait to be accepted: a handshake's work keeps others waiting for a moment."""
_FILES: Final = ("certificate", "key", "client_ca")
_NO_SUCH_SOCKET: Final = "systemd gave this process no such socket; is its .socket unit active, and twistd run with -n?"


class Listeners(Service):
    """Gives the connections of some endpoints to one factory."""

    _log = Logger()

    def __init__(self, name: str, endpoints: Sequence[IStreamServerEndpoint], factory: IProtocolFactory) -> None:
        """Nothing listens yet.

        Args:
            name: What the endpoints are called in logs: the configuration's key.
            endpoints: Where to listen; none is fine.
            factory: Makes the connections' protocols.
        """
        self._endpoints = tuple(endpoints)
        self._factory = factory
        self._opening: list[defer.Deferred[None]] = []
        self._ports: list[IListeningPort] = []
        self.name = name

    @property
    def certificates(self) -> tuple[Certificates, ...]:
        """Those of the endpoints that have TLS of ours, in the order of the endpoints."""
        return certificates_of(self._endpoints)

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """The addresses that are listened on, in the order of the endpoints; with ports, where 0 was asked for."""
        return tuple(port.getHost() for port in self._ports)

    def startService(self) -> None:
        """Listen on all of them. An endpoint that takes its time and then fails is logged.

        Raises:
            Exception: What kept one from listening, such as `CannotListenError`; the others are then closed.
        """
        self.running = True
        for endpoint in self._endpoints:
            failures: list[Failure] = []
            opening = endpoint.listen(self._factory).addCallback(self._opened).addErrback(failures.append)
            if failures:
                self.stopService()
                failures[0].raiseException()
            self._opening.append(opening.addCallback(self._report, failures))

    def _opened(self, port: IListeningPort) -> None:
        self._ports.append(port)
        self._log.info("{name}: listening on {address}", name=self.name, address=port.getHost())

    def _report(self, _: object, failures: list[Failure]) -> None:
        for failure in failures:
            if not failure.check(defer.CancelledError):
                report(self._log, "{name}: cannot listen", failure, name=self.name)

    def stopService(self) -> "defer.Deferred[None]":
        """Listen no more. Fires when all are closed; connections that were made before stay."""
        self.running = False
        opening, self._opening = self._opening, []
        for each in opening:
            each.cancel()
        ports, self._ports = self._ports, []
        closing = [defer.maybeDeferred(port.stopListening) for port in ports]
        return defer.gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)


def endpoints_of(reactor: Any, key: str, texts: Sequence[str]) -> list[IStreamServerEndpoint]:  # noqa: ANN401 - any reactor
    """The endpoints that texts mean; certificates named in them are read.

    Args:
        reactor: What is to listen.
        key: The configuration's key that holds the texts.
        texts: Such as `tcp:9000`; empty ones are left out.

    Raises:
        ConfigError: A text is no endpoint, or the files that it names cannot be used.
    """
    return [_endpoint(reactor, key, text) for text in texts if text]


def certificates_of(endpoints: Sequence[IStreamServerEndpoint]) -> tuple[Certificates, ...]:
    """Those of the endpoints that have TLS of ours, in the order of the endpoints."""
    return tuple(each.certificates for each in endpoints if isinstance(each, TlsEndpoint))


def absolute_endpoint(text: str) -> str:
    """An endpoint that means the same whatever directory the process works in when it is made."""
    kind, arguments, named = split_endpoint(text)
    if kind != "axtls":
        return text
    paths = {name: os.path.abspath(value) if name in _FILES else value for name, value in named.items()}
    parts = [*arguments, *(f"{name}={quoteStringArgument(value)}" for name, value in paths.items())]
    return ":".join([kind, *parts])


def adopted_endpoint(
    reactor: Any,  # noqa: ANN401 - any reactor
    key: str,
    text: str,
    descriptor: int,
    through: Callable[[IStreamServerEndpoint], IStreamServerEndpoint] | None = None,
) -> IStreamServerEndpoint:
    """What an endpoint's text means where somebody else listens already: its socket, and TLS of ours if it has that.

    Args:
        reactor: What is to listen.
        key: The configuration's key that holds the text.
        text: The endpoint's.
        descriptor: The socket's.
        through: What connections go through before TLS begins, if anything: made of the endpoint of the bare socket.

    Raises:
        ConfigError: The files that it names cannot be used.
    """
    kind, arguments, named = split_endpoint(text)
    with socket.socket(fileno=os.dup(descriptor)) as inherited:
        bare = AdoptedStreamServerEndpoint(reactor, descriptor, inherited.family)
    below = bare if through is None else through(bare)
    return TlsEndpoint(reactor, below, _certificates(key, arguments, named)) if kind == "axtls" else below


def inherited_socket(reactor: Any, key: str, text: str) -> int:  # noqa: ANN401 - as above
    """The descriptor of the socket that systemd has opened for an endpoint, `systemd:` or `axtls:` with `systemd=`.

    Raises:
        ConfigError: It has not.
    """
    _, _, named = split_endpoint(text)
    endpoint = _from_systemd(reactor, key, named["systemd"]) if "systemd" in named else _of_twisted(reactor, key, text)
    assert isinstance(endpoint, AdoptedStreamServerEndpoint)
    return int(endpoint.fileno)


def check_endpoints(reactor: Any, key: str, texts: Sequence[str]) -> None:  # noqa: ANN401 - as above
    """Refuse, in a running process, what `endpoints_of` would refuse at the next start. Blocking.

    Sockets that systemd opened are not looked for: those of this process are in use by now.

    Raises:
        ConfigError: A text is no endpoint, or the files that it names cannot be used.
    """
    for text in texts:
        kind, arguments, named = split_endpoint(text)
        if kind == "axtls" and "systemd" in named:
            _certificates(key, arguments, named)
        elif kind != "systemd":
            endpoints_of(reactor, key, [text])


def _endpoint(reactor: Any, key: str, text: str) -> IStreamServerEndpoint:  # noqa: ANN401 - as above
    kind, arguments, named = split_endpoint(text)
    if kind == "axtls":
        return _tls_endpoint(reactor, key, arguments, named)
    return _of_twisted(reactor, key, text)


def _of_twisted(reactor: Any, key: str, text: str) -> IStreamServerEndpoint:  # noqa: ANN401 - as above
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    # Whatever Twisted, or a plugin of it, makes of a text that it does not like.
    except Exception as exc:
        problem = _NO_SUCH_SOCKET if text.startswith("systemd:") and isinstance(exc, LookupError) else exc
        raise ConfigError(f"{key}: {text!r} is no endpoint that can be used: {problem}") from exc
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        # What kind of socket it is, it knows itself.
        with socket.socket(fileno=os.dup(endpoint.fileno)) as inherited:
            endpoint.addressFamily = inherited.family
    return endpoint


def _tls_endpoint(reactor: Any, key: str, arguments: Sequence[str], named: Mapping[str, str]) -> TlsEndpoint:  # noqa: ANN401 - any reactor
    """`axtls:PORT:certificate=…:key=…[:client_ca=…][:interface=…]`, or with `systemd=NAME` in place of the port."""
    certificates = _certificates(key, arguments, named)
    if "systemd" in named:
        return TlsEndpoint(reactor, _from_systemd(reactor, key, named["systemd"]), certificates)
    port, interface = int(named.get("port") or arguments[0]), named.get("interface", "")
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    return TlsEndpoint(reactor, kind(reactor, port, backlog=_BACKLOG, interface=interface), certificates)


def _from_systemd(reactor: Any, key: str, which: str) -> AdoptedStreamServerEndpoint:  # noqa: ANN401 - as above
    """What systemd listens on, by its name or number."""
    given = f"index={which}" if which.isdecimal() else f"name={quoteStringArgument(which)}"
    endpoint = _of_twisted(reactor, key, f"systemd:domain=INET:{given}")
    assert isinstance(endpoint, AdoptedStreamServerEndpoint)
    return endpoint


def _certificates(key: str, arguments: Sequence[str], named: Mapping[str, str]) -> Certificates:
    """What the arguments of `axtls:` name, once it is known that all of them are understood."""
    try:
        check_tls_arguments(arguments, named)
        names = [name for name in _FILES if name in named]
        return Certificates(key, TlsFiles(**{name: os.path.abspath(named[name]) for name in names}))
    except ConfigError as exc:
        raise ConfigError(f"{key}: {exc}") from exc
