"""SIGHUP as a service: work that is done when the signal comes, one run at a time.

A run must not begin in the signal's handler, where the interpreter may be in the middle of anything; the reactor begins
it. Signals that come during a run are one more run, however many they are, because whatever they announce was there
when the last of them came.

The signal is taken over before the service is started, as soon as others can know of the process (by its pid file), and
not given back where it would end the process: whoever rotates logs sends it whenever he does, and a process that is
about to end, or has just begun, is to do so in its own way.
"""

import signal
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from axcollector.bugs import report


class OnHangup(Service):
    """Does some work on SIGHUP, from `take_over`, or `startService`, until `stopService`."""

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
        self._taken = False
        self._asked = False
        self._busy = False
        self._again = False

    def take_over(self) -> None:
        """Take the signal over; in the main thread only. What comes before `startService` is worked on after it."""
        if not self._taken:
            self._taken = True
            self._previous = signal.signal(signal.SIGHUP, self._signalled)

    def startService(self) -> None:
        """Work on what comes, and on what has come."""
        self.running = True
        self.take_over()

    def stopService(self) -> "defer.Deferred[None]":
        """Give the signal back, or ignore it where it would end the process. Work under way goes on, unwaited for."""
        self.running = self._again = False
        if self._taken:
            self._taken = False
            # None: it was not set from Python. Ignored it has to be: the interpreter drops functions before its end.
            ends = self._previous in {signal.SIG_DFL, None}
            signal.signal(signal.SIGHUP, signal.SIG_IGN if ends else self._previous)
        return defer.succeed(None)

    def _signalled(self, number: int, frame: object) -> None:  # noqa: ARG002 - the interface of signal handlers
        # A handler is itself interrupted by the next signal: of a flood, all but the first have to be gone at once, or
        # one call within another takes all the depth that the interpreter has.
        if not self._asked:
            self._asked = True
            self._reactor.callFromThread(self._begin)

    def _begin(self) -> None:
        self._asked = False
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
            report(self._log, "what SIGHUP asks for failed")
        self._busy = False
        again, self._again = self._again, False
        if again:
            self._begin()
