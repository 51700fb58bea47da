"""Our Site: limits that hold while a request is still being received.

Bodies are kept in memory (Twisted would write those without a Content-Length to a file, in the reactor thread) and
counted: one that is larger than allowed, or that would make all bodies together larger than allowed, is read and
dropped, so that its client can read the answer; past twice the limit the connection is cut. A request that is not
received whole in time is cut too. What was found is left on the request as `reception`, for the resource to say it at
the right place among its own checks. A resource that is mounted in another program's Site finds no `reception`; there
only its own checks apply.

A connection is, by turns, idle (bounded by `IDLE_SECONDS`), receiving a request (by `request_timeout_seconds`),
answering it (by nothing: the resource answers in its own time), and closing (by `_LINGER_SECONDS`, whoever closes it).
"""

# mypy: allow-untyped-calls
# (What Twisted's own classes leave without types; mypy's list of exceptions does not reach calls by `super`.)

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from axcollector import answers

IDLE_SECONDS = 75
"""A connection on which nothing happens for so long is closed; most clients give up after 60 s themselves."""
_LINGER_SECONDS = 5
"""So long a connection that is being closed may take to take our last answer."""


@dataclass(slots=True)
class Pending:
    """The bytes of bodies that are being received or wait for their answer, of all connections together."""

    limit: int
    held: int = 0

    def reserve(self, count: int) -> bool:
        """Whether there is room for `count` bytes more; they are held if so."""
        if self.held + count > self.limit:
            return False
        self.held += count
        return True


@dataclass(slots=True)
class Reception:
    """What was found while a body was received.

    Attributes:
        oversize: It is larger than allowed, and was dropped.
        shed: There was no room for it, and it was dropped.
    """

    oversize: bool = False
    shed: bool = False


class IngestRequest(Request):
    """A request whose body is counted while it comes.

    Attributes:
        reception: What was found.
    """

    channel: "IngestChannel"
    content: BytesIO

    def __init__(self, channel: "IngestChannel", *arguments: object, **keywords: object) -> None:
        super().__init__(channel, *arguments, **keywords)
        self.reception = Reception()
        self._limit = channel.site.max_body_bytes
        self._pending = channel.site.pending
        self._received = 0
        self._held = 0

    def gotLength(self, length: int | None) -> None:
        """The headers are there; `length` is that of the body, where it was announced."""
        self.content = BytesIO()
        self.reception.oversize = length is not None and length > self._limit

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body has come."""
        self._received += len(data)
        if self._received > self._limit:
            self._drop()
            self.reception.oversize = True
            if self._received > 2 * self._limit:
                self.channel.cut(b"413 Content Too Large", "PAYLOAD_TOO_LARGE", "The body is far too large")
        elif not (self.reception.oversize or self.reception.shed):
            if self._pending.reserve(len(data)):
                self._held += len(data)
                self.content.write(data)
            else:
                self._drop()
                self.reception.shed = True

    def process(self) -> None:
        """The request is there, whole. Absolute URIs are taken for the path they name, and `*` for one of that name."""
        if self.path.lower().startswith((b"http://", b"https://")):
            self.path = b"/" + self.path.partition(b"//")[2].partition(b"/")[2]
        elif not self.path.startswith(b"/"):
            self.path = b"/" + self.path
        if self.channel.site.is_draining:
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")
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

    def _drop(self) -> None:
        """Hold the body no longer."""
        self._pending.held -= self._held
        self._held = 0
        self.content = BytesIO()


class IngestChannel(HTTPChannel):
    """A connection on which each request has a limited time to come."""

    site: "IngestSite"
    transport: ITCPTransport
    _deadline: IDelayedCall | None = None
    _lingering: IDelayedCall | None = None
    _answering = False

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        """How Twisted's part of this schedules."""
        return self.site.reactor.callLater(period, func)

    def connectionMade(self) -> None:
        """The connection is open."""
        self.site.channels.add(self)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Bytes of a request, or of several; what comes while the connection is being closed is dropped."""
        if self._lingering is None:
            super().dataReceived(data)
            self._limit_time()

    def _limit_time(self) -> None:
        """A request of which anything has come, be it behind another one, has to come whole in time."""
        receiving = (self.requests or self._buffer) and not self._answering and self._lingering is None
        if receiving and self._deadline is None:
            self._deadline = self.site.reactor.callLater(self.site.request_timeout_seconds, self._too_slow)

    def allContentReceived(self) -> None:
        """A request is there, whole."""
        if self._lingering is None:  # else it was answered already, and nothing more is to be said
            self._answering = True
            self._cancel_deadline()
            super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        """A request is answered; what came behind it is read next."""
        self._answering = False
        super().requestDone(request)

    def timeoutConnection(self) -> None:
        """Nothing has happened for long. No log line: idle connections are no event."""
        if self._deadline is None:
            self.loseConnection()

    def _too_slow(self) -> None:
        self._deadline = None
        self.cut(b"408 Request Timeout", "BAD_DATA", "The request was not received whole in time (request_timeout)")

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002 - Twisted's interface
        """The request line or a header is too long; Twisted would only close."""
        self._cut_large_head()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """This is no HTTP, or has too many headers; Twisted would answer with a bare 400."""
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self._cut_large_head()
        else:
            self.cut(b"400 Bad Request", "BAD_DATA", "The request is not well-formed HTTP/1.1")

    def _cut_large_head(self) -> None:
        reason = f"The headers are more than {self.totalHeadersSize} bytes, or more than {self.maxHeaders}"
        self.cut(b"431 Request Header Fields Too Large", "BAD_DATA", reason)

    def cut(self, status: bytes, code: str, reason: str) -> None:
        """Answer in place of any resource, read no more, and close."""
        if self._lingering is None:
            self.transport.write(answers.raw(status, code, reason))
            self.loseConnection()

    def loseConnection(self) -> None:
        """Read no more, and close when what was written has been taken; do not wait for that for ever."""
        if self._lingering is None:
            self._cancel_deadline()
            self._lingering = self.site.reactor.callLater(_LINGER_SECONDS, self.transport.abortConnection)
            super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed, by whomever."""
        self._cancel_deadline()
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        self.site.channels.discard(self)
        super().connectionLost(reason)

    def _cancel_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def close_when_idle(self) -> None:
        """Close now if no request is being answered, else behind its answer, which says so."""
        if self._answering:
            self.persistent = False
            self.requests[0].responseHeaders.setRawHeaders(b"Connection", [b"close"])
        else:
            self.loseConnection()


class IngestSite(Site):
    """A Site that limits what it receives.

    Attributes:
        max_body_bytes: How large a body may be, as sent.
        request_timeout_seconds: How long a request may take to come, whole.
        pending: The bodies held by all connections.
        channels: The connections.
        is_draining: Whether connections are closed behind the next answer.
    """

    is_draining = False

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        *,
        max_body_bytes: int,
        max_pending_bytes: int,
        request_timeout_seconds: float,
    ) -> None:
        # Form parsing would give every Content-Type to the email package, and no route of ours wants it.
        super().__init__(resource, IngestRequest, timeout=IDLE_SECONDS, reactor=clock, parsePOSTFormSubmission=False)
        self.max_body_bytes = max_body_bytes
        self.request_timeout_seconds = request_timeout_seconds
        self.pending = Pending(max_pending_bytes)
        self.channels: set[IngestChannel] = set()

    def buildProtocol(self, addr: IAddress | None) -> IngestChannel:  # type: ignore[override]  # noqa: ARG002
        """A connection: the channel itself, without Twisted's switch for HTTP/2 around it."""
        channel = IngestChannel()
        channel.requestFactory = self.requestFactory
        channel.site = channel.factory = self
        channel.timeOut = IDLE_SECONDS
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """What to agree on over TLS: HTTP/1.1 only, whatever Twisted could do."""
        return [b"http/1.1"]

    def log(self, request: object) -> None:
        """Write no access log: it costs an eighth of the speed, and the metrics count requests."""

    def drain(self) -> None:
        """Close each connection behind its next answer, which says so."""
        self.is_draining = True

    def close_idle(self) -> None:
        """Close the connections on which nothing is being answered, and the others behind their answers."""
        for channel in list(self.channels):
            channel.close_when_idle()
