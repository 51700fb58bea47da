"""Connections that are kept, and a file as the body of a request sent over one.

Two things would spoil a kept connection (ARCHITECTURE, trap 12). One is an `Expect` header, because Twisted's client
does not wait for the `100 Continue`; it is never sent. The other is an answer that comes whole before the body has
been sent: a server that does not read the rest would take it for the next request, and Twisted's client, which does
not use such a connection again, would leave it open for as long as the server does. So it is cut.
"""

from collections.abc import Callable
from typing import Any, BinaryIO, Final, cast

from twisted.internet import defer
from twisted.internet.interfaces import IConsumer, IHandshakeListener, IReactorTime, ISSLTransport, ITCPTransport
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from twisted.web._newclient import BODY, HTTP11ClientProtocol
from twisted.web.client import FileBodyProducer, HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.iweb import IResponse
from zope.interface import implementer

_MARK: Final = "axcollector_new_connection"
_IDLE_SECONDS: Final = 10
"""Shorter than what servers allow an idle connection, so that hardly one is used that was just closed."""

MAX_HEAD_BYTES: Final = 1 << 16
"""No answer's head is longer."""

_PIECE_BYTES: Final = 1 << 18
"""What is read at once: a transport asks for more when it has sent all; with Twisted's 64 KiB that is at half the speed
of pieces of this size, and larger ones are copied more often than they are sent."""


class FileBody(FileBodyProducer):
    """A file as the body of a request, read piece by piece as it is sent.

    Attributes:
        cut: Breaks off the connection that it is being sent over.
    """

    def __init__(self, file: BinaryIO, cooperator: Cooperator, moved: Callable[[], None]) -> None:
        """Prepare.

        Args:
            file: The file, at its beginning.
            cooperator: Who takes the time to read.
            moved: Called when a piece is about to be read, because there is room for it.
        """
        self._watched = _Watched(file, moved)
        self._is_begun = False
        self.cut: Callable[[], object] = self.end
        super().__init__(self._watched, cooperator, _PIECE_BYTES)  # type: ignore[no-untyped-call]  # untyped in Twisted

    @property
    def is_sent(self) -> bool:
        """Whether all of it has been handed to the connection."""
        size: int = self.length
        return self._watched.handed >= size

    def startProducing(self, consumer: IConsumer) -> "defer.Deferred[None]":
        """Begin to read. Fires when all has been written to the consumer."""
        self._is_begun = True
        return super().startProducing(consumer)  # type: ignore[no-any-return, no-untyped-call]  # untyped in Twisted

    def end(self) -> None:
        """Read no more, whatever becomes of the request."""
        if self._is_begun:
            self.stopProducing()  # type: ignore[no-untyped-call]  # untyped in Twisted


class _Watched:
    """A file that tells when it is read, and how far."""

    def __init__(self, file: BinaryIO, moved: Callable[[], None]) -> None:
        self._moved = moved
        self._file = file
        self.handed = 0
        self.seek = file.seek
        self.tell = file.tell
        self.close = file.close

    def read(self, size: int) -> bytes:
        self._moved()
        data = self._file.read(size)
        self.handed += len(data)
        return data


@implementer(IHandshakeListener)
class _Bounded(HTTP11ClientProtocol):
    """Cut when what comes before a body, interim answers included, is too long: Twisted would keep all of it.

    Attributes:
        is_used: Whether a request has been sent over it.
        has_shaken_hands: Whether TLS is established.
    """

    is_used = False
    has_shaken_hands = False
    _head_bytes = 0

    def handshakeCompleted(self) -> None:
        """TLS is established."""
        self.has_shaken_hands = True

    @property
    def is_open(self) -> bool:
        """Whether something can have got through: without TLS at once."""
        return self.has_shaken_hands or not ISSLTransport.providedBy(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Take what has come."""
        super().dataReceived(data)  # type: ignore[no-untyped-call]  # untyped in Twisted
        is_head = self._parser is not None and self._parser.state != BODY
        self._head_bytes = self._head_bytes + len(data) if is_head else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            cast("ITCPTransport", self.transport).abortConnection()


class _Quiet(_HTTP11ClientFactory):
    noisy = False

    def buildProtocol(self, addr: object) -> HTTP11ClientProtocol:  # noqa: ARG002 - as Twisted has it
        return _Bounded(self._quiescentCallback)  # type: ignore[no-untyped-call]  # untyped in Twisted


class Connections(HTTPConnectionPool):
    """Connections that are kept, that let a `FileBody` cut them, and whose comings and goings fill no log."""

    _factory = _Quiet

    def __init__(self, reactor: IReactorTime, kept: int) -> None:
        """Keep up to `kept` connections to each host."""
        super().__init__(reactor)  # type: ignore[no-untyped-call]  # untyped in Twisted
        self.maxPersistentPerHost = kept
        self.cachedConnectionTimeout = _IDLE_SECONDS
        self.retryAutomatically = False

    def getConnection(self, key: Any, endpoint: Any) -> "defer.Deferred[Any]":  # noqa: ANN401 - as Twisted has it
        """A connection that was kept or is made; see `HTTPConnectionPool`."""
        return (
            super().getConnection(key, endpoint).addCallback(lambda protocol: _Connection(cast("_Bounded", protocol)))
        )


class _Connection:
    """What the agent asks of a connection."""

    def __init__(self, protocol: _Bounded) -> None:
        self._protocol = protocol

    def request(self, request: Any) -> "defer.Deferred[IResponse]":  # noqa: ANN401 - likewise
        """Send a request."""
        protocol = self._protocol
        if isinstance(request.bodyProducer, FileBody):
            request.bodyProducer.cut = cast("ITCPTransport", protocol.transport).abortConnection
        answer: defer.Deferred[IResponse] = protocol.request(request)
        is_new, protocol.is_used = not protocol.is_used, True
        return answer.addErrback(self._noted) if is_new else answer

    def _noted(self, failure: Failure) -> Failure:
        failure.value.__dict__[_MARK] = self._protocol.is_open
        return failure


def was_new(exc: BaseException) -> bool:
    """Whether the request that failed with this was the first over its connection: no accident, then."""
    return _MARK in exc.__dict__


def was_without_tls(exc: BaseException) -> bool:
    """Whether it was, and the connection ended before TLS was established."""
    return not exc.__dict__.get(_MARK, True)
