"""Keeps delayed calls relative when the wall clock is set.

Twisted's reactors schedule by the wall clock: when it is set back by an hour, every delayed call comes an hour late,
heartbeats and time limits alike. A thread watches the wall clock beside the monotonic one, and when it was set back
has the reactor move the delayed calls along. (Set forward, they all come at once, which does no harm that would last.)

For a process of our own only: it moves everybody's calls, which an embedding program may not want.
"""

import threading
from typing import Any

from twisted.application.service import Service
from twisted.internet import defer
from twisted.logger import Logger

WATCH_SECONDS = 1.0
LEAST_STEP_SECONDS = 0.5
"""Smaller steps are those of a clock that is being slewed."""


class ClockSteps(Service):
    """Watches the wall clock from `startService` until `stopService`."""

    _log = Logger()

    def __init__(self, reactor: Any, wall: Any, monotonic: Any) -> None:  # noqa: ANN401 - two functions and a reactor
        """Watch nothing yet.

        Args:
            reactor: Whose delayed calls are moved; it tells time by `wall`.
            wall: Gives the wall-clock time in seconds.
            monotonic: Gives seconds of a clock that nobody sets.
        """
        self._reactor = reactor
        self._wall = wall
        self._monotonic = monotonic
        self._ended: threading.Event | None = None
        self._offset = 0.0
        self._looked = 0.0

    def startService(self) -> None:
        """Begin to watch."""
        self.running = True
        self._looked = self._monotonic()
        self._offset = self._wall() - self._looked
        self._ended = threading.Event()
        threading.Thread(target=self._watch, args=(self._ended,), name="axcollector clock", daemon=True).start()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(WATCH_SECONDS):  # by the monotonic clock
            self._reactor.callFromThread(self.look)

    def look(self) -> None:
        """Compare the clocks, and move delayed calls if the wall clock was set back."""
        steady = self._monotonic()
        offset = self._wall() - steady
        step, self._offset = offset - self._offset, offset
        since, self._looked = steady - self._looked, steady
        if step > -LEAST_STEP_SECONDS:
            return
        self._log.warn("the wall clock was set by {step:+.1f} s; what was scheduled is moved along", step=step)
        now = self._wall()
        for call in self._reactor.getDelayedCalls():
            if call.getTime() - now >= -step - since:  # else it was made since the step
                call.delay(step)

    def stopService(self) -> "defer.Deferred[None]":
        """Watch no more."""
        self.running = False
        if self._ended is not None:
            self._ended.set()
            self._ended = None
        return defer.succeed(None)
