"""A connection that llhttp parses (PyPI's httptools: what Node parses with), held to our limits.

llhttp does not say where in what it was fed a request ends, nor does it show the lines that it takes apart, and what it
takes is not quite what `heads` allows. So here the ends are found, which is little work: that of a head is an empty
line, that of a body its length, or those of its chunks. What stands between them is judged by `heads` and
`reception`, as it is for Twisted's parser, and taken apart by llhttp.

What the door knows the route of is answered without a Request of Twisted's, which is several times as much work as
the rest. Everything else becomes one, and goes to the site's resource.

A client that sends one head again and again has it taken apart twice, and then only compared: `usual_channel`, which
leaves to this module what it does not take.
"""

# mypy: allow-untyped-calls
# (What Twisted's own classes leave without types; mypy's list of exceptions does not reach calls by `super`.)

from typing import Final

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.server import Request

from axcollector import heads
from axcollector.answers import Answer
from axcollector.channel import BEHIND_BYTES, IngestRequest
from axcollector.heads import Cut
from axcollector.llhttp_parts import Chunks, Message, NotHTTP
from axcollector.reception import Incoming
from axcollector.running import Running
from axcollector.usual_channel import UsualChannel

_END: Final = b"\r\n"


class LlhttpChannel(UsualChannel):
    """A connection, parsed by llhttp."""

    _message: Message | None = None
    _chunks: Chunks | None = None
    _left = 0
    _running: Running[Answer] | None = None

    # What comes

    def dataReceived(self, data: bytes) -> None:
        """Bytes of a request, or of several; what comes while the connection is being closed is dropped."""
        if self._usual is not None and self._take_usual(self._usual, data):
            return
        self._take_any(data)

    def _take_any(self, data: bytes) -> None:
        """Take bytes that are not, or no more, of a usual request."""
        if self.conversation.closing:
            return
        if self._handlingRequest:
            self._keep_behind(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if not self._busyReceiving:
            self._answered = 0
            self._read()

    def _read(self) -> None:
        """Take what has come, one request after the other, until one is being answered or more must come."""
        if self._busyReceiving:
            return
        self._busyReceiving = True
        try:
            while self._buffer and not (self._handlingRequest or self.paused or self.conversation.closing):
                if not self._take():
                    break
        finally:
            self._busyReceiving = False
        if self._buffer or self._message is not None:
            self.conversation.begun()

    def _take(self) -> bool:
        """Take what stands next; False where more must come to tell."""
        if self._message is None:
            return self._take_head()
        if self._chunks is not None:
            return self._take_of_chunks(self._message, self._chunks)
        return self._take_of_body(self._message)

    def _take_head(self) -> bool:
        if not self._blank_seen and self._buffer.startswith(_END):
            self._blank_seen = True
            self._buffer = self._buffer[len(_END) :]
            return True
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return self._cut_for(heads.unfinished_problem(self._buffer))
        head, self._buffer = self._buffer[: end + 2], self._buffer[end + 4 :]
        self._blank_seen = False
        problem = heads.lines_problem(head)
        if problem is None:
            try:
                self._begin(Message(head, Incoming(self.site.max_body_bytes, self.site.pending)))
            except NotHTTP:
                problem = heads.NO_HTTP
        return not self._cut_for(problem)

    def _begin(self, message: Message) -> None:
        """A head is there; its body comes next, if it has one."""
        length = message.length
        problem = self._problem_of(message.version, length, message.values_of)
        if problem is not None:
            self.cut(problem)
            return
        self._message = message
        self.persistent = self._persists(message.version, message.values_of)
        message.incoming.announce(length)
        if message.version == b"HTTP/1.1" and message.values_of(b"expect"):
            self._outlet.others_write()
            self._send100Continue()
        self._chunks = Chunks(message.incoming) if length is None else None
        self._left = length or 0
        if length == 0:
            self._give(message)

    def _take_of_body(self, message: Message) -> bool:
        data, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(data)
        if self._cut_for(message.incoming.add(data)):
            return False
        if not self._left:
            self._give(message)
        return True

    def _take_of_chunks(self, message: Message, chunks: Chunks) -> bool:
        data, start, length = self._buffer, 0, 1
        while length and start < len(data) and not (chunks.complete or chunks.problem):
            length = chunks.take(data, start)
            start += length
        self._buffer = data[start:]  # once: there may be thousands of chunks in one read
        if self._cut_for(chunks.problem):
            return False
        if chunks.complete:
            self._give(message)
        return length > 0

    def _cut_for(self, problem: Cut | None) -> bool:
        """Cut the connection if there is a problem. Whether there is."""
        if problem is not None:
            self.cut(problem)
        return problem is not None

    # What is answered

    def _give(self, message: Message) -> None:
        """A request is there, whole: to the door, if that knows its route."""
        self.conversation.received()
        self._handlingRequest = True
        self.persistent = self.persistent and not self.site.is_draining  # which may have begun behind the head
        self._chunks = None
        message.incoming.content.seek(0)
        door = self.site.door
        route = None
        if door is not None and message.method == b"POST":
            route = door.route(message.path)
        if door is None or route is None:
            self._give_to_resource(message)
            return
        running = Running(door.answer(route, message), self._answer)
        if self._message is message:  # it waits
            self._running = running

    def _give_to_resource(self, message: Message) -> None:
        """Have the site's resource answer, which wants a Request."""
        self._message = None
        self._outlet.others_write()
        request = IngestRequest(self)
        request.incoming = message.incoming
        request.content = message.incoming.content
        for name, value in message.fields:
            request.requestHeaders.addRawHeader(name, value)
        request.parseCookies()
        if not self.persistent:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self.requests.append(request)
        request.requestReceived(message.method, message.target, message.version)

    def requestDone(self, request: Request) -> None:
        """A request is answered."""
        super().requestDone(request)
        self._read()
        self._close_if_done()

    def _answer(self, answer: Answer) -> None:
        """A request is answered by the door."""
        message, self._message, self._running = self._message, None, None
        assert message is not None
        message.incoming.drop()
        if answer.status == 200 and self.persistent:
            self._learn(message)
        self._answer_with(self._whole(answer, message.version))

    def _answer_with(self, data: bytes) -> None:
        """Send an answer, and go on with what came behind its request.

        The hot path: it may not make a Request or `Headers`, nor leave to the reactor what can be sent now.
        """
        self._outlet.send(data)
        resume = self._behind > BEHIND_BYTES
        self._note_answered()
        self._handlingRequest = False
        if not self.persistent:
            self.loseConnection()
        elif self.paused:
            self._networkProducer.pauseProducing()
        elif resume:
            self._networkProducer.resumeProducing()
        if self._dataBuffer:
            self._buffer += b"".join(self._dataBuffer)
            self._dataBuffer = []
        if self._buffer:
            self._read()
        if self._sends_no_more:
            self._close_if_done()

    # What ends it

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed, by whomever."""
        message, self._message = self._message, None
        running, self._running = self._running, None
        super().connectionLost(reason)
        if message is not None:
            message.incoming.drop()
        if running is not None:
            running.cancel()
