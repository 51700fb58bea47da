"""A connection that Twisted parses: its parser, which is laxer, is held to the rules of `heads` and `reception`."""

# mypy: allow-untyped-calls
# (What Twisted's own classes leave without types; mypy's list of exceptions does not reach calls by `super`.)

from typing import Final

from twisted.web.server import Request

from axcollector import heads
from axcollector.channel import BoundedChannel, IngestRequest
from axcollector.heads import Cut

_CHUNKED_SLICE_BYTES: Final = 4096
"""So much of a chunked body is taken apart before its framing is looked at."""


class TwistedChannel(BoundedChannel):
    """A connection, parsed by Twisted."""

    totalHeadersSize = heads.MAX_HEAD_BYTES  # noqa: N815 - Twisted's name
    maxHeaders = heads.MAX_FIELDS  # noqa: N815 - likewise

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
        problem = self._problem_of(self._version, self.length, request.values_of)
        if problem is not None:
            self.cut(problem)
        else:
            super().allHeadersReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Whether the connection stays open behind the answer."""
        assert isinstance(request, IngestRequest)
        persists = self._persists(version, request.values_of)
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

    def allContentReceived(self) -> None:
        """A request is there, whole."""
        trailers = getattr(self._transferDecoder, "_trailerHeaders", ())
        if any(heads.field_problem(bytes(line)) for line in trailers):
            self.cut(heads.NO_HTTP)
        if not self.conversation.closing:  # else it was answered already, and nothing more is to be said
            self.conversation.received()
            super().allContentReceived()

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002 - Twisted's interface
        """The request line or a header is too long; Twisted would only close."""
        self.cut(heads.HEAD_TOO_LARGE if self.requests else heads.LINE_TOO_LONG)

    def _respondToBadRequestAndDisconnect(self) -> None:
        """This is no HTTP, or has too many headers; Twisted would answer with a bare 400."""
        self._cut_head(heads.NO_HTTP)

    def _cut_head(self, problem: Cut) -> None:
        large = self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders
        self.cut(heads.HEAD_TOO_LARGE if large and problem is heads.NO_HTTP else problem)

    def requestDone(self, request: Request) -> None:
        """A request is answered."""
        super().requestDone(request)
        self._close_if_done()
