"""Work that nobody who waits for it can break off: a client that hangs up cancels its request, not what that began."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.python.failure import Failure

T = TypeVar("T")


def apart(work: Coroutine["defer.Deferred[Any]", Any, T]) -> "defer.Deferred[T]":
    """Begin work that goes on whoever still waits for it. Fires, or fails, as it does; cancelling forgets that."""
    outcome: defer.Deferred[T] = defer.Deferred(lambda _: None)

    def settle(result: T | Failure) -> None:
        if not outcome.called:
            outcome.callback(result)  # where it is a failure, errbacks are called

    defer.Deferred.fromCoroutine(work).addBoth(settle)
    return outcome
