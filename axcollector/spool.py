"""The spool: makes batches durable, one write and one fsync for all that wait, whatever tenants they are of.

This is the reactor's side: it keeps who waits (`GroupCommit`), gives the writer thread one group at a time, and tells
each waiter how it went. The thread's side, which owns the journal, is `JournalWriter`.
"""

from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from axcollector.bugs import report
from axcollector.core.commit import Entry, GroupCommit
from axcollector.core.errors import Overloaded, SpoolFailed
from axcollector.core.layout import JournalName
from axcollector.core.model import Batch
from axcollector.core.tally import Tally
from axcollector.core.traces import without_trace
from axcollector.journal import JournalWriter
from axcollector.quarantine import Quarantine
from axcollector.services import Worker

STUCK_SECONDS = 10.0
"""A commit that takes longer is told of."""
DOUBT_SECONDS = 30.0
"""So long a commit that failed is taken for what the next one would do."""

_Waiter = Callable[[Failure | None], None]


class Spool:
    """The reactor's side: takes batches, and says when each is durable."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        writer: JournalWriter,
        group: GroupCommit[_Waiter],
        quarantine: Quarantine | None = None,
        tally: Tally | None = None,
        *,
        wait: bool = True,
    ) -> None:
        """Put the parts together.

        Args:
            clock: Tells the wall-clock time.
            worker: The writer thread.
            writer: What it runs.
            group: Who waits.
            quarantine: Knows whether there is room for records that were set aside; None: there always is.
            tally: Counts what becomes durable; None: nobody asks.
            wait: Whether `submit` waits for the write; not, with `durability: memory`.
        """
        self._clock = clock
        self._worker = worker
        self._writer = writer
        self._group = group
        self._quarantine = quarantine
        self._tally = tally or Tally()
        self._wait = wait
        self._began_at: float | None = None
        self._failed_at = 0.0
        self._closing: defer.Deferred[None] | None = None
        self._pausing: IDelayedCall | None = None
        self.failing = False

    @property
    def waiting(self) -> int:
        """How many batches wait for a commit."""
        return self._group.waiting

    @property
    def waiting_bytes(self) -> int:
        """The bytes of their lines."""
        return self._group.waiting_bytes

    @property
    def open_buckets(self) -> int:
        """How many buckets the open journal will make."""
        return self._writer.open_buckets

    def problem(self) -> str | None:
        """What is wrong with commits: one lasts, or the last one failed just now.

        Not for ever: whoever sends nothing to those who are not ready would never learn that a commit would succeed.
        """
        now = self._clock.seconds()
        if self._began_at is not None and now - self._began_at > STUCK_SECONDS:
            return f"A commit has been under way for {now - self._began_at:.0f} s: the disk does not answer"
        # One that lies ahead was before the clock was set back, nobody knows how long.
        return "The last commit failed" if self.failing and 0 <= now - self._failed_at <= DOUBT_SECONDS else None

    def check_room(self) -> None:
        """Refuse what could not be taken now.

        Raises:
            Overloaded: Too much waits, or the spool is closed.
        """
        if self._closing is not None:
            raise Overloaded("The service is stopping", Overloaded.DEFAULT_RETRY_AFTER)
        self._group.check_room()

    def submit(self, batch: Batch) -> "defer.Deferred[None]":
        """Make a batch durable.

        Fires when it is. Fails at once with `Overloaded` where too much waits, and with `SpoolFailed` where what it
        sets aside has no room; later with `SpoolFailed` where the write failed; then nothing of it is kept. Cancelling
        forgets the waiter and nothing more: the batch may be kept.
        """
        result: defer.Deferred[None] = defer.Deferred()
        try:
            self.put(batch, partial(_tell, result))
        except (Overloaded, SpoolFailed) as exc:
            result.errback(Failure(without_trace(exc)))
        return result

    def put(self, batch: Batch, waiter: _Waiter) -> None:
        """Make a batch durable, and call `waiter`, with None once it is, or with why it is not.

        The hot path: it makes no Deferred.

        Raises:
            Overloaded: Too much waits.
            SpoolFailed: What it sets aside has no room.
        """
        if self._closing is not None or batch.aside:
            self.check_room()
        if batch.aside and self._quarantine is not None:
            self._quarantine.hold(len(batch.aside))
        self._group.add(batch, waiter if self._wait else _nobody)
        self._commit()
        if not self._wait:
            waiter(None)

    def _commit(self) -> None:
        """Begin the next write, or wait for others who may go with it."""
        now = self._clock.seconds()
        pause = 0.0 if self._closing is not None else self._group.pause(now)
        if pause:
            if self._pausing is None:
                self._pausing = self._clock.callLater(pause, self._pause_over)
            return
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        self._begin(now)

    def _pause_over(self) -> None:
        self._pausing = None
        self._begin(self._clock.seconds())

    def _begin(self, now: float) -> None:
        group = self._group.take(now)
        if group:
            batches = [entry.batch for entry in group]
            self._began_at = now
            written = self._worker.run(self._writer.write, batches, now)
            written.addCallbacks(self._succeeded, self._failed)
            written.addErrback(lambda failure: report(self._log, "a commit's end went wrong", failure))
        elif self._closing is not None and not self._closing.called and not self._group.waiting:
            self._closing.callback(None)

    def _succeeded(self, _: object) -> None:
        if self.failing:
            self.failing = False
            self._log.info("the spool can be written again")
        self._settle(None)

    def _failed(self, failure: Failure) -> None:
        # The client is told what failed, and not where; nor what a bug says.
        reason = getattr(failure.value, "strerror", None) or "the log says why"
        if not failure.check(OSError):
            report(self._log, "a commit failed", failure)
        elif not self.failing:
            problem = str(failure.value)
            self._log.error("the spool cannot be written: {problem}; batches get 503 until it can", problem=problem)
        self.failing = True
        self._failed_at = self._clock.seconds()
        self._settle(Failure(SpoolFailed(f"The batch could not be stored: {reason}")))

    def _settle(self, failure: Failure | None) -> None:
        now = self._clock.seconds()
        group: Sequence[Entry[_Waiter]] = self._group.settled(now)
        began_at, self._began_at = self._began_at or 0.0, None
        if failure is None:
            self._tally.committed([entry.batch for entry in group], now - began_at, now)
        aside = [entry.batch for entry in group if entry.batch.aside]
        if aside and self._quarantine is not None:
            size = sum(len(batch.aside) for batch in aside)
            count = sum(batch.aside_count for batch in aside)
            self._quarantine.settle(size, 0 if failure is not None else count)
        self._commit()
        for entry in group:
            try:
                entry.waiter(failure)
            except Exception:  # noqa: BLE001 - the others wait, too
                report(self._log, "one who waited for a commit could not be told how it went")

    def finish_due(self) -> "defer.Deferred[None]":
        """Finish the open journal if the present interval is another. Fires when that is done."""
        if self._closing is not None:
            return defer.succeed(None)
        return self._worker.run(self._writer.finish_over, self._clock.seconds())

    def finish_open(self) -> "defer.Deferred[None]":
        """Finish the open journal, whatever its interval; the next batch opens another. Fires when that is done."""
        return self._worker.run(self._writer.finish)

    def is_abandoned(self, journal: JournalName) -> bool:  # noqa: ARG002 - the interface of whoever writes journals
        """Whether whoever wrote a journal is gone: nobody, while this is here."""
        return False

    def close(self) -> "defer.Deferred[None]":
        """Take no more batches. Fires when all that waited are written and answered, and the journal is finished."""
        if self._closing is None:
            self._closing = defer.Deferred()
            self._commit()
        done: defer.Deferred[None] = defer.Deferred()
        self._closing.addCallback(lambda _: self._worker.run(self._writer.finish))
        self._closing.addBoth(done.callback)
        return done


def _tell(result: "defer.Deferred[None]", failure: Failure | None) -> None:
    """Tell who waits how it went, unless he does so no more."""
    if result.called:
        return
    if failure is None:
        result.callback(None)
    else:
        result.errback(failure)


def _nobody(failure: Failure | None) -> None:
    """Who waits for a batch that was acknowledged before it was written."""
