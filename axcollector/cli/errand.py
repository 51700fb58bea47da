"""Running a reactor for as long as one piece of work takes."""

import contextlib
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, Final

from twisted.internet import defer
from twisted.python.failure import Failure

INTERRUPTED: Final = 130
"""The exit status of what was interrupted, as shells have it."""


class Errand:
    """Runs a reactor for as long as a piece of work takes.

    The work is cancelled when the reactor is stopped, and the reactor goes on until the work has seen to its end: what
    it started, it has stopped.
    """

    def __init__(self, reactor: Any, work: Coroutine[Any, Any, None]) -> None:  # noqa: ANN401 - any reactor
        """Start nothing yet."""
        self._reactor = reactor
        self._work = work
        self._result: object = None
        self._ended: defer.Deferred[None] = defer.Deferred()
        self._stopping = False

    def run(self) -> int:
        """Run it; 0, or `INTERRUPTED` if it was cancelled and did not take that for its end. Raises what it raises."""
        self._reactor.callWhenRunning(self._begin)
        with self._signals():
            self._reactor.run()
        if isinstance(self._result, Failure):
            if self._result.check(defer.CancelledError):
                return INTERRUPTED
            self._result.raiseException()
        return 0

    def stop(self) -> None:
        """Stop the reactor; once only, however often it is asked for."""
        if not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def _begin(self) -> None:
        running = defer.ensureDeferred(self._work)

        def cancel() -> "defer.Deferred[None]":
            self._stopping = True
            running.cancel()
            return self._ended

        self._reactor.addSystemEventTrigger("before", "shutdown", cancel)
        running.addBoth(self._end)

    def _end(self, result: object) -> None:
        self._result = result
        self._reactor.callLater(0, self.stop)
        self._ended.callback(None)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, and a terminal that is closed, stop it, unless they mean something else already (as with nohup)."""

        def handler(*_: object) -> None:
            self._reactor.callFromThread(self.stop)

        replaced = {
            number: signal.signal(number, handler)
            for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL))
            if signal.getsignal(number) is default
        }
        try:
            yield
        finally:
            for number, before in replaced.items():
                signal.signal(number, before)
