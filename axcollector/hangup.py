"""SIGHUP as a service: work that is done when the signal comes, one run at a time.

A run must not begin in the signal's handler, where the interpreter may be in the middle of anything; the reactor begins
it. Signals that come during a run are one more run, however many they are, because whatever they announce was there
when the last of them came.
"""

import signal
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger


class OnHangup(Service):
    """Does some work on SIGHUP, from `startService` until `stopService`."""

    _log = Logger()

    def __init__(self, reactor: IReactorFromThreads, work: Callable[[], Awaitable[None]]) -> None:
        """Touch no signal yet.

        Args:
            reactor: Begins the work.
            work: Is done; a failure is logged, and the next signal does it anew.
        """
        self._reactor = reactor
        self._work = work
        self._previous: Any = None
        self._busy = False
        self._again = False

    def startService(self) -> None:
        """Take the signal over; in the main thread only."""
        self.running = True
        self._previous = signal.signal(signal.SIGHUP, self._signalled)

    def stopService(self) -> "defer.Deferred[None]":
        """Give the signal back. Work under way goes on, and is not waited for."""
        if self.running:
            self.running = self._again = False
            # None: it was not set from Python, and cannot be given back.
            signal.signal(signal.SIGHUP, signal.SIG_DFL if self._previous is None else self._previous)
        return defer.succeed(None)

    def _signalled(self, number: int, frame: object) -> None:  # noqa: ARG002 - the interface of signal handlers
        self._reactor.callFromThread(self._begin)

    def _begin(self) -> None:
        if self._busy:
            self._again = True
        elif self.running:
            self._busy = True
            defer.ensureDeferred(self._run())

    async def _run(self) -> None:
        try:
            await self._work()
        except defer.CancelledError:  # the thread that does it has stopped, as has everything
            pass
        except Exception:  # noqa: BLE001 - the edge where its failures are logged
            self._log.failure("what SIGHUP asks for failed")
        self._busy = False
        again, self._again = self._again, False
        if again:
            self._begin()
