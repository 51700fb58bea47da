"""The body of an answer: kept in memory up to a limit, or handed on piece by piece, in constant memory."""

from collections.abc import Callable
from typing import cast

from twisted.internet import defer
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web import client, http
from twisted.web.iweb import IResponse

Sink = Callable[[bytes], "defer.Deferred[object]"]
"""Takes the next piece of a body; the Deferred fires when it has been put away, or fails with why it cannot be."""

PIECES_WAITING = 16
"""While more pieces than this have not been put away, no more are received."""


def received(
    response: IResponse, moved: Callable[[], None], limit_bytes: int, sink: Sink | None
) -> "defer.Deferred[tuple[bytes, bool]]":
    """Receive a body.

    Args:
        response: Whose body.
        moved: Called when a piece comes.
        limit_bytes: How much of it is wanted; of a longer one the rest is not received.
        sink: Who takes the pieces, or None: they are kept.

    Fires with what was kept, and whether that (or what the sink has put away) is all of the body.
    Fails with what ended it, or with what the sink failed with. Cancelling closes the connection.
    """
    receiver = _Kept(moved, limit_bytes) if sink is None else _HandedOn(moved, limit_bytes, sink)
    response.deliverBody(receiver)
    return receiver.done


class _Kept(Protocol):
    def __init__(self, moved: Callable[[], None], limit_bytes: int) -> None:
        self._moved = moved
        self._pieces: list[bytes] = []
        self._left = limit_bytes
        self.done: defer.Deferred[tuple[bytes, bool]] = defer.Deferred(lambda _: self._leave())

    def dataReceived(self, data: bytes) -> None:
        if self.done.called or self._left < 0:
            return
        self._moved()
        self._take(data[: self._left])
        self._left -= len(data)
        if self._left < 0:
            self._end(is_whole=False)
            self._leave()

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)

    def _leave(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def _end(self, *, is_whole: bool) -> None:
        self.done.callback((b"".join(self._pieces), is_whole))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called or self._left < 0:
            return
        if reason.check(client.ResponseDone, http.PotentialDataLoss):
            self._end(is_whole=True)
        else:
            self.done.errback(reason)


class _HandedOn(_Kept):
    """Ends when the sink has put away all that came."""

    def __init__(self, moved: Callable[[], None], limit_bytes: int, sink: Sink) -> None:
        super().__init__(moved, limit_bytes)
        self._sink = sink
        self._waiting = 0
        self._is_whole: bool | None = None

    def _take(self, data: bytes) -> None:
        self._waiting += 1
        if self._waiting > PIECES_WAITING:
            cast("IPushProducer", self.transport).pauseProducing()
        self._sink(data).addCallbacks(lambda _: self._put_away(), self._refused)

    def _put_away(self) -> None:
        self._waiting -= 1
        if self.done.called:
            return
        if self._is_whole is not None:
            self._end(is_whole=self._is_whole)
        elif self._waiting == PIECES_WAITING:
            cast("IPushProducer", self.transport).resumeProducing()

    def _refused(self, failure: Failure) -> None:
        if not self.done.called:
            self.done.errback(failure)
            self._leave()

    def _end(self, *, is_whole: bool) -> None:
        self._is_whole = is_whole
        if not self._waiting:
            super()._end(is_whole=is_whole)
