"""`axtls:`, our endpoint for TLS: an endpoint below it that listens, certificates that can be exchanged, a time limit.

A connection takes the certificate that is in use when it comes, and keeps it; so an exchange is the assignment of one
attribute, and no connection notices. A handshake that is not done in time is cut: to the protocol behind it the
connection looks idle, and it may be patient with those. A client that speaks HTTP without TLS is told so, once, in
HTTP.
"""

# mypy: allow-untyped-calls
# (What Twisted's own classes leave without types; mypy's list of exceptions does not reach calls by `super`.)

import time
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet import defer
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from axcollector import answers
from axcollector.tls_files import Credentials, TlsFiles, load_credentials

HANDSHAKE_SECONDS: Final = 20.0
"""So long a client may take to begin to speak TLS, and to agree on how."""
_PLAIN: Final = answers.raw(b"400 Bad Request", "BAD_DATA", "This port speaks TLS: use https:// in place of http://")


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """The certificate, key and authorities of an endpoint, as last read from their files.

    Attributes:
        name: What they are called in logs: the key of the configuration.
        files: The files.
    """

    _log = Logger()

    def __init__(self, name: str, files: TlsFiles) -> None:
        """Read the files. Blocking.

        Raises:
            ConfigError: They cannot be used.
        """
        self.name = name
        self.files = files
        self._used = self.read()
        self._warn()

    def read(self) -> Credentials:
        """Read the files, and use nothing of it yet. Blocking.

        Raises:
            ConfigError: They cannot be used.
        """
        return load_credentials(self.files, time.time())

    def use(self, new: Credentials) -> bool:
        """Give the connections to come what was read; whether it is any different. One line says so."""
        if new.digest == self._used.digest:
            return False
        self._used = new
        self._log.info("{name}: new connections get a new certificate: {facts}", name=self.name, facts=new.facts)
        self._warn()
        return True

    def _warn(self) -> None:
        for warning in self._used.warnings:
            self._log.warn("{name}: {warning}", name=self.name, warning=warning)

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: ARG002 - Twisted's interface
        """What a new connection speaks TLS with."""
        return SSL.Connection(self._used.context, None)


@implementer(IStreamServerEndpoint)
class TlsEndpoint:
    """TLS over what another endpoint listens on.

    Attributes:
        certificates: What clients are shown.
    """

    def __init__(
        self,
        clock: IReactorTime,
        below: IStreamServerEndpoint,
        certificates: Certificates,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        """Listen on nothing yet.

        Args:
            clock: Schedules what is to be cut.
            below: Where to listen.
            certificates: What clients are shown.
            handshake_seconds: How long a handshake may take.
        """
        self._clock = clock
        self._below = below
        self._handshake_seconds = handshake_seconds
        self.certificates = certificates

    def listen(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IListeningPort]":  # noqa: N803 - Twisted's
        """Listen. Fires with the port; fails as the endpoint below does."""
        factory = _Factory(self._clock, self.certificates, protocolFactory, self._handshake_seconds)
        listening: defer.Deferred[IListeningPort] = self._below.listen(factory)
        return listening


class _Connection(BufferingTLSTransport):
    """One connection: TLS, and its end where it does not come to that."""

    factory: "_Factory"
    _deadline: IDelayedCall | None = None
    _spoken = False
    _plain = False

    def makeConnection(self, transport: ITransport) -> None:
        """The connection is open; now the handshake has so long."""
        self._deadline = self.factory.reactor.callLater(self.factory.handshake_seconds, self._too_slow)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the handshake, or behind it."""
        if not self._spoken:
            self._spoken = True
            if data[:1].isalpha():
                self._answer_plainly()
        if self._plain:
            return
        super().dataReceived(data)
        if self._handshakeDone:
            self._cancel_deadline()

    def _answer_plainly(self) -> None:
        """Whoever begins with a letter speaks HTTP; TLS would answer in a way that few clients can show.

        What comes behind it is dropped until the client closes, or the time for a handshake is over: to close first
        would take the answer away from a client that is still sending.
        """
        transport: Any = self.transport
        transport.write(_PLAIN)
        transport.loseWriteConnection()
        self._plain = self._lostTLSConnection = True  # nothing is to be said in TLS any more

    def _too_slow(self) -> None:
        self._deadline = None
        self.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed, by whomever."""
        self._cancel_deadline()
        super().connectionLost(reason)

    def _cancel_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()


class _Factory(TLSMemoryBIOFactory):
    """Wraps the connections of one endpoint in TLS."""

    protocol = _Connection

    def __init__(
        self, clock: IReactorTime, certificates: Certificates, wrapped: IProtocolFactory, handshake_seconds: float
    ) -> None:
        super().__init__(certificates, isClient=False, wrappedFactory=wrapped, clock=clock)
        self.reactor = clock
        self.handshake_seconds = handshake_seconds
