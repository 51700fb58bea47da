"""Closing: on the clock, has the journals of intervals that are over finished and split, and what a crash left too.

The ticks are only a heartbeat: what is due follows from the wall clock and from what lies in the directories, so a
late tick, drift or a step of the clock can delay a bucket but not misplace a record. Whoever writes the journals, this
process or others, finishes them himself; that one is finished shows by its not being locked any more.
"""

from typing import Protocol

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from axcollector.core.layout import JournalName
from axcollector.salvager import Salvager
from axcollector.services import Periodic, Worker
from axcollector.splitter import Splitter

CLOSING_TICK_SECONDS = 0.25
RECOVERY_TICK_SECONDS = 60.0
PAUSE_SECONDS = 5.0
"""So long nothing is split after a split has failed: each may rewrite hundreds of megabytes before it does."""


class Journals(Protocol):
    """Whoever writes journals."""

    def finish_due(self) -> "defer.Deferred[None]":
        """Finish those whose interval is over, where that is not done without being asked. Fires when it is done."""
        ...

    def is_abandoned(self, journal: JournalName) -> bool:
        """Whether a journal that is not locked was left by somebody who is gone. Called in a work thread."""
        ...

    def close(self) -> "defer.Deferred[None]":
        """Take no more batches. Fires when all that waited are written and answered, and no journal is open."""
        ...


class Closing(Service):
    """Closes intervals while it runs, and everything when it stops.

    Attributes:
        jobs: What it does now and then.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        journals: Journals,
        splitter: Splitter,
        grace_seconds: float,
    ) -> None:
        """Put the parts together.

        Args:
            clock: Tells and schedules time.
            worker: Where splits run.
            journals: Who writes the journals.
            splitter: The one of `tmp`.
            grace_seconds: How long after its end an interval is closed.
        """
        self._clock = clock
        self._worker = worker
        self._journals = journals
        self._splitter = splitter
        self._grace = grace_seconds
        self._resume_at = 0.0
        self._heartbeat = Periodic(clock, CLOSING_TICK_SECONDS, "closing", self._tick)
        self.jobs = (self._heartbeat,)

    def startService(self) -> None:
        """Begin to close what is due."""
        self.running = True
        self._heartbeat.startService()

    async def _tick(self) -> None:
        await self._journals.finish_due()
        now = self._clock.seconds()
        if now >= self._resume_at or now < self._resume_at - PAUSE_SECONDS:  # the clock may have been set back
            failed = await self._worker.run(self._splitter.work, now, self._grace, self._journals.is_abandoned)
            self._resume_at = now + PAUSE_SECONDS if failed else 0.0

    def stopService(self) -> "defer.Deferred[None]":
        """Commit and answer what waits, then split all journals, whatever their interval. Fires when that is done."""
        self.running = False
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        self._splitter.hurry()
        await self._heartbeat.stopService()
        await self._journals.close()
        await self._worker.run(self._splitter.work)


class Recovery(Service):
    """Splits what crashes left, and takes over what the reference left, in the background, until nothing is left.

    Attributes:
        jobs: What it does now and then.
    """

    def __init__(self, clock: IReactorTime, worker: Worker, splitter: Splitter, salvager: Salvager) -> None:
        """Put the parts together; the splitter is the one of `recovered`."""
        self._clock = clock
        self._worker = worker
        self._splitter = splitter
        self._salvager = salvager
        self._heartbeat = Periodic(clock, RECOVERY_TICK_SECONDS, "recovery", self._tick)
        self.jobs = (self._heartbeat,)

    def startService(self) -> None:
        """Begin at once."""
        self.running = True
        self._heartbeat.startService()

    async def _tick(self) -> None:
        await self._worker.run(self._splitter.work)
        await self._worker.run(self._salvager.work, self._clock.seconds())

    def stopService(self) -> "defer.Deferred[None]":
        """Fires when what is under way is done."""
        self.running = False
        return self._heartbeat.stopService()
