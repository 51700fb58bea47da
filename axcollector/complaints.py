"""Telling of records that are lost or refused, as often as somebody wants to read it, and counting the others."""

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_QUIET_SECONDS: Final = 10.0


class Complaints:
    """One line at once, then at most one every ten seconds; each says how many records it speaks for."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, what: str) -> None:
        """Prepare.

        Args:
            clock: Tells the time.
            what: What becomes of them, in the past tense and beginning with "records".
        """
        self._clock = clock
        self._what = what
        self._count = 0
        self._last = ("", "")
        self._next = 0.0

    def note(self, scope: str, count: int, reason: str) -> None:
        """It has become of so many records of a scope."""
        if not count:
            return
        self._count += count
        self._last = scope, reason
        if not self._clock.seconds() < self._next <= self._clock.seconds() + _QUIET_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Say what has not been said yet."""
        if self._count:
            scope, reason = self._last
            self._log.error(
                "{count} {what}, the last of scope {scope}: {reason}",
                count=self._count,
                what=self._what,
                scope=scope,
                reason=reason,
            )
            self._count = 0
            self._next = self._clock.seconds() + _QUIET_SECONDS
