"""A worker's pipes to its parent: what that says comes in, reports and the lines of the log go out."""

from typing import Protocol

from twisted.internet import protocol
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.protocol import connectionDone
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from axcollector.core.messages import Order, Orders, Report, Said, frame
from axcollector.log_json import fields_of, plain, traceback_of


class Told(Protocol):
    """Whoever does what the parent says."""

    def take(self, order: Order) -> None:
        """Do it."""
        ...

    def leave(self, *, gently: bool) -> None:
        """End; the parent is gone."""
        ...


@implementer(ILogObserver)
class ParentPipe(protocol.Protocol):
    """The pipes to the parent; also what observes the log.

    Attributes:
        work: Is given what the parent says, and told when it is gone.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        """Nothing is connected yet; the reactor is the one in whose thread is written."""
        self._reactor = reactor
        self._orders = Orders()
        self.work: Told | None = None

    def dataReceived(self, data: bytes) -> None:
        """The parent has said something."""
        assert self.work is not None
        for order in self._orders.feed(data):
            self.work.take(order)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted's interface
        """The parent is gone."""
        assert self.work is not None
        self.work.leave(gently=False)

    def report(self, report: Report) -> None:
        """Say something to the parent."""
        if self.transport is not None:
            self.transport.write(frame(report))

    def __call__(self, event: LogEvent) -> None:
        """Pass a log event on; from whatever thread it comes."""
        said = Said(
            event.get("log_level", LogLevel.info).name,
            plain(event.get("log_namespace", "")),
            plain(formatEvent(event)),
            plain(event.get("log_format") or ""),
            fields_of(event),
            plain(traceback_of(event)),
        )
        self._reactor.callFromThread(self.report, said)
