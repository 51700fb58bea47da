"""Listening on endpoints, as a service that is up when it says so and down when it says so."""

from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.core.errors import ConfigError


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
                self._log.failure("{name}: cannot listen", failure, name=self.name)

    def stopService(self) -> "defer.Deferred[None]":
        """Listen no more. Fires when all are closed; connections that were made before stay."""
        self.running = False
        opening, self._opening = self._opening, []
        for each in opening:
            each.cancel()
        ports, self._ports = self._ports, []
        closing = [defer.maybeDeferred(port.stopListening) for port in ports]
        return defer.gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)


def endpoints_of(reactor: IReactorCore, key: str, texts: Sequence[str]) -> list[IStreamServerEndpoint]:
    """The endpoints that Twisted makes of texts; certificates named in them are read.

    Args:
        reactor: What is to listen.
        key: The configuration's key that holds the texts.
        texts: Such as `tcp:9000`; empty ones are left out.

    Raises:
        ConfigError: A text is no endpoint.
    """
    return [_endpoint(reactor, key, text) for text in texts if text]


def _endpoint(reactor: IReactorCore, key: str, text: str) -> IStreamServerEndpoint:
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    # Whatever Twisted, or a plugin of it, makes of a text that it does not like.
    except Exception as exc:
        raise ConfigError(f"{key}: {text!r} is no endpoint that can be used: {exc}") from exc
    return endpoint
