"""How long a connection may take for what it is about, and how it ends; whatever parses its requests.

It is, by turns, idle (bounded by `IDLE_SECONDS`), receiving a request (by `request_timeout`, however regularly bytes
come), answering it (by nothing: the resource answers in its own time), and closing (by `LINGER_SECONDS`, whoever closes
it, so that a client that takes no answers holds neither memory nor a place). A client that reads nothing is not read
from either, and its connection is idle, or receiving, for that long.

There is one timer, which is set when a bound is nearer than it, and looks again where the bound has moved.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from axcollector import answers
from axcollector.heads import TOO_SLOW, Cut

IDLE_SECONDS: Final = 75
"""A connection on which nothing happens for so long is closed; most clients give up after 60 s themselves."""
LINGER_SECONDS: Final = 5
"""So long a connection that is being closed may take to take our last answer."""
_EARLY_SECONDS: Final = 0.001


class State(enum.Enum):
    """What a connection is about."""

    IDLE = enum.auto()
    RECEIVING = enum.auto()
    ANSWERING = enum.auto()
    CLOSING = enum.auto()


@dataclass(frozen=True, slots=True)
class Wire:
    """What is done to the connection itself.

    Attributes:
        write: Send bytes.
        close: Close behind what was written.
        abort: Close at once.
        cut: Is told why a connection is cut.
    """

    write: Callable[[bytes], object]
    close: Callable[[], object]
    abort: Callable[[], object]
    cut: Callable[[Cut], object] = lambda _: None


class Conversation:
    """The state of one connection, and its end.

    Attributes:
        state: What it is about.
    """

    def __init__(self, clock: IReactorTime, request_timeout_seconds: float, wire: Wire) -> None:
        """It is idle.

        Args:
            clock: Tells and schedules time.
            request_timeout_seconds: How long a request may take to come, whole.
            wire: What it writes to, and closes.
        """
        self._clock = clock
        self._request_timeout = request_timeout_seconds
        self._wire = wire
        self._bound: float | None = None
        self._timer: IDelayedCall | None = None
        self.state = State.IDLE
        self._be(State.IDLE, IDLE_SECONDS)

    @property
    def closing(self) -> bool:
        """Whether nothing more is to be read, nor said."""
        return self.state is State.CLOSING

    def begun(self) -> None:
        """Something of a request has come; it has to come whole in time from now, unless its time runs already."""
        if self.state is State.IDLE:
            self._be(State.RECEIVING, self._request_timeout)

    def received(self) -> None:
        """A request is there, whole."""
        if self.state is not State.CLOSING:
            self.state = State.ANSWERING
            self._bound = None

    def sends_no_more(self) -> None:
        """The client sends no more, and may have gone; nobody says when it has."""
        if self.state is State.ANSWERING:
            self._be(State.ANSWERING, self._request_timeout)

    def answered(self) -> None:
        """It is answered."""
        if self.state is not State.CLOSING:
            self._be(State.IDLE, IDLE_SECONDS)

    def cut(self, why: Cut) -> None:
        """Answer in place of any resource, read no more, and close."""
        if not self.closing:
            self._wire.write(answers.raw(why.status, why.code, why.reason))
            self._wire.cut(why)
            self.close()

    def close(self) -> None:
        """Read no more, and close when what was written has been taken; do not wait for that for ever."""
        if not self.closing:
            self._be(State.CLOSING, LINGER_SECONDS)
            self._wire.close()

    def over(self) -> None:
        """The connection is closed, by whomever."""
        self._bound = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _be(self, state: State, seconds: float) -> None:
        self.state = state
        self._bound = bound = self._clock.seconds() + seconds
        if self._timer is None:
            self._timer = self._clock.callLater(seconds, self._due)
        elif self._timer.getTime() > bound:
            self._timer.reset(seconds)

    def _due(self) -> None:
        self._timer = None
        if self._bound is None:
            return
        left = self._bound - self._clock.seconds()
        if left > _EARLY_SECONDS:
            self._timer = self._clock.callLater(left, self._due)
        elif self.state is State.RECEIVING:
            self.cut(TOO_SLOW)
        elif self.state is State.IDLE:  # no log line: idle connections are no event
            self.close()
        else:
            self._wire.abort()
