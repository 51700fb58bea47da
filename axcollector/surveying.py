"""Looks at the stages and at the store now and then, in a thread, so that what is told of them costs nothing."""

from collections.abc import Callable
from typing import Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from axcollector.services import Periodic, Worker
from axcollector.stages import Stages

SURVEY_SECONDS: Final = 2.0


class Surveying(Service):
    """Looks, from `startService` on.

    Attributes:
        stages: What lies in the stages.
        jobs: What it does now and then.
        store_problem: Why the store could not be used; None: nothing shows that.
        store_is_seen: Whether that is known at all without sending anything.
    """

    def __init__(
        self, clock: IReactorTime, worker: Worker, stages: Stages, look: Callable[[], str | None] | None
    ) -> None:
        """Prepare.

        Args:
            clock: Tells and schedules time.
            worker: Who looks.
            stages: At what.
            look: Says why the store could not be used, blocking; None: nobody can tell.
        """
        self._worker = worker
        self._look = look
        self._periodic = Periodic(clock, SURVEY_SECONDS, "survey of the stages", self._survey)
        self.stages = stages
        self.jobs = (self._periodic,)
        self.store_problem: str | None = None
        self.store_is_seen = False

    def startService(self) -> None:
        """Look, at once and then every few seconds."""
        self.running = True
        self._periodic.startService()

    async def _survey(self) -> None:
        if self._look is not None:
            self.store_problem = await self._worker.run(self._look)
            self.store_is_seen = True
        while self.running and not await self._worker.run(self.stages.step):
            pass

    def stopService(self) -> "defer.Deferred[None]":
        """Look no more. Fires when a step under way has ended."""
        self.running = False
        return self._periodic.stopService()
