"""What is done at a stop: as a service with a place in the order of others (`InOrder`), and once for all who ask."""

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.service import Service
from twisted.internet import defer


class OnStop(Service):
    """Does nothing but call a function when it is stopped, and wait for what that returns."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def startService(self) -> None:
        """Nothing to do."""
        self.running = True

    def stopService(self) -> "defer.Deferred[object]":
        """Call the function. Fires when the Deferred that it returned, if any, has fired."""
        self.running = False
        return defer.maybeDeferred(self._function)


class Once:
    """Something that is done once at a time: whoever asks for it while it is being done waits for the end of that."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._waiters: list[defer.Deferred[None]] = []

    def run(self) -> "defer.Deferred[None]":
        """Do it, or wait. Fires when it is done, fails with what it failed with; cancelling stops the waiting only."""
        waiter: defer.Deferred[None] = defer.Deferred()
        self._waiters.append(waiter)
        if len(self._waiters) == 1:
            defer.Deferred.fromCoroutine(self._work()).addBoth(self._tell)
        return waiter

    def _tell(self, outcome: Any) -> None:  # noqa: ANN401 - None, or a Failure
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(outcome)
