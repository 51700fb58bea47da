"""Draining: what was taken so far goes to the store now, and not when its interval is over. The collector goes on.

Open journals are finished, as at a stop, and split whatever their interval; then staging is swept until nothing is left
there. Whoever writes journals finishes them himself, perhaps a moment later than he is told: so those that lay in `tmp`
then are split when they are seen to be finished.
"""

from typing import Final, Protocol

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.bugs import report
from axcollector.services import Rest, Worker
from axcollector.splitter import Splitter
from axcollector.uploader import Uploader

LOOK_SECONDS: Final = 0.5
"""How often it is looked what is left to do."""
TROUBLE_SECONDS: Final = 5.0
"""How long nothing is split after a split has failed, as in `closing`."""


class Journals(Protocol):
    """Whoever writes journals."""

    def finish_open(self) -> "defer.Deferred[None]":
        """Have open journals finished. Fires when that is asked for."""
        ...


class Draining(Service):
    """Drains when it is told to, while it runs; `is_under_way` says whether it does."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        journals: Journals,
        splitter: Splitter,
        uploader: Uploader,
    ) -> None:
        """Put the parts together.

        Args:
            clock: Schedules time.
            worker: Where splits run.
            journals: Who writes the journals.
            splitter: The one of `tmp`.
            uploader: Sweeps staging.
        """
        self._worker = worker
        self._journals = journals
        self._splitter = splitter
        self._uploader = uploader
        self._rest = Rest(clock)
        self._work: defer.Deferred[None] | None = None
        self._is_asked_again = False

    @property
    def is_under_way(self) -> bool:
        """Whether there is still something to drain."""
        return self._work is not None

    def drain(self) -> None:
        """Begin; where it is under way, take in what has come since."""
        self._is_asked_again = True
        if self._work is None and self.running:
            self._work = defer.Deferred.fromCoroutine(self._drain())
            self._work.addErrback(self._broke_off)
            self._work.addBoth(self._ended)

    def _broke_off(self, failure: Failure) -> None:
        if failure.check(OSError):
            self._log.error("draining broke off: {problem}; ask for it again", problem=str(failure.value))
        elif not failure.check(defer.CancelledError):  # which it is when a thread has stopped
            report(self._log, "draining met a bug", failure)

    def _ended(self, _: None) -> None:
        self._work = None

    async def _drain(self) -> None:
        self._log.info("draining: open journals are finished now, and staging is swept until it is empty")
        to_split: set[str] = set()
        while self.running:
            if self._is_asked_again:
                self._is_asked_again = False
                to_split |= await self._finished()
            troubles = await self._worker.run(self._splitter.work) if to_split else 0
            to_split &= await self._worker.run(self._splitter.journals)
            await self._uploader.sweep()
            if self._is_done(to_split):
                self._log.info("drained: staging is empty")
                return
            await self._rest.take(TROUBLE_SECONDS if troubles else LOOK_SECONDS)

    async def _finished(self) -> set[str]:
        """The journals that hold what was taken so far."""
        before = await self._worker.run(self._splitter.journals)
        await self._journals.finish_open()
        return before

    def _is_done(self, to_split: set[str]) -> bool:
        status = self._uploader.status()
        return not (to_split or status.in_flight or status.backlog.buckets or self._is_asked_again)

    def stopService(self) -> "defer.Deferred[None]":
        """Go on no more. Fires when what is under way has ended."""
        self.running = False
        ended: defer.Deferred[None] = defer.Deferred()
        if self._work is None:
            ended.callback(None)
        else:
            self._work.addBoth(lambda _: ended.callback(None))
            self._rest.end()
        return ended
