"""Long work in a thread that steps back while others want the processor, or the interpreter.

A thread that packs a journal's records again takes its share of the core, and the reactor, which has the same core for
all requests, gets the other half. Requests that come meanwhile wait behind one another, some tens of milliseconds in
the end. So such work looks now and then at what it got: where that was less than the time it took, somebody else was
at work, and it sleeps for a while. Where there is a core for it, it never does.
"""

import time
from collections.abc import Callable
from typing import Final

SLICE_SECONDS: Final = 0.002
"""So much processor time passes before it looks."""
_CONTENDED: Final = 1.25
"""Time by processor time: more than this means that others had it, too."""
_SLEEP: Final = 3.0
"""It sleeps for so many times as long as it has worked: then a quarter of the core is its own at most."""


class Courtesy:
    """One piece of long work's behaviour; of one thread."""

    def __init__(
        self,
        slice_seconds: float = SLICE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.perf_counter,
        processor: Callable[[], float] = time.thread_time,
    ) -> None:
        """It begins to work.

        Args:
            slice_seconds: How much processor time passes before it looks.
            sleep: Lets time pass, in seconds.
            clock: The time.
            processor: The processor time that the thread has had.
        """
        self._slice = slice_seconds
        self._sleep = sleep
        self._clock = clock
        self._processor = processor
        self._hurries = False
        self.go_on()

    def go_on(self) -> None:
        """It goes on, behind something that takes time and no processor, as a disk does."""
        self._began, self._had = self._clock(), self._processor()

    def due(self) -> float:
        """It has done a little: how long it should sleep now, in seconds; nothing mostly."""
        worked = self._processor() - self._had
        if worked < self._slice or self._hurries:
            return 0.0
        took = self._clock() - self._began
        self.go_on()
        return _SLEEP * worked if took > _CONTENDED * worked else 0.0

    def step_back(self) -> None:
        """The same, and sleep."""
        if seconds := self.due():
            self._sleep(seconds)
            self.go_on()

    def hurry(self) -> None:
        """Others wait for it from now on: it sleeps no more. May be called in any thread."""
        self._hurries = True


class Haste(Courtesy):
    """That of work which others wait for."""

    def due(self) -> float:
        """It never sleeps."""
        return 0.0
