"""How many connections there may be, in all and from one address; what is over gets a 503 and is closed.

Each takes a file descriptor, and a process that has none left can neither open a journal nor deliver. So the limit is
never more than the process's own limit of open files leaves, and those turned away are few at a time: beyond
`_MOST_TURNED_AWAY` they are closed without a word.
"""

import resource
from collections import Counter
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector import answers

OWN_DESCRIPTORS: Final = 256
"""So many are kept for files, uploads, listeners and what a host program opens."""
RETRY_SECONDS: Final = 5
TURNED_AWAY_SECONDS: Final = 1
"""So long one that is turned away may take to read why, and to send what it was about to: a connection that is closed
with bytes unread is reset, and the answer may be lost with it."""
_MOST_TURNED_AWAY: Final = 64
_QUIET_SECONDS: Final = 60

_FULL: Final = answers.raw(
    b"503 Service Unavailable",
    "OVERLOADED",
    "There are too many connections already (max_connections, max_connections_per_address)",
    (b"Retry-After: %d" % RETRY_SECONDS,),
)


def open_files_limit() -> int:
    """How many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def fitting(wanted: int, open_files: int) -> int:
    """How many connections there may be where so many files may be open.

    Args:
        wanted: `max_connections`.
        open_files: The process's limit; negative: none.
    """
    if open_files < 0:
        return wanted
    return max(1, min(wanted, max(open_files - OWN_DESCRIPTORS, open_files // 2)))


def host_of(address: IAddress | None) -> str | None:
    """What connections are counted by: the address without its port; None where there is none, as of unix sockets."""
    return getattr(address, "host", None)


class Connections:
    """Counts connections.

    Attributes:
        count: How many there are.
        refused: How many were one too many since the start.
        turned_away: Those that are being told so.
        changed: Told how many there are, whenever that has changed; None: nobody.
    """

    _log = Logger()
    changed: Callable[[int], object] | None = None

    def __init__(
        self, clock: IReactorTime, most: int, most_per_address: int, limit_name: str = "max_connections"
    ) -> None:
        """There is none yet.

        Args:
            clock: Schedules time.
            most: How many there may be in all; 0: any number.
            most_per_address: How many from one address; 0: any number.
            limit_name: What logs call `most`.
        """
        self._clock = clock
        self._limit_name = limit_name
        self._most = most
        self._most_per_address = most_per_address
        self._by_host: Counter[str] = Counter()
        self._quiet_until = 0.0
        self.count = 0
        self.refused = 0
        self.turned_away: set[TurnedAway] = set()

    def has_room(self, host: str | None) -> bool:
        """Whether there may be one more, from this host."""
        if self._most and self.count >= self._most:
            return self._full("{limit} connections are open ({name}); more get 503", self._most, None)
        if self._most_per_address and host is not None and self._by_host[host] >= self._most_per_address:
            return self._full(
                "{limit} connections from {host} are open (max_connections_per_address); more get 503",
                self._most_per_address,
                host,
            )
        return True

    def _full(self, text: str, limit: int, host: str | None) -> bool:
        """Count it, and log that it is full, now and then."""
        self.refused += 1
        now = self._clock.seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            self._log.warn(text, limit=limit, host=host, name=self._limit_name)
        return False

    def entered(self, host: str | None) -> None:
        """There is one more."""
        self.count += 1
        if host is not None and self._most_per_address:
            self._by_host[host] += 1
        if self.changed is not None:
            self.changed(self.count)

    def left(self, host: str | None) -> None:
        """There is one less."""
        self.count -= 1
        if host is not None and self._most_per_address:
            self._by_host[host] -= 1
            if not self._by_host[host]:
                del self._by_host[host]
        if self.changed is not None:
            self.changed(self.count)

    def turn_away(self) -> "TurnedAway | None":
        """What tells a connection that there is no room for it; None: it is to be closed as it is."""
        return TurnedAway(self._clock, self.turned_away) if len(self.turned_away) < _MOST_TURNED_AWAY else None


class TurnedAway(Protocol):
    """A connection that is one too many: is told so, and closed a moment later."""

    transport: ITCPTransport
    _end: IDelayedCall | None = None

    def __init__(self, clock: IReactorTime, others: "set[TurnedAway]") -> None:
        self._clock = clock
        self._others = others

    def connectionMade(self) -> None:
        """Say so at once; what is sent is dropped."""
        self._others.add(self)
        self.transport.write(_FULL)
        self._end = self._clock.callLater(TURNED_AWAY_SECONDS, self._close)

    def _close(self) -> None:
        self._end = self._clock.callLater(TURNED_AWAY_SECONDS, self._abort)
        self.transport.loseConnection()

    def _abort(self) -> None:
        self._end = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted's interface
        """It is closed."""
        self._others.discard(self)
        if self._end is not None:
            self._end.cancel()
            self._end = None
