"""Delivers what is in staging. The directories are its only state, so a restart just looks at them again.

A sweep takes in staging's names and hands the first files to the `Schedule`, which says what goes next; every upload
that ends makes room for the next one, and when the schedule runs low the next page of files is fetched, so a backlog
of any length goes at the store's speed. What becomes of a file:

* delivered: it is deleted, and so is its bucket when that was the last one; some of failed gets another chance.
* an authority is unavailable (`Paused`): it stays where it is, and so do all that need that authority (`Pauses`).
* not delivered for another reason: its bucket's attempt; with too many of them the bucket is moved to failed.
* vanished meanwhile: nothing.

Everything that touches the disk runs in a `Worker`, which does one thing after the other: what a listing says cannot be
overtaken by a deletion or a move that was asked for after it. Long work is done a slice at a time (`StagedBacklog`).
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.backlog import StagedBacklog
from axcollector.bugs import report
from axcollector.core import layout
from axcollector.core.delivery import PAUSES_TOLD, UploaderStatus
from axcollector.core.errors import Paused, UploadFailed
from axcollector.core.retry import Pauses
from axcollector.core.schedule import Schedule, StagedFile
from axcollector.disk import Disk
from axcollector.outcomes import Outcomes
from axcollector.record_counts import RecordCounts
from axcollector.services import Periodic, Worker
from axcollector.stores.base import Store
from axcollector.supply import Supply

RETRY_FAILED_SECONDS: Final = 600.0
"""How often buckets of failed get another chance, even if nothing is delivered."""
_NOBODY: Final = "~"
"""No tenant: whom it would have to wait for, all tenants wait for, and none of their files need be fetched."""


class Uploader(Service):
    """Sweeps staging.

    Args:
        clock: What tells and schedules time.
        worker: Who works on the disk; it is to run for longer than this service.
        disk: The hands.
        store: Where files go. Closing it is its owner's business.
        data_directory: What holds the stages, which are there.
        interval_seconds: From one sweep to the next.
        concurrency: How many files may be under way at once.
        max_attempts: After how many failed attempts a bucket goes to failed.
        failed_retry_batch: How many buckets of failed get another chance at once.
        chance: Gives a number in [0, 1), for the jitter of pauses.
        records: Knows how many records a file holds.

    Attributes:
        outcomes: Knows what has become of uploads.
        jobs: What it does now and then.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        disk: Disk,
        store: Store,
        data_directory: str,
        *,
        interval_seconds: float,
        concurrency: int,
        max_attempts: int,
        failed_retry_batch: int,
        chance: Callable[[], float],
        records: RecordCounts | None = None,
    ) -> None:
        self._clock = clock
        self._worker = worker
        self._backlog = StagedBacklog(disk, data_directory)
        self._store = store
        self._interval = interval_seconds
        self._chance = chance
        self._schedule = Schedule(concurrency, max_attempts)
        self._pauses = Pauses()
        self.outcomes = Outcomes(max_attempts, interval_seconds)
        self._supply = Supply(worker, self._backlog, self._schedule, self.outcomes, failed_retry_batch)
        self._records = records or RecordCounts(disk)
        self.jobs: tuple[Periodic, ...] = ()
        self._puts: dict[StagedFile, defer.Deferred[None]] = {}
        self._tasks: set[defer.Deferred[None]] = set()
        self._waiters: list[defer.Deferred[None]] = []
        self._is_filling = False

    def startService(self) -> None:
        """Begin to sweep; what is in failed gets its first chance at once."""
        super().startService()  # type: ignore[no-untyped-call]  # untyped in Twisted
        self._supply.start()
        self.outcomes.moved_at = self._clock.seconds()
        self.jobs = (
            Periodic(self._clock, RETRY_FAILED_SECONDS, "another chance for failed", self._retry_failed),
            Periodic(self._clock, self._interval, "sweep of staging", self.sweep),
            Periodic(self._clock, self._interval, "count of the backlog", self._supply.measure),
        )
        for periodic in self.jobs:
            periodic.startService()

    def stopService(self) -> "defer.Deferred[None]":
        """Begin no more uploads, and break those under way off; their files stay. Fires when all of it has settled."""
        super().stopService()  # type: ignore[no-untyped-call]  # untyped in Twisted
        return defer.Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for put in list(self._puts.values()):
            put.cancel()
        self._supply.stop()
        for periodic in self.jobs:
            await periodic.stopService()
        while self._tasks:
            ended: defer.Deferred[object] = defer.Deferred()
            next(iter(self._tasks)).addBoth(ended.callback)
            await ended
        for waiter in list(self._waiters):
            waiter.cancel()

    def status(self) -> UploaderStatus:
        """How delivery is going at this moment."""
        backlog = self._backlog.summary
        age = None if backlog.oldest_start is None else max(0.0, self._clock.seconds() - backlog.oldest_start)
        return UploaderStatus(
            backlog=backlog,
            oldest_age_seconds=age,
            in_flight=self._schedule.in_flight,
            paused=self._pauses.current(PAUSES_TOLD),
            paused_count=len(self._pauses),
            paused_until=self._pauses.longest(),
            counts=self.outcomes.counts,
        )

    def drained(self) -> "defer.Deferred[None]":
        """Wait until there is nothing to deliver.

        Fires when a sweep has found nothing in staging while nothing is under way. Fails with `CancelledError` when
        the service stops. Cancelling forgets the waiter.
        """
        waiter: defer.Deferred[None] = defer.Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def sweep(self) -> "defer.Deferred[None]":
        """Look at what is in staging, and begin what may begin. Fires when that is done, before files are delivered."""
        return defer.Deferred.fromCoroutine(self._sweep())

    async def _sweep(self) -> None:
        try:
            is_empty = await self._supply.sweep()
        except OSError as exc:
            self.outcomes.disk_failed("staging cannot be read", exc)
            return
        if is_empty and self._schedule.idle:
            self.outcomes.moved_at = self._clock.seconds()
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)
        self._fill()

    def _fill(self) -> None:
        """Let as many uploads begin as there are slots for."""
        if self._is_filling:  # an upload that began below has ended already
            return
        self._is_filling = True
        try:
            while self.running and (file := self._schedule.next(self._may_go)) is not None:
                self._track(self._upload(file))
        finally:
            self._is_filling = False
        if self.running and self._supply.is_low() and self._may_go(_NOBODY):
            self._track(self._fetch())

    async def _fetch(self) -> None:
        await self._supply.fetch()
        self._fill()

    async def _retry_failed(self) -> None:
        """Give some of failed another chance."""
        if await self._supply.bring_back():
            self._fill()

    async def retry_failed(self, bucket: str | None = None) -> int:
        """Give a bucket of failed, or all, another chance at once; how many came back. As `Supply.retry`."""
        count = await self._supply.retry(bucket)
        self._fill()
        return count

    def _may_go(self, tenant: str) -> bool:
        return self._pauses.let_through(self._store.authorities(tenant), self._clock.seconds())

    def _track(self, work: Coroutine["defer.Deferred[Any]", Any, None]) -> None:
        """Let something go on by itself, until it ends or, at the latest, until stopping waits for it."""
        task = defer.Deferred.fromCoroutine(work)
        self._tasks.add(task)
        task.addErrback(self._ended_early).addBoth(lambda _: self._tasks.discard(task))

    def _ended_early(self, failure: Failure) -> None:
        if not failure.check(defer.CancelledError):
            report(self._log, "delivery met a bug", failure)

    async def _upload(self, file: StagedFile) -> None:
        authorities = self._store.authorities(file.tenant)
        self._pauses.begin(file, authorities)
        begun = self.outcomes.begun(self._clock.seconds(), alone=not self._puts)
        try:
            await self._put(file)
        except Paused as exc:
            self._schedule.postpone(file)
            self._answered(file, authorities, before=exc.authority)
            self._pause(file, exc)
        except UploadFailed as exc:
            if exc.authority is not None:
                self._answered(file, authorities, before=exc.authority)
            await self._failed(file, str(exc))
        except defer.CancelledError:
            self._schedule.postpone(file)
            self.outcomes.broken_off(file, self._attempt(file))
        except Exception:  # noqa: BLE001 - a bug in a store may stop nobody else's files
            self.outcomes.met_a_bug(file)
            await self._failed(file, "a bug, see above")
        else:
            self._answered(file, authorities)
            await self._delivered(file, self._clock.seconds() - begun)
        finally:
            if self._pauses.end(file):
                self._schedule.resume()
        await self._give_up_if_exhausted(file.bucket)
        self._fill()

    async def _put(self, file: StagedFile) -> None:
        key = layout.key_of_file(file.start, file.name)
        self._puts[file] = defer.ensureDeferred(self._store.put(file.tenant, key, self._backlog.path(file)))
        try:
            await self._puts[file]
        finally:
            del self._puts[file]

    def _attempt(self, file: StagedFile) -> int:
        return self._schedule.attempts(file.bucket) + 1

    def _answered(self, file: StagedFile, authorities: tuple[str, ...], before: str | None = None) -> None:
        for authority in self._pauses.answered(file, authorities, before):
            self.outcomes.works_again(authority)
            self._schedule.resume()

    def _pause(self, file: StagedFile, exc: Paused) -> None:
        now = self._clock.seconds()
        is_new = self._pauses.of(exc.authority) is None
        pause = self._pauses.failed(file, exc.authority, str(exc), exc.retry_after, now, self._chance())
        self.outcomes.paused(file, pause, self._attempt(file), now, is_new=is_new)

    async def _delivered(self, file: StagedFile, seconds: float) -> None:
        attempt = self._attempt(file)
        try:
            records, is_last = await self._worker.run(self._put_away, file)
        except OSError as exc:
            await self._failed(file, f"it was delivered, but cannot be deleted here: {exc.strerror}")
            return
        self._schedule.delivered(file)
        if is_last:
            self._schedule.forget(file.bucket)
        self.outcomes.delivered(file, attempt, seconds, self._clock.seconds(), records)
        self._track(self._retry_failed())

    def _put_away(self, file: StagedFile) -> tuple[int, bool]:
        records = self._records.take(file.name, self._backlog.path(file))
        return records, self._backlog.discard(file)

    async def _failed(self, file: StagedFile, reason: str) -> None:
        if not await self._worker.run(self._backlog.has, file):
            self.outcomes.vanished(file, self._attempt(file))
            self._schedule.delivered(file)
            return
        self.outcomes.failed(file, reason, self._schedule.failed(file), self._clock.seconds())

    async def _give_up_if_exhausted(self, bucket: str) -> None:
        if not self._schedule.exhausted(bucket):
            return
        attempts = self._schedule.attempts(bucket)
        self._schedule.give_up(bucket)
        try:
            await self._worker.run(self._backlog.give_up, bucket)
        except OSError as exc:
            self.outcomes.disk_failed(f"{bucket} cannot be moved to failed", exc)
        else:
            self.outcomes.given_up(bucket, attempts)
        finally:
            self._schedule.forget(bucket)
