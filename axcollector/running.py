"""Coroutines that mostly wait for one thing, or for nothing, run without what a Deferred of their own would cost.

`twisted.internet.defer.ensureDeferred` copies the context and makes several objects, before the first line has run.
That is more than the whole of what a small request's checks take.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet import defer
from twisted.python.failure import Failure

T = TypeVar("T")


class Running(Generic[T]):
    """A coroutine that awaits Deferreds: runs until it waits, and on when what it waits for has fired.

    It may not raise: what it returns is all that is made of it.
    """

    __slots__ = ("_coroutine", "_done", "_waited")

    def __init__(self, coroutine: "Coroutine[defer.Deferred[Any], Any, T]", done: Callable[[T], object]) -> None:
        """Begin.

        Args:
            coroutine: What is to run.
            done: Called with what it returns; it may be so at once.
        """
        self._coroutine = coroutine
        self._done: Callable[[T], object] | None = done
        self._waited: defer.Deferred[Any] | None = None
        self._step(None)

    def _step(self, result: object) -> None:
        """Run on. A Deferred that has a result tells the coroutine itself which; one that failed cannot yet."""
        self._waited = None
        try:
            if isinstance(result, Failure):
                waited = result.throwExceptionIntoGenerator(self._coroutine)
            else:
                waited = self._coroutine.send(None)
        except StopIteration as end:
            if self._done is not None:
                self._done(end.value)
        else:
            self._waited = waited
            waited.addBoth(self._step)

    def cancel(self) -> None:
        """Nobody wants the result any more; what is waited for is cancelled."""
        self._done = None
        if self._waited is not None:
            self._waited.cancel()
