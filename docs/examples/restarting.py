"""A collector that is started again until it runs, as Twisted's `ClientService` connects again until it is connected.

    service = Restarting(reactor, lambda: Collector(reactor, Config(local_storage_path=directory)))
    buffer = RecordBuffer(reactor, service)      # holds records while no collector runs
    buffer.setServiceParent(application)

When a program is replaced, the old process may still hold the data directory while it commits what it has, and a disk
may be mounted late. Neither is a reason to end: the start is tried again, after longer and longer pauses. What a pause
does not cure (a bad configuration, a directory that others could change) is raised by the first start, and logged
by later ones.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet import defer
from twisted.logger import Logger

from axcollector.api import Collector, DirectoryInUse, NotReady

PASSING = (DirectoryInUse, OSError)
"""What a later start may not meet."""


class Restarting(Service):
    """Has a collector run, from `startService` to `stopService`. A target for a `RecordBuffer`.

    Attributes:
        collector: The one that runs; None while none does.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, make: Callable[[], Collector], policy: Callable[[int], float] | None = None
    ) -> None:
        """Start nothing yet.

        Args:
            reactor: Schedules the next try.
            make: Makes a collector.
            policy: How many seconds to wait after so many failures; by default Twisted's `backoffPolicy`.
        """
        self.collector: Collector | None = None
        self._reactor = reactor
        self._make = make
        self._policy = policy or backoffPolicy()
        self._failures = 0
        self._next: Any = None

    def startService(self) -> None:
        """Start a collector, now or, where that is not possible yet, later."""
        self.running = True
        self._try()

    def _try(self) -> None:
        self._next = None
        collector = self._make()
        try:
            collector.startService()
        except PASSING as problem:
            self._failures += 1
            seconds = self._policy(self._failures)
            self._log.warn("no collector yet, next try in {seconds:.1f} s: {problem}", seconds=seconds, problem=problem)
            self._next = self._reactor.callLater(seconds, self._try)
        else:
            self._failures = 0
            self.collector = collector

    def submit(self, scope: str, records: Sequence[Any]) -> "defer.Deferred[int]":
        """As `Collector.submit`; fails with `NotReady` while none runs."""
        return defer.fail(NotReady()) if self.collector is None else self.collector.submit(scope, records)

    async def restart(self) -> None:
        """Replace the collector by a new one, for example because `make` has another configuration to give."""
        await self._end()
        if self.running and self.collector is None and self._next is None:
            self._try()

    async def _end(self) -> None:
        collector, self.collector = self.collector, None
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if collector is not None:
            await collector.stopService()

    def stopService(self) -> "defer.Deferred[None]":
        """Have none run any more. Fires when that is so."""
        self.running = False
        return defer.ensureDeferred(self._end())
