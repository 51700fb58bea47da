"""A lock for which those who wait take turns by what they belong to, whoever came first.

Twenty requests of one tenant that take a tenth of a second each make another tenant's wait for one of them, not all.
"""

from collections import OrderedDict, deque

from twisted.internet import defer


class FairLock:
    """Held by one at a time."""

    def __init__(self) -> None:
        self._held = False
        self._is_handing_on = False
        self._waiting: OrderedDict[str, deque[defer.Deferred[None]]] = OrderedDict()

    def acquire(self, whose: str) -> "defer.Deferred[None]":
        """Wait for the lock.

        Fires when it is held; then `release` has to be called. Cancelling gives the place up.

        Args:
            whose: What this belongs to: of what does so it is the last in turn.
        """
        if not (self._held or self._waiting):
            self._held = True
            return defer.succeed(None)

        def give_up(waiter: "defer.Deferred[None]") -> None:
            waiters = self._waiting[whose]
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[whose]

        waiter: defer.Deferred[None] = defer.Deferred(give_up)
        self._waiting.setdefault(whose, deque()).append(waiter)
        return waiter

    def release(self) -> None:
        """Give the lock to the next in turn.

        Who gets it may release it before it has even been called back, as all do whose work fails at once, and there
        may be thousands of them: so the lock is handed on in one loop, not by one call within another.
        """
        self._held = False
        if self._is_handing_on:
            return
        self._is_handing_on = True
        try:
            while self._waiting and not self._held:
                self._held = True
                self._next().callback(None)
        finally:
            self._is_handing_on = False

    def _next(self) -> "defer.Deferred[None]":
        whose, waiters = self._waiting.popitem(last=False)
        waiter = waiters.popleft()
        if waiters:
            self._waiting[whose] = waiters
        return waiter
