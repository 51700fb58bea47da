"""A TLS client in memory, whose bytes a test carries to a protocol and back."""

import contextlib
import ssl
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.testing import StringTransport
from zope.interface import implementer


@implementer(IStreamServerEndpoint)
class Below:
    """An endpoint that listens on nothing, and keeps what connections would be given to."""

    factory: Any = None

    def listen(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IListeningPort]":
        """Keep it."""
        self.factory = protocolFactory
        return defer.Deferred()


def client_context(authority: str | None = None, *certificate: str) -> ssl.SSLContext:
    """What a client trusts, and shows; without an authority it trusts everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = authority is not None
    context.verify_mode = ssl.CERT_NONE if authority is None else ssl.CERT_REQUIRED
    if authority is not None:
        context.load_verify_locations(authority)
    if certificate:
        context.load_cert_chain(*certificate)
    return context


class HalfClosable(StringTransport):
    """A transport whose way out can be closed alone."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        """Nothing more will be written."""
        self.half_closed = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is ever delayed."""


class MemoryClient:
    """A connection from a client to a protocol of a factory.

    Attributes:
        ended: Whether the other side has said that nothing more comes.
    """

    def __init__(self, factory: Any, context: ssl.SSLContext) -> None:
        self.ended = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        self.transport = HalfClosable()
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def handshake(self) -> None:
        """Agree on a connection; raises `ssl.SSLError` where that fails."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.carry()
            else:
                self.carry()
                return

    def carry(self) -> bool:
        """Carry what waits on either side to the other; whether there was anything."""
        sent, answered = self._outgoing.read(), self.transport.value()
        if sent and not self.transport.disconnected:
            self.protocol.dataReceived(sent)
            answered = self.transport.value()
        self.transport.clear()
        self._incoming.write(answered)
        return bool(sent or answered)

    def read(self) -> bytes:
        """What the other side said, up to its end."""
        self.carry()
        data = b""
        while not self.ended:
            try:
                piece = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                break
            self.ended = not piece
            data += piece
        return data

    def begin(self) -> bytes:
        """The bytes of a handshake's beginning, which nobody was given yet."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()
