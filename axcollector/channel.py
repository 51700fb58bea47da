"""A connection that Twisted parses, held to our limits, and its requests.

What a head has to be is in `heads`, how large bodies may be in `reception`, how long a connection may take in
`conversation`: here Twisted's parser, which is laxer, is held to all of that.

Requests sent without waiting for answers are answered one by one. While one is being answered, or answers are not
taken, the connection is not read from once `_BEHIND_BYTES` of what follows have come; and after `_REQUESTS_A_TURN` the
others get theirs.
"""

# mypy: allow-untyped-calls
# (What Twisted's own classes leave without types; mypy's list of exceptions does not reach calls by `super`.)

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

from axcollector import heads
from axcollector.connections import Connections, host_of
from axcollector.conversation import Conversation, State, Wire
from axcollector.heads import Cut
from axcollector.reception import Incoming, Pending, Reception

_BEHIND_BYTES: Final = 0x4000
"""So much (and what is in one read) is kept of what follows a request that is being answered: by reading on we learn
soon when a client hangs up."""
_MOST_PIECES: Final = 64
_REQUESTS_A_TURN: Final = 16
"""So many requests of one connection are answered before others are looked at; one read may hold thousands."""
_CHUNKED_SLICE_BYTES: Final = 4096
"""So much of a chunked body is taken apart before its framing is looked at."""


class Bounds(Protocol):
    """What a connection asks of its site."""

    reactor: IReactorTime
    max_body_bytes: int
    request_timeout_seconds: float
    pending: Pending
    connections: Connections
    channels: "set[IngestChannel]"
    is_draining: bool


class IngestRequest(Request):
    """A request whose body is counted while it comes."""

    channel: "IngestChannel"
    content: BytesIO

    def __init__(self, channel: "IngestChannel", *arguments: object, **keywords: object) -> None:
        super().__init__(channel, *arguments, **keywords)
        self.incoming = Incoming(channel.site.max_body_bytes, channel.site.pending)

    @property
    def reception(self) -> Reception:
        """What was found."""
        return self.incoming.reception

    def gotLength(self, length: int | None) -> None:
        """The headers are there; `length` is that of the body, where it was announced."""
        self.incoming.announce(length)
        self.content = self.incoming.content

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body has come."""
        problem = self.incoming.add(data)
        self.content = self.incoming.content
        if problem is not None:
            self.channel.cut(problem)

    def process(self) -> None:
        """The request is there, whole. Absolute URIs are taken for the path they name, and `*` for one of that name."""
        if self.path.lower().startswith((b"http://", b"https://")):
            self.path = b"/" + self.path.partition(b"//")[2].partition(b"/")[2]
        elif not self.path.startswith(b"/"):
            self.path = b"/" + self.path
        super().process()

    def forget_body(self) -> None:
        """The body is of no use any more, though its answer takes a while yet."""
        self._drop()

    def finish(self) -> None:
        """The answer is given."""
        self._drop()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        self._drop()
        super().connectionLost(reason)

    def values_of(self, name: bytes) -> Sequence[bytes]:
        """The values of a header."""
        return self.requestHeaders.getRawHeaders(name, [])

    def _drop(self) -> None:
        """Hold the body no longer."""
        self.incoming.drop()
        self.content = self.incoming.content


class IngestChannel(HTTPChannel):
    """A connection, parsed by Twisted and held to our limits."""

    site: Bounds
    transport: ITCPTransport
    timeOut = None  # noqa: N815 - Twisted's name; the conversation has the time
    totalHeadersSize = heads.MAX_HEAD_BYTES  # noqa: N815 - likewise
    maxHeaders = heads.MAX_FIELDS  # noqa: N815 - likewise
    conversation: Conversation
    _host: str | None = None
    _answered = 0
    _behind = 0
    _next_turn: IDelayedCall | None = None

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        """How Twisted's part of this schedules."""
        return self.site.reactor.callLater(period, func)

    def connectionMade(self) -> None:
        """The connection is open."""
        self._host = host_of(self.transport.getPeer())
        self.site.connections.entered(self._host)
        self.site.channels.add(self)
        self.conversation = Conversation(
            self.site.reactor,
            self.site.request_timeout_seconds,
            Wire(self.transport.write, super().loseConnection, self.transport.abortConnection),
        )
        super().connectionMade()

    # What comes

    def dataReceived(self, data: bytes) -> None:
        """Bytes of a request, or of several; what comes while the connection is being closed is dropped."""
        if self.conversation.closing:
            return
        if self._busyReceiving:  # Twisted puts back what came behind a request
            super().dataReceived(data)
            return
        self._answered = 0
        super().dataReceived(data)
        if self.line_mode and not self.paused and b"\n" in self._buffer:  # whole lines are gone: it ends none
            self.cut(heads.NO_HTTP)
        if self.requests or self._buffer:
            self.conversation.begun()

    def lineReceived(self, line: bytes) -> None:
        """A line of a head; that of a request comes first, behind an empty one at most."""
        if self.conversation.closing:
            return
        problem = None
        if self.requests:
            problem = heads.field_problem(line) if line else None
        elif line:
            problem = heads.line_problem(line)
        if problem is not None:
            self._receivedHeaderSize += len(line)
            self._cut_head(problem)
        else:
            super().lineReceived(line)

    def allHeadersReceived(self) -> None:
        """The head is there; how the body comes is known, and is answered where its client waits for leave to send."""
        request = self.requests[-1]
        problem = heads.problem(self._version, request.values_of)
        if problem is None and self.length and self.length > self.site.max_body_bytes and request.values_of(b"Expect"):
            problem = heads.NOT_WANTED
        if problem is not None:
            self.cut(problem)
        else:
            super().allHeadersReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Whether the connection stays open behind the answer."""
        assert isinstance(request, IngestRequest)
        persists = heads.persists(version, request.values_of) and not self.site.is_draining
        if not persists:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return persists

    def rawDataReceived(self, data: bytes) -> None:
        """Bytes of a body, or behind a request that is being answered."""
        if self.conversation.closing:
            return
        if self._handlingRequest:
            self._keep_behind(data)
        elif self.length is None:
            self._receive_chunked(data)
        else:
            super().rawDataReceived(data)

    def _receive_chunked(self, data: bytes) -> None:
        """A slice of a chunked body; the rest is put back, behind what Twisted puts back of the slice."""
        incoming = self.requests[-1].incoming
        known = incoming.received
        piece, rest = data[:_CHUNKED_SLICE_BYTES], data[_CHUNKED_SLICE_BYTES:]
        super().rawDataReceived(piece)
        self._buffer += rest
        if self.length is None and not self._handlingRequest:  # else the slice may hold more than the body
            problem = incoming.framed(len(piece) - (incoming.received - known))
            if problem is not None:
                self.cut(problem)

    def _keep_behind(self, data: bytes) -> None:
        self._dataBuffer.append(data)
        self._behind += len(data)
        if len(self._dataBuffer) > _MOST_PIECES:
            self._dataBuffer[:] = [b"".join(self._dataBuffer)]
        if self._behind > _BEHIND_BYTES and not self._waitingForTransport:
            self._networkProducer.pauseProducing()

    def allContentReceived(self) -> None:
        """A request is there, whole."""
        trailers = getattr(self._transferDecoder, "_trailerHeaders", ())
        if any(heads.field_problem(bytes(line)) for line in trailers):
            self.cut(heads.NO_HTTP)
        if not self.conversation.closing:  # else it was answered already, and nothing more is to be said
            self.conversation.received()
            super().allContentReceived()

    # What is answered

    def requestDone(self, request: Request) -> None:
        """A request is answered; what came behind it is read next, when its turn comes and answers are taken."""
        self.conversation.answered()
        self._answered += 1
        self._behind = 0
        if self._waitingForTransport or self._answered >= _REQUESTS_A_TURN:
            self.paused = True
            if self._next_turn is None and not self._waitingForTransport:
                self._next_turn = self.site.reactor.callLater(0, self._go_on)
        super().requestDone(request)
        if self.paused:
            self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        """Answers are taken again."""
        super().resumeProducing()
        if self.paused and self._next_turn is None:
            self._go_on()

    def _go_on(self) -> None:
        self._next_turn = None
        self.paused = False
        if not (self._handlingRequest or self._waitingForTransport or self.conversation.closing):
            self._networkProducer.resumeProducing()
            self.dataReceived(b"")

    # What ends it

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002 - Twisted's interface
        """The request line or a header is too long; Twisted would only close."""
        self.cut(heads.HEAD_TOO_LARGE if self.requests else heads.LINE_TOO_LONG)

    def _respondToBadRequestAndDisconnect(self) -> None:
        """This is no HTTP, or has too many headers; Twisted would answer with a bare 400."""
        self._cut_head(heads.NO_HTTP)

    def _cut_head(self, problem: Cut) -> None:
        large = self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders
        self.cut(heads.HEAD_TOO_LARGE if large and problem is heads.NO_HTTP else problem)

    def cut(self, why: Cut) -> None:
        """Answer in place of any resource, read no more, and close."""
        self.conversation.cut(why)

    def loseConnection(self) -> None:
        """Read no more, and close when what was written has been taken; do not wait for that for ever."""
        self.conversation.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed, by whomever."""
        self.conversation.over()
        if self._next_turn is not None:
            self._next_turn.cancel()
        self.site.channels.discard(self)
        self.site.connections.left(self._host)
        super().connectionLost(reason)

    def close_when_idle(self) -> None:
        """Close now if no request is being answered, else behind its answer, which says so."""
        if self.conversation.state is State.ANSWERING:
            self.persistent = False
            self.requests[0].responseHeaders.setRawHeaders(b"Connection", [b"close"])
        else:
            self.loseConnection()
