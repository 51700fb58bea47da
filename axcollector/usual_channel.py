"""The short way of a request whose head is the one that its connection always has, but for the path (`usual`).

Its body is offered to the door, once it is there, as the usual request that it nearly always is. Where it is not, or
anything else is other than usual, all that has come of it is taken as any other request, from its first byte.
"""

# mypy: allow-untyped-calls
# (What Twisted's own classes leave without types; mypy's list of exceptions does not reach calls by `super`.)

from typing import Final

from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from axcollector import answers, usual
from axcollector.answers import Answer
from axcollector.channel import BoundedChannel
from axcollector.conversation import State
from axcollector.core import plain
from axcollector.llhttp_parts import Message
from axcollector.outlet import Outlet
from axcollector.usual import Coming, Head, Usual

_LARGE_READ_BYTES: Final = 1 << 18
"""So much is read at once from a connection whose requests may be larger than what is read from others."""
_MOST_LARGE_READERS: Final = 256
"""So many connections are read from like that. What one read brings behind a request waits uncounted, and there may be
thousands of connections."""


class UsualChannel(BoundedChannel):
    """A connection, as far as its requests are the usual ones."""

    _outlet: Outlet
    _seen: Head | None = None
    _usual: Usual | None = None
    _coming: Coming | None = None
    _blank_seen = False
    _held = 0
    _is_over = False
    _reads_large = False

    def connectionMade(self) -> None:
        """The connection is open."""
        self._outlet = Outlet(self.transport)
        super().connectionMade()

    def _take_any(self, data: bytes) -> None:
        """Take bytes that are not, or no more, of a usual request."""
        raise NotImplementedError

    def _answer_with(self, data: bytes) -> None:
        """Send an answer, and go on with what came behind its request."""
        raise NotImplementedError

    def _take_usual(self, known: Usual, data: bytes) -> bool:
        """Take a request with the head that is known, or a piece of it; False: it is something else, nothing was done.

        The hot path: it may neither take a head apart nor make an object for a request, but the body; and, where the
        path is another than the last one's, what that asks.
        """
        if self._coming is not None:
            self._take_more(known, self._coming, data)
            return True
        if self.conversation.state is not State.IDLE or self._buffer or self._dataBuffer:
            return False
        if self.paused or self._blank_seen:
            return False
        site = self.site
        start, length = known.places(data)
        if not start and site.door is not None and (elsewhere := known.elsewhere(data, site.door)) is not None:
            self._usual = known = elsewhere
            start, length = known.places(data)
        missing = start + length - len(data)
        if not start or missing < 0 or site.door is None or site.is_draining:
            return False
        if length > plain.MOST_BYTES or length > site.max_body_bytes:  # it is no usual one, and joining it takes long
            return False
        if not site.pending.reserve(len(data) - start):
            return False
        self._held = len(data) - start
        if missing:
            self._coming = Coming(data, start, missing)
            self.conversation.begun()
            return True
        return self._give_usual(known, data[start:])

    def _take_more(self, known: Usual, coming: Coming, data: bytes) -> None:
        """More has come of a request with the head that is known."""
        if self.conversation.closing:
            return
        fits = coming.fits(data) and self.site.pending.reserve(len(data))
        self._held += len(data) if fits else 0
        coming.add(data)
        if fits and coming.missing:
            return
        self._coming = None
        if not (fits and not self.site.is_draining and self._give_usual(known, coming.body())):
            self._drop_held()
            self._take_any(coming.whole())

    def _give_usual(self, known: Usual, body: bytes) -> bool:
        """Have the door keep a usual request, for whose body there is room; False: it is none, and nothing was done."""
        door = self.site.door
        batch = None if door is None else door.usual_batch(known.asked, body)
        if door is None or batch is None:
            self._drop_held()
            self._usual = None  # until a request with it is taken again
            return False
        self._answered = 0
        self._handlingRequest = True
        self.conversation.received()
        door.keep(known.asked, batch, self._answer_usual)
        return True

    def _answer_usual(self, answer: Answer) -> bool:
        """A usual request is answered, unless its client has gone; whether it is."""
        if self._is_over:
            return False
        self._drop_held()
        is_usual = self.persistent and not answer.headers
        self._answer_with(self.site.usual_answer(answer) if is_usual else self._whole(answer, b"HTTP/1.1"))
        return True

    def _whole(self, answer: Answer, version: bytes) -> bytes:
        return answers.whole(answer, version, self.site.usual_headers(), persistent=bool(self.persistent))

    def _learn(self, message: Message) -> None:
        """A request was taken: remember its head, if it was the last one's too."""
        if self._usual is not None or self.site.door is None:
            return
        head = usual.head_of(message)
        if head is not None and head == self._seen:
            self._usual = usual.known(head, message, self.site.door)
            self._read_large(message.length or 0)
        self._seen = head

    def _read_large(self, length: int) -> None:
        """Read more at once, where bodies of this length are usual and not too many connections do so already.

        TLS brings what it brings: a record at a time.
        """
        site, transport = self.site, self.transport
        if self._reads_large or not isinstance(transport, Connection) or length <= transport.bufferSize // 2:
            return
        if site.large_readers < _MOST_LARGE_READERS:
            site.large_readers += 1
            self._reads_large = True
            transport.bufferSize = _LARGE_READ_BYTES

    def _drop_held(self) -> None:
        self.site.pending.held -= self._held
        self._held = 0

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed, by whomever."""
        super().connectionLost(reason)
        self._is_over = True
        self._coming = None
        self.site.large_readers -= self._reads_large
        self._drop_held()
