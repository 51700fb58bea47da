"""Trying a batch until it is taken or refused for good.

What a target says decides:

* `Rejected` on account of records: that is final at once.
* `Rejected` on account of the scope (it is not known, or the token is for others): it may just have been made. That is
  final when the scope has been refused for so long.
* `UNAUTHORIZED`, which speaks of the token and so of all scopes, and any other `Refusal`: tried again for ever, at
  growing intervals, or when the target asks for it.
* What no target promises to fail with: likewise, but not for ever.
"""

import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.bugs import report
from axcollector.core.errors import Refusal, Rejected
from axcollector.core.isolation import OF_RECORDS
from axcollector.core.recordtext import Record
from axcollector.core.retry import Backoff, Pace
from axcollector.services import Rest

SCOPE_PATIENCE_SECONDS: Final = 60.0
"""So long a scope that is not known, or not allowed, is tried before its records are refused."""
UNFORESEEN_TRIES: Final = 10
"""So often a batch is tried with which its target fails as no target should."""
BACKOFF: Final = Backoff(first_seconds=1.0, ceiling_seconds=60.0, floor_seconds=0.1)
_REMEMBERED_SCOPES: Final = 10_000


class Target(Protocol):
    """Where records go: a `Collector`, a `Client`, or whatever has their `submit`."""

    def submit(self, scope: str, records: Sequence[Record]) -> "defer.Deferred[int]":
        """As `Collector.submit`."""
        ...


class GivenUp(Exception):
    """The target failed with a batch too often, in ways that no target promises."""


class Persistent:
    """Gives batches to a target, each until it is taken or refused for good.

    Attributes:
        retried: How often a batch was given to it again.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, target: Target, concurrency: int, chance: Callable[[], float] = random.random
    ) -> None:
        """Prepare.

        Args:
            clock: Tells and schedules time.
            target: Who takes them.
            concurrency: How many it is given at a time; those that wait for their next try are not counted.
            chance: Gives numbers in [0, 1), for the jitter.
        """
        self._clock = clock
        self._target = target
        self._chance = chance
        self._slots = defer.DeferredSemaphore(concurrency)
        self._rests: dict[Rest, None] = {}
        self._unwelcome: dict[str, float] = {}  # scopes that are not taken, and since when
        self._troubled = 0
        self._is_over = False
        self.retried = 0

    async def submit(self, scope: str, texts: Sequence[bytes]) -> int:
        """How many were accepted. Cancelling leaves it open whether they are.

        Raises:
            Rejected: They never will be: on account of records where the code is in `OF_RECORDS`, else of the scope.
            GivenUp: It is not known what is wrong with them.
        """
        pace = Pace(BACKOFF)
        tries = 0
        try:
            while True:
                began = self._clock.seconds()
                try:
                    accepted = await self._try(scope, texts)
                except Exception as exc:  # noqa: BLE001 - whatever somebody's target fails with
                    tries += 1
                    asked = self._judge(scope, exc, tries)
                else:
                    self._unwelcome.pop(scope, None)
                    return accepted
                await self._rest(pace.failed(self._clock.seconds() - began, self._chance(), asked))
                self.retried += 1
        finally:
            if tries:
                self._note_end_of_trouble()

    async def _try(self, scope: str, texts: Sequence[bytes]) -> int:
        await self._slots.acquire()
        try:
            return await defer.maybeDeferred(self._target.submit, scope, texts)
        finally:
            self._slots.release()

    def _judge(self, scope: str, exc: Exception, tries: int) -> float | None:
        """Go on where it is worth trying again: how many seconds the target asks to be left alone, if it does.

        Raises:
            Rejected: It is not.
            GivenUp: Likewise.
            CancelledError: It has been tried for long enough.
        """
        if self._is_over:
            raise defer.CancelledError
        if isinstance(exc, Rejected) and not self._bears(scope, exc):
            raise exc
        if not isinstance(exc, Refusal | defer.CancelledError):  # the latter: a target that is being stopped
            if tries >= UNFORESEEN_TRIES:
                raise GivenUp from exc
            report(self._log, "records could not be handed over, in a way nobody foresaw; it is tried again")
        if tries == 1:
            self._troubled += 1
            if self._troubled == 1:
                self._log.warn("records wait, and are sent again until they are taken: {reason}", reason=str(exc))
        return exc.retry_after if isinstance(exc, Refusal) else None

    def _bears(self, scope: str, exc: Rejected) -> bool:
        """Whether what was rejected is tried again."""
        if exc.code in OF_RECORDS or exc.code == "UNAUTHORIZED":
            return exc.code == "UNAUTHORIZED"
        now = self._clock.seconds()
        since = self._unwelcome.get(scope)
        if since is None:
            if len(self._unwelcome) >= _REMEMBERED_SCOPES:
                self._unwelcome.clear()
            since = self._unwelcome[scope] = now
            self._log.error(
                "records of scope {scope} are not taken: {reason}; after {seconds:.0f} s of this they are refused",
                scope=scope,
                reason=exc.reason,
                seconds=SCOPE_PATIENCE_SECONDS,
            )
        return now - since < SCOPE_PATIENCE_SECONDS

    def _note_end_of_trouble(self) -> None:
        self._troubled -= 1
        if not self._troubled and not self._is_over:
            self._log.info("no records wait any more for being sent again")

    async def _rest(self, seconds: float) -> None:
        rest = Rest(self._clock)
        self._rests[rest] = None
        try:
            await rest.take(seconds)
        finally:
            del self._rests[rest]

    def begin(self) -> None:
        """Try again for ever; so it is from the making on."""
        self._is_over = False

    def hurry(self) -> None:
        """Let all that waits for its next try have it now."""
        for rest in list(self._rests):
            rest.end()

    def end(self) -> None:
        """Try nothing again: what fails from now on fails with `CancelledError`."""
        self._is_over = True
        self.hurry()
