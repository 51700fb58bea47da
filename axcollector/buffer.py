"""The record buffer: for a program that has one record at a time, and does not want to wait.

    add ─► a queue a scope ─► batches ─► target.submit ─► accepted
                                              └─► the bad records of a batch found, one by one; the others sent again

A record is written as JSON when it is added, at about a microsecond: it may be changed afterwards, what is held is
known to the byte, and it is nothing to the garbage collector. A batch of a scope is sent when it has so many records
or bytes, or when its first record is so old. One batch of a scope is under way at a time, so its records stay in order;
scopes know nothing of each other. What is held is bounded, and so is what waits (`core.queues`).

What a target says decides (`persistent`); where it refuses a batch on account of records, the batch is sent again in
parts (`core.isolation`), until the bad ones are known: those are refused, counted and told in the log.
"""

import random
from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import IService, Service
from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from axcollector.bugs import report
from axcollector.complaints import Complaints
from axcollector.core.bounds import Bounds, Counts, Full, check_positive
from axcollector.core.errors import Overloaded, Rejected
from axcollector.core.isolation import OF_RECORDS, without_index
from axcollector.core.queues import Gathering, Queue
from axcollector.core.recordtext import Record, text_of
from axcollector.on_stop import Once
from axcollector.persistent import GivenUp, Persistent, Target

_Waiter = defer.Deferred[None]


class RecordBuffer(Service):
    """Gathers single records into batches for a target.

    A target that is a service and does not run when the buffer is started is started before it, and stopped behind it:
    it needs no parent of its own. One that runs already is left to whoever started it, to be stopped after the buffer.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - time, as every reactor has it
        target: Target,
        *,
        batch_records: int = 500,
        batch_bytes: int = 1 << 18,
        batch_seconds: float = 1.0,
        max_records: int = 100_000,
        max_bytes: int = 64 << 20,
        full: str = Full.DROP_NEW,
        concurrency: int = 64,
        stop_seconds: float = 5.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is held yet, nothing started.

        Args:
            reactor: Tells and schedules time.
            target: Where batches go.
            batch_records: A batch of so many records is sent at once.
            batch_bytes: So is one of so many bytes of JSON.
            batch_seconds: No record waits longer for others to come.
            max_records: So many may be held, half of them of one scope.
            max_bytes: So many bytes of JSON may be, half of them of one scope.
            full: What happens beyond: `drop_new`, `drop_old` or `wait`.
            concurrency: So many batches are under way at a time, of different scopes.
            stop_seconds: How long a stop waits for what is held to be taken.
            chance: Gives numbers in [0, 1), for the jitter of retries.

        Raises:
            ValueError: A number is not positive, or `full` is none of the three.
        """
        check_positive(batch_records=batch_records, batch_bytes=batch_bytes, batch_seconds=batch_seconds)
        check_positive(max_records=max_records, max_bytes=max_bytes, concurrency=concurrency)
        self._clock = reactor
        self._target = target
        self._full = Full(full)
        self._gathering: Gathering[_Waiter] = Gathering(
            Bounds(batch_records, batch_bytes, max_records, max_bytes), self._full
        )
        self._batch_seconds = batch_seconds
        self._stop_seconds = stop_seconds
        self._persistent = Persistent(reactor, target, concurrency, chance)
        self._refusals = Complaints(reactor, "records were refused")
        self._losses = Complaints(reactor, "records were lost")
        self._due: dict[str, IDelayedCall | None] = {}  # None: it is, and has to wait for the batch under way
        self._tasks: dict[str, defer.Deferred[None] | None] = {}
        self._owns_target = False
        self._is_sending = False
        self._is_closed = False
        self._flushed: defer.Deferred[None] | None = None
        self._stop = Once(self._stop_all)

    @property
    def counts(self) -> Counts:
        """What became of the records that were added; from the making of the buffer."""
        return self._gathering.counts(self._persistent.retried)

    def add(self, scope: str, record: Record) -> "defer.Deferred[None] | None":
        """Take a record, to be sent soon; before the start, when it has come.

        It takes a few microseconds, never raises and never waits. What becomes of the record is counted (`counts`).

        Args:
            scope: The scope of the tenant whose record it is.
            record: A dict, or the JSON text of one object as bytes. It may be changed afterwards.

        Returns:
            None: it is held, or, with the policies `drop_new` and `drop_old`, was dropped.
            With the policy `wait`, where there is no room, a Deferred: fires when it is held. Fails with `Overloaded`
            when it was dropped, because too many wait or the buffer was stopped. Cancelling drops it.
        """
        if self._is_closed:
            self._gathering.lose("stopped")
            return self._no_room("The buffer is stopped")
        try:
            text = text_of(record)
        except Rejected as exc:
            self._gathering.refuse(exc.code)
            self._refusals.note(scope, 1, exc.reason)
            return None
        displaced = self._gathering.displaced
        queue = self._gathering.offer(scope, text)
        self._losses.note(scope, self._gathering.displaced - displaced, "the buffer is full, or a record too large")
        if queue is None:
            return self._let_wait(scope, text) if self._full is Full.WAIT else None
        self._look_after(queue)
        return None

    def _no_room(self, reason: str) -> "defer.Deferred[None] | None":
        return defer.fail(Overloaded(reason)) if self._full is Full.WAIT else None

    def _let_wait(self, scope: str, text: bytes) -> "defer.Deferred[None] | None":
        waiter: defer.Deferred[None] = defer.Deferred(lambda waiter: self._gathering.give_up(scope, waiter))
        return (
            waiter
            if self._gathering.let_wait(scope, text, waiter)
            else self._no_room("Too many records wait, or this one is too large")
        )

    def startService(self) -> None:
        """Begin to send, to a target that is started first if it does not run.

        Raises:
            Exception: What the start of the target raises; nothing is started then.
        """
        if IService.providedBy(self._target) and not cast("IService", self._target).running:
            cast("IService", self._target).startService()
            self._owns_target = True
        self.running = self._is_sending = True
        self._is_closed = False
        self._persistent.begin()
        for queue in list(self._gathering.queues.values()):
            self._look_after(queue)

    def _look_after(self, queue: Queue[_Waiter]) -> None:
        """See to it that a scope's records are sent: now, or in time."""
        scope = queue.scope
        if scope not in self._due and self._is_sending:
            self._due[scope] = self._clock.callLater(self._batch_seconds, self._fall_due, scope)
        if self._gathering.is_full(queue):
            self._send(queue)

    def _fall_due(self, scope: str) -> None:
        self._due[scope] = None
        queue = self._gathering.queues.get(scope)
        if queue is not None:
            self._send(queue)
        else:
            self._disarm(scope)

    def _disarm(self, scope: str) -> None:
        call = self._due.pop(scope, None)
        if call is not None:
            call.cancel()

    def _send(self, queue: Queue[_Waiter]) -> None:
        """Send what is due of a scope, unless that is being done."""
        scope = queue.scope
        if self._is_sending and scope not in self._tasks:
            self._tasks[scope] = None
            task = defer.Deferred.fromCoroutine(self._work(queue))
            if self._tasks.get(scope, task) is None:  # else it has ended, and another may have begun
                self._tasks[scope] = task

    def _is_due(self, queue: Queue[_Waiter]) -> bool:
        is_late = queue.scope in self._due and self._due[queue.scope] is None
        return bool(queue.texts) and (is_late or self._is_closed or self._gathering.is_full(queue))

    async def _work(self, queue: Queue[_Waiter]) -> None:
        try:
            while self._is_due(queue):
                self._disarm(queue.scope)
                self._gathering.begin(queue)
                if queue.texts:
                    self._look_after(queue)
                while queue.under_way:
                    await self._hand_over(queue)
        except defer.CancelledError:
            return
        except Exception:  # noqa: BLE001 - nobody waits for this
            report(self._log, "the records of scope {scope} cannot be sent", scope=queue.scope)
        finally:
            self._end_work(queue.scope)

    def _end_work(self, scope: str) -> None:
        del self._tasks[scope]
        queue = self._gathering.queues.get(scope)
        if queue is not None and not queue.under_way and self._is_due(queue):
            self._send(queue)
        if self._flushed is not None and not self._gathering.queues and not self._flushed.called:
            self._flushed.callback(None)

    async def _hand_over(self, queue: Queue[_Waiter]) -> None:
        """Send the head of the batch under way, until the target has said what becomes of it."""
        gathering, scope = self._gathering, queue.scope
        try:
            accepted = await self._persistent.submit(scope, queue.under_way.head)
        except Rejected as exc:
            of_records = exc.code in OF_RECORDS
            refused = (
                gathering.divided(queue, exc.code, exc.reason) if of_records else gathering.refused(queue, exc.code)
            )
            self._refusals.note(scope, refused, f"{exc.code}: {without_index(exc)}")
        except GivenUp as exc:
            self._losses.note(scope, gathering.drop_head(queue, "failed"), str(exc))
        else:
            gathering.accepted(queue, accepted)
        for admitted, waiter in gathering.admit(queue):
            self._look_after(admitted)
            waiter.callback(None)

    def stopService(self) -> "defer.Deferred[None]":
        """Take no more records, and send all that is held.

        Fires when it is taken, at the latest after `stop_seconds`, and then, where the buffer has started its target,
        when that has stopped. What was not taken by then is dropped, counted and told; of a batch that was under way it
        is not known whether it was taken. At half of that time a target that has `hurry` (a `Client`) is told so.
        Fails with what the stop of the target fails with.
        """
        self.running = False
        self._is_closed = True
        return self._stop.run()

    async def _stop_all(self) -> None:
        for queue in list(self._gathering.queues.values()):
            self._send(queue)
        self._persistent.hurry()
        await self._flush()
        if self.running:  # it was started again meanwhile
            return
        self._abandon()
        if self._owns_target:
            self._owns_target = False
            await defer.maybeDeferred(cast("IService", self._target).stopService)

    async def _flush(self) -> None:
        if not (self._is_sending and self._gathering.queues):
            return
        self._flushed = defer.Deferred()
        hurry = getattr(self._target, "hurry", lambda: None)
        late = [
            self._clock.callLater(self._stop_seconds / 2, hurry),
            self._clock.callLater(self._stop_seconds, self._flushed.callback, None),
        ]
        await self._flushed
        for each in late:
            if each.active():
                each.cancel()

    def _abandon(self) -> None:
        """Send nothing any more, and drop what is held yet."""
        self._is_sending = False
        self._persistent.end()
        for task in list(self._tasks.values()):
            if task is not None:
                task.cancel()
        for scope in list(self._due):
            self._disarm(scope)
        waiters = []
        for queue in list(self._gathering.queues.values()):
            lost = queue.held + len(queue.texts) + len(queue.waiting)
            waiters += self._gathering.drop_all(queue, "stopped")
            self._losses.note(queue.scope, lost, "they could not be sent before the stop")
        self._refusals.tell()
        self._losses.tell()
        for waiter in waiters:
            waiter.errback(Overloaded("The buffer is stopped"))
