"""Stand-ins for what tests should not wait for: threads, clocks, stores."""

from collections.abc import Callable
from typing import TypeVar

from twisted.internet import defer

T = TypeVar("T")


class SameThread:
    """A `Worker` that runs everything at once, in the calling thread."""

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        """Run it now."""
        return defer.maybeDeferred(function, *arguments)


class HeldThread:
    """A `Worker` that runs its jobs when told to: shows what happens while a write is under way."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        """Keep it for later."""
        result: defer.Deferred[T] = defer.Deferred()
        self.jobs.append(lambda: defer.maybeDeferred(function, *arguments).chainDeferred(result))
        return result

    def step(self) -> None:
        """Run the job that was given first."""
        self.jobs.pop(0)()


def result_of(deferred: "defer.Deferred[T]") -> T:
    """What a Deferred that has fired holds; raises what it failed with."""
    results: list[T] = []
    failures = []
    deferred.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    assert results, "the Deferred has not fired"
    return results[0]
