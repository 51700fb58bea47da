"""Delivers what is in staging. The directories are its only state, so a restart just looks at them again.

A sweep lists staging and hands what it finds to the `Schedule`, which says what goes next; every upload that ends
makes room for the next one. What becomes of a file:

* delivered: it is deleted, and so is its bucket when that was the last one; some of failed gets another chance.
* an authority is unavailable (`Paused`): it stays where it is, and so do all that need that authority (`Pauses`).
* not delivered for another reason: its bucket's attempt; with too many of them the bucket is moved to failed.
* vanished meanwhile: nothing.

Everything that touches the disk runs in a `Worker`, which does one thing after the other: what a listing says cannot be
overtaken by a deletion or a move that was asked for after it.
"""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from axcollector.buckets import Listing, Stages
from axcollector.core import layout
from axcollector.core.delivery import UploaderStatus
from axcollector.core.errors import Paused, UploadFailed
from axcollector.core.retry import Pauses
from axcollector.core.schedule import Schedule, StagedFile
from axcollector.disk import Disk
from axcollector.services import Periodic, Worker
from axcollector.stores.base import Store

RETRY_FAILED_SECONDS: Final = 600.0
"""How often buckets of failed get another chance, even if nothing is delivered."""


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
    ) -> None:
        self._clock = clock
        self._worker = worker
        self._stages = Stages(disk, data_directory)
        self._store = store
        self._interval = interval_seconds
        self._max_attempts = max_attempts
        self._failed_retry_batch = failed_retry_batch
        self._chance = chance
        self._schedule = Schedule(concurrency, max_attempts)
        self._pauses = Pauses()
        self._periodic: tuple[Periodic, ...] = ()
        self._puts: dict[StagedFile, defer.Deferred[None]] = {}
        self._tasks: set[defer.Deferred[None]] = set()
        self._waiters: list[defer.Deferred[None]] = []
        self._is_filling = False
        self._reported: dict[layout.Stage, set[tuple[str, str]]] = {stage: set() for stage in layout.Stage}
        self._status = UploaderStatus()

    def startService(self) -> None:
        """Begin to sweep; what is in failed gets its first chance at once."""
        super().startService()  # type: ignore[no-untyped-call]
        self._periodic = (
            Periodic(self._clock, RETRY_FAILED_SECONDS, "another chance for failed", self._bring_back),
            Periodic(self._clock, self._interval, "sweep of staging", self.sweep),
        )
        for periodic in self._periodic:
            periodic.startService()

    def stopService(self) -> "defer.Deferred[None]":
        """Begin no more uploads, and break those under way off; their files stay. Fires when all of it has settled."""
        super().stopService()  # type: ignore[no-untyped-call]
        return defer.Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for put in list(self._puts.values()):
            put.cancel()
        for periodic in self._periodic:
            await periodic.stopService()
        while self._tasks:
            ended: defer.Deferred[object] = defer.Deferred()
            next(iter(self._tasks)).addBoth(ended.callback)
            await ended
        for waiter in list(self._waiters):
            waiter.cancel()

    def status(self) -> UploaderStatus:
        """How delivery is going at this moment."""
        return replace(self._status, in_flight=self._schedule.in_flight, paused=self._pauses.current())

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
            listing = await self._worker.run(self._stages.staged)
        except OSError as exc:
            self._log.error("staging cannot be read: {reason}", reason=exc.strerror)
            return
        self._report(layout.Stage.STAGING, listing)
        self._schedule.refresh(listing.files)
        self._status = self._status.swept(listing.files)
        if not listing.files and self._schedule.idle:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)
        self._fill()

    def _report(self, stage: layout.Stage, listing: Listing) -> None:
        """Say once of each thing that it is in the way; what has left staging may come again, and is told again."""
        known = self._reported[stage]
        for what, why in listing.foreign:
            if (what, why) not in known:
                self._log.warn("{what} in {stage} is left alone: {why}", what=what, stage=stage.value, why=why)
        self._reported[stage] = {*listing.foreign, *(known if stage is layout.Stage.FAILED else ())}

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

    def _may_go(self, tenant: str) -> bool:
        return self._pauses.let_through(self._store.authorities(tenant), self._clock.seconds())

    def _track(self, work: Coroutine["defer.Deferred[Any]", Any, None]) -> None:
        """Let something go on by itself, until it ends or, at the latest, until stopping waits for it."""
        task = defer.Deferred.fromCoroutine(work)
        self._tasks.add(task)
        task.addErrback(self._ended_early)
        task.addBoth(lambda _: self._tasks.discard(task))

    def _ended_early(self, failure: Failure) -> None:
        if not failure.check(defer.CancelledError):
            self._log.failure("an upload met a bug", failure)

    async def _upload(self, file: StagedFile) -> None:
        authorities = self._store.authorities(file.tenant)
        self._pauses.begin(file, authorities)
        begun = self._clock.seconds()
        try:
            await self._put(file)
        except Paused as exc:
            self._schedule.postpone(file)
            self._answered(file, authorities, before=exc.authority)
            self._pause(file, exc)
        except UploadFailed as exc:
            await self._failed(file, str(exc))
        except defer.CancelledError:
            self._schedule.postpone(file)
        except Exception:  # noqa: BLE001 - a bug in a store may stop nobody else's files
            self._log.failure("uploading {bucket}/{file} met a bug", bucket=file.bucket, file=file.name)
            await self._failed(file, "a bug, see above")
        else:
            self._answered(file, authorities)
            await self._delivered(file, self._clock.seconds() - begun)
        finally:
            self._pauses.end(file)
        await self._give_up_if_exhausted(file.bucket)
        self._fill()

    async def _put(self, file: StagedFile) -> None:
        key = layout.key_of_file(file.start, file.name)
        self._puts[file] = self._store.put(file.tenant, key, self._stages.path(file))
        try:
            await self._puts[file]
        finally:
            del self._puts[file]

    def _answered(self, file: StagedFile, authorities: tuple[str, ...], before: str | None = None) -> None:
        for authority in self._pauses.answered(file, authorities, before):
            self._log.info("{authority} works again", authority=authority)

    def _pause(self, file: StagedFile, exc: Paused) -> None:
        now = self._clock.seconds()
        is_new = self._pauses.of(exc.authority) is None
        pause = self._pauses.failed(file, exc.authority, str(exc), exc.retry_after, now, self._chance())
        self._log.emit(
            LogLevel.warn if is_new else LogLevel.debug,
            "{authority} is paused for {seconds:.1f} s: {reason}; its files wait, no attempt is counted",
            authority=pause.authority,
            seconds=pause.until - now,
            reason=str(exc),
        )

    async def _delivered(self, file: StagedFile, seconds: float) -> None:
        attempt = self._schedule.attempts(file.bucket) + 1
        try:
            await self._worker.run(self._stages.discard, file.bucket, file.name)
        except OSError as exc:
            await self._failed(file, f"it was delivered, but cannot be deleted here: {exc.strerror}")
            return
        self._schedule.delivered(file)
        self._status = self._status.delivered(file.size)
        self._log.info(
            "delivered {bucket}/{file}: {bytes} bytes, attempt {attempt}, {seconds:.3f} s",
            bucket=file.bucket,
            file=file.name,
            bytes=file.size,
            attempt=attempt,
            seconds=seconds,
        )
        self._track(self._bring_back())

    async def _failed(self, file: StagedFile, reason: str) -> None:
        if not await self._worker.run(self._stages.has, file):
            self._schedule.delivered(file)
            self._log.info("{bucket}/{file} vanished before it was delivered", bucket=file.bucket, file=file.name)
            return
        attempts = self._schedule.failed(file)
        self._status = self._status.failed()
        self._log.warn(
            "{bucket}/{file} was not delivered: {reason}; attempt {attempt} of {attempts}, then {then}",
            bucket=file.bucket,
            file=file.name,
            reason=reason,
            attempt=attempts,
            attempts=self._max_attempts,
            then="its bucket goes to failed" if attempts >= self._max_attempts else "the next sweep tries again",
        )

    async def _give_up_if_exhausted(self, bucket: str) -> None:
        if not self._schedule.exhausted(bucket):
            return
        attempts = self._schedule.attempts(bucket)
        self._schedule.give_up(bucket)
        try:
            await self._worker.run(self._stages.give_up, bucket)
        except OSError as exc:
            self._log.error("{bucket} cannot be moved to failed: {reason}", bucket=bucket, reason=exc.strerror)
        else:
            self._status = self._status.given_up()
            self._log.error("{bucket} moved to failed after {attempts} attempts", bucket=bucket, attempts=attempts)
        finally:
            self._schedule.forget(bucket)

    async def _bring_back(self) -> None:
        """Give some of failed another chance."""
        try:
            listing = await self._worker.run(self._stages.bring_back, self._failed_retry_batch)
        except OSError as exc:
            self._log.error("failed cannot be read: {reason}", reason=exc.strerror)
            return
        self._report(layout.Stage.FAILED, listing)
        if listing.buckets:
            self._log.info("{buckets} buckets of failed get another chance", buckets=listing.buckets)
        self._schedule.add(listing.files)
        self._fill()
