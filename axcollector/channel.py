"""A connection that is held to our limits, whatever parses it: the side that answers, and its requests.

What a head has to be is in `heads`, how large bodies may be in `reception`, how long a connection may take in
`conversation`. `twisted_channel` and `llhttp_channel` add the side that receives, each with its parser.

Requests sent without waiting for answers are answered one by one. While one is being answered, or answers are not
taken, the connection is not read from once `BEHIND_BYTES` of what follows have come; and after `_REQUESTS_A_TURN` the
others get theirs.

A client that sends no more (`shutdown(SHUT_WR)`, as some do behind a request) gets its answers all the same. It cannot
be told from one that has gone until something is sent to it: so what it has asked, whole, is answered.
"""

# mypy: allow-untyped-calls
# (What Twisted's own classes leave without types; mypy's list of exceptions does not reach calls by `super`.)

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request
from zope.interface import implementer

from axcollector import heads
from axcollector.answers import Answer
from axcollector.connections import Connections, host_of
from axcollector.conversation import Conversation, State, Wire
from axcollector.core.tally import Tally
from axcollector.door import Door
from axcollector.heads import Cut
from axcollector.reception import Incoming, Pending, Reception

BEHIND_BYTES: Final = 0x4000
"""So much (and what is in one read) is kept of what follows a request that is being answered: by reading on we learn
soon when a client hangs up."""
_MOST_PIECES: Final = 64
_REQUESTS_A_TURN: Final = 16
"""So many requests of one connection are answered before others are looked at; one read may hold thousands."""


class Bounds(Protocol):
    """What a connection asks of its site."""

    reactor: IReactorTime
    max_body_bytes: int
    request_timeout_seconds: float
    pending: Pending
    connections: Connections
    channels: "set[BoundedChannel]"
    is_draining: bool
    large_readers: int
    door: Door | None
    tally: Tally

    def usual_headers(self) -> bytes:
        """The lines of the headers that every answer has."""
        ...

    def usual_answer(self, answer: Answer) -> bytes:
        """An answer as it is sent over HTTP/1.1 on a connection that stays open."""
        ...


class IngestRequest(Request):
    """A request whose body is counted while it comes."""

    channel: "BoundedChannel"
    content: BytesIO

    def __init__(self, channel: "BoundedChannel", *arguments: object, **keywords: object) -> None:
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


@implementer(IHalfCloseableProtocol)
class BoundedChannel(HTTPChannel):
    """A connection: how its requests are answered, in turns, and how it ends."""

    site: Bounds
    transport: ITCPTransport
    timeOut = None  # noqa: N815 - Twisted's name; the conversation has the time
    conversation: Conversation
    _host: str | None = None
    _answered = 0
    _behind = 0
    _sends_no_more = False
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
            Wire(self.transport.write, super().loseConnection, self.transport.abortConnection, self._count_cut),
        )
        super().connectionMade()

    def _persists(self, version: bytes, values_of: heads.ValuesOf) -> bool:
        """Whether the connection stays open behind the answer."""
        return heads.persists(version, values_of) and not self.site.is_draining

    def _problem_of(self, version: bytes, length: int | None, values_of: heads.ValuesOf) -> Cut | None:
        """What is wrong with a head of which each line is right, or with a body that its client waits to send."""
        problem = heads.problem(version, values_of)
        if problem is None and length and length > self.site.max_body_bytes and values_of(b"expect"):
            return heads.NOT_WANTED
        return problem

    def _keep_behind(self, data: bytes) -> None:
        """Bytes have come behind a request that is being answered."""
        self._dataBuffer.append(data)
        self._behind += len(data)
        if len(self._dataBuffer) > _MOST_PIECES:
            self._dataBuffer[:] = [b"".join(self._dataBuffer)]
        if self._behind > BEHIND_BYTES and not self._waitingForTransport:
            self._networkProducer.pauseProducing()

    # What is answered

    def _note_answered(self) -> None:
        """A request is answered; what came behind it is read when its turn comes and answers are taken."""
        self.conversation.answered()
        self._answered += 1
        self._behind = 0
        if self._waitingForTransport or self._answered >= _REQUESTS_A_TURN:
            self.paused = True
            if self._next_turn is None and not self._waitingForTransport:
                self._next_turn = self.site.reactor.callLater(0, self._go_on)

    def requestDone(self, request: Request) -> None:
        """A request is answered."""
        self._note_answered()
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
            self._close_if_done()

    # What ends it

    def readConnectionLost(self) -> None:
        """The client sends no more; said again where it is tried to read more."""
        if not self._sends_no_more:
            self._sends_no_more = True
            self.conversation.sends_no_more()
        self._close_if_done()

    def writeConnectionLost(self) -> None:
        """We send no more, which is never so while the connection is open."""

    def _close_if_done(self) -> None:
        """Close where nothing can be asked any more and all that was asked is answered; called behind each answer."""
        if self._sends_no_more and not (self._busyReceiving or self.paused or self._handlingRequest):
            self.loseConnection()

    def _count_cut(self, why: Cut) -> None:
        self.site.tally.answered("other", int(why.status[:3]), why.code)

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
            for request in self.requests[:1]:
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        else:
            self.loseConnection()
