"""What breaks a request off: too long without progress, or too long altogether."""

from dataclasses import dataclass
from typing import Any, Self

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request may take.

    Attributes:
        idle_seconds: How long nothing may move.
        overall_seconds: How long all of it may take; None: as long as it moves.
        first_seconds: How long it may take until something moves for the first time; None: as later.
    """

    idle_seconds: float
    overall_seconds: float | None = None
    first_seconds: float | None = None


class Limits:
    """Watches one request, as a context.

    Attributes:
        expired: Which limit was passed, in words, or "".
    """

    def __init__(self, clock: IReactorTime, patience: Patience) -> None:
        self._clock = clock
        self._patience = patience
        self._watched: defer.Deferred[Any] | None = None
        self._calls: list[IDelayedCall] = []
        self.expired = ""

    def __enter__(self) -> Self:
        patience = self._patience
        first = patience.idle_seconds if patience.first_seconds is None else patience.first_seconds
        self._calls.append(self._clock.callLater(first, self._expire, f"nothing moved for {first:g} s"))
        if patience.overall_seconds is not None:
            what = f"not done after {patience.overall_seconds:.0f} s"
            self._calls.append(self._clock.callLater(patience.overall_seconds, self._expire, what))
        return self

    def watch(self, deferred: "defer.Deferred[Any]") -> "defer.Deferred[Any]":
        """Cancel this one when a limit is passed."""
        self._watched = deferred
        return deferred

    def moved(self) -> None:
        """Something has moved."""
        idle, seconds = self._calls[0], self._patience.idle_seconds
        if not idle.active():
            return
        if self._patience.first_seconds is None:
            idle.reset(seconds)
        else:
            idle.cancel()
            self._calls[0] = self._clock.callLater(seconds, self._expire, f"nothing moved for {seconds:g} s")

    def _expire(self, reason: str) -> None:
        self.expired = reason
        if self._watched is not None:
            self._watched.cancel()

    def __exit__(self, *_: object) -> None:
        for call in self._calls:
            if call.active():
                call.cancel()
