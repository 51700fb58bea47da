"""Bodies of answers: bounded, or handed on while somebody slower takes them."""

from typing import Any

import pytest
from twisted.internet import defer
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed

from axcollector.stores.receiving import PIECES_WAITING, Sink, received
from tests.fakes import result_of


class Connection:
    """The transport of a body that comes when the test says so; also the response."""

    def __init__(self) -> None:
        self.is_paused = False
        self.is_closed = False

    def deliverBody(self, receiver: Any) -> None:
        self.receiver = receiver
        receiver.makeConnection(self)

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False

    def loseConnection(self) -> None:
        self.is_closed = True

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.receiver.dataReceived(piece)

    def end(self, reason: Exception | None = None) -> None:
        self.receiver.connectionLost(Failure(reason or ResponseDone()))


class Slow:
    """A sink that puts pieces away when told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, defer.Deferred[object]]] = []

    def __call__(self, data: bytes) -> "defer.Deferred[object]":
        self.taken.append((data, defer.Deferred()))
        return self.taken[-1][1]


def begun(limit_bytes: int, sink: Sink | None = None) -> "tuple[Connection, defer.Deferred[tuple[bytes, bool]]]":
    """A connection, and what is received over it."""
    connection = Connection()
    return connection, received(connection, lambda: None, limit_bytes, sink)  # type: ignore[arg-type]


def test_a_body_is_kept_up_to_its_limit() -> None:
    """All of it where it fits; else its beginning, and the connection is given up."""
    connection, done = begun(4)
    connection.send(b"ab", b"cd")
    connection.end()
    assert result_of(done) == (b"abcd", True)
    connection, done = begun(4)
    connection.send(b"abc", b"def", b"ghi")
    connection.end()
    assert result_of(done) == (b"abcd", False)
    assert connection.is_closed


def test_a_sink_slows_the_sender_down() -> None:
    """No more is received than it can take; the end waits for the last piece."""
    slow = Slow()
    connection, done = begun(1000, slow)
    connection.send(*[b"x"] * PIECES_WAITING)
    assert not connection.is_paused
    connection.send(b"y")
    assert connection.is_paused
    slow.taken[0][1].callback(None)
    assert not connection.is_paused
    connection.end()
    for _, put_away in slow.taken[1:]:
        assert not done.called
        put_away.callback(None)
    assert result_of(done) == (b"", True)


def test_a_sink_gets_no_more_than_the_limit() -> None:
    """What comes after it is not handed on, also while pieces wait."""
    slow = Slow()
    connection, done = begun(3, slow)
    connection.send(b"ab", b"cd", b"ef")
    connection.end(ResponseFailed([]))
    assert connection.is_closed
    assert [data for data, _ in slow.taken] == [b"ab", b"c"]
    for _, put_away in slow.taken:
        put_away.callback(None)
    assert result_of(done) == (b"", False)


def test_a_sink_that_fails_ends_it() -> None:
    """With what it failed with, whatever becomes of the other pieces."""
    slow = Slow()
    connection, done = begun(1000, slow)
    connection.send(b"ab", b"cd", b"ef")
    slow.taken[0][1].errback(ZeroDivisionError())
    slow.taken[1][1].errback(ZeroDivisionError())
    slow.taken[2][1].callback(None)
    assert connection.is_closed
    connection.end()
    with pytest.raises(ZeroDivisionError):
        result_of(done)


def test_a_cut_body_is_no_body() -> None:
    """It fails with what cut it."""
    connection, done = begun(1000)
    connection.send(b"ab")
    connection.end(ResponseFailed([]))
    with pytest.raises(ResponseFailed):
        result_of(done)
