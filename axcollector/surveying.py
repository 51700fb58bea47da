"""Looks at the stages and at the store now and then, in a thread, so that what is told of them costs nothing."""

from collections.abc import Callable, Sequence
from functools import partial
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
        looking_since: When looking at the store began, as long as that has not ended: where it hangs, that does not.
        store_problem: Why the store could not be used; None: nothing shows that.
        store_is_seen: Whether that is known at all without sending anything.
    """

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        stages: Stages,
        looker: Worker,
        look: Callable[[], str | None] | None,
    ) -> None:
        """Prepare.

        Args:
            clock: Tells and schedules time.
            worker: Who looks at the stages.
            stages: These.
            looker: Who looks at the store: a store that hangs holds up nobody but those who have to do with it.
            look: Says why the store could not be used, blocking; None: nobody can tell.
        """
        self._clock = clock
        self._worker = worker
        self._looker = looker
        survey = Periodic(clock, SURVEY_SECONDS, "survey of the stages", self._survey)
        self.stages = stages
        self.jobs: Sequence[Periodic] = (survey,)
        if look is not None:
            looking = Periodic(clock, SURVEY_SECONDS, "look at the store", partial(self._look_at_store, look))
            self.jobs = (survey, looking)
        self.looking_since: float | None = None
        self._looking: defer.Deferred[str | None] = defer.succeed(None)
        self.store_problem: str | None = None
        self.store_is_seen = False

    def startService(self) -> None:
        """Look, at once and then every few seconds."""
        self.running = True
        for each in self.jobs:
            each.startService()

    async def _look_at_store(self, look: Callable[[], str | None]) -> None:
        self.looking_since = self._clock.seconds()
        try:
            self._looking = self._looker.run(look)
            self.store_problem = await self._looking
            self.store_is_seen = True
        finally:
            self.looking_since = None

    async def _survey(self) -> None:
        while self.running and not await self._worker.run(self.stages.step):
            pass

    def stopService(self) -> "defer.Deferred[None]":
        """Look no more. Fires when a step under way has ended; a store that hangs is not waited for."""
        self.running = False
        self._looking.cancel()
        return defer.DeferredList([each.stopService() for each in self.jobs]).addCallback(lambda _: None)
