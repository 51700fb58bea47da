"""Sending very many records to a collector: batches side by side, and what became of each record.

A batch is refused as a whole when one record is bad; it is sent again in parts until the bad ones are known
(`core/isolation`), so that they alone are refused. What is refused for another reason (an unknown scope, a token) would
be refused again, and ends it, as does a collector that cannot be had for too long: the batches under way are waited
for, and no new ones begun.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from twisted.internet import defer
from twisted.python.failure import Failure

from axcollector.core.errors import Refusal, Rejected
from axcollector.core.isolation import OF_RECORDS, Parts, without_index

MOST_REMEMBERED: Final = 1000
"""So many refused records are remembered one by one, and the others counted."""


class Submitter(Protocol):
    """A client; `axcollector.client.Client` is one."""

    def submit(self, scope: str, records: Sequence[bytes], /) -> "defer.Deferred[int]":
        """Send a batch. Fires with how many were accepted; fails with a `Refusal`."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands in what is sent.

    Attributes:
        line: In which line, counted from 1; 0: in a document of several lines.
        record: Which of a document's it is, counted from 0; None: it is the line.
    """

    line: int
    record: int | None = None

    def __str__(self) -> str:
        parts = [f"line {self.line}"] if self.line else []
        return ", ".join([*parts, *([] if self.record is None else [f"record {self.record}"])])


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to be sent together.

    Attributes:
        texts: Theirs.
        places: Where each stands.
        bad: The places of what is no JSON object, met since the batch before; it is not sent.
        position: How many bytes of the input were read by then.
        is_last: Whether nothing comes behind it.
    """

    texts: Sequence[bytes]
    places: Sequence[Place]
    bad: Sequence[Place] = ()
    position: int = 0
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that was refused, and why."""

    place: Place
    code: str
    reason: str


@dataclass(slots=True)
class Result:
    """What became of all records.

    Attributes:
        accepted: How many were.
        set_aside: How many the collector took and set aside, because they are invalid.
        refused: How many were refused.
        unsent: How many of batches that were begun were not accepted, through no fault of theirs.
        refusals: The first of those that were refused.
        gaps: The first and the last of runs of those that are unsent.
        last: The last record that was begun.
        is_complete: Whether there is nothing behind that one.
        problem: What ended it before its time; None: nothing.
    """

    accepted: int = 0
    set_aside: int = 0
    refused: int = 0
    unsent: int = 0
    refusals: list[Refused] = field(default_factory=list)
    gaps: list[tuple[Place, Place]] = field(default_factory=list)
    last: Place | None = None
    is_complete: bool = False
    problem: Refusal | None = None

    def refuse(self, place: Place, code: str, reason: str) -> None:
        """Note a record that was refused."""
        self.refused += 1
        if len(self.refusals) < MOST_REMEMBERED:
            self.refusals.append(Refused(place, code, reason))


class Sending:
    """Sends the batches that somebody gives.

    Attributes:
        result: What became of them so far.
    """

    def __init__(
        self,
        client: Submitter,
        scope: str,
        next_batch: "Callable[[], defer.Deferred[Batch | None]]",
        tell: Callable[[Batch], object],
    ) -> None:
        """Send nothing yet.

        Args:
            client: Who sends.
            scope: Whose records they are.
            next_batch: Gives the next batch, or None when there are no more.
            tell: Is told of each batch that is dealt with.
        """
        self._client = client
        self._scope = scope
        self._next_batch = next_batch
        self._tell = tell
        self._asking: set[defer.Deferred[Batch | None]] = set()
        self._ending = False
        self.result = Result()

    async def run(self, concurrency: int) -> None:
        """Send all of them, so many at a time.

        Raises:
            Exception: What `next_batch` fails with; the batches under way have been waited for.
        """
        senders: list[defer.Deferred[object]] = [defer.ensureDeferred(self._send_on()) for _ in range(concurrency)]
        outcomes: Sequence[tuple[bool, object]] = await defer.DeferredList(senders, consumeErrors=True)
        for _, outcome in outcomes:
            if isinstance(outcome, Failure):
                outcome.raiseException()

    async def _send_on(self) -> None:
        try:
            while not self._ending and (batch := await self._given()) is not None:
                await self._send(batch)
                self._tell(batch)
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        """Begin no more batches."""
        self._ending = True
        for asking in list(self._asking):
            asking.cancel()

    async def _given(self) -> Batch | None:
        """The next batch; None also when something has ended it meanwhile: who writes to a pipe may never go on."""
        asking = self._next_batch()
        self._asking.add(asking)
        try:
            batch = await asking
        except defer.CancelledError:
            if not self._ending:
                raise
            return None
        finally:
            self._asking.discard(asking)
        if batch is not None:
            for place in batch.bad:
                self.result.refuse(place, "BAD_DATA", "it is no JSON object, and was not sent")
            self.result.last = batch.places[-1] if batch.places else self.result.last
        self.result.is_complete = batch is None or batch.is_last
        return batch

    async def _send(self, batch: Batch) -> None:
        parts = Parts(batch.texts)
        done = 0  # parts are sent in their order, so that these are the first
        try:
            while parts:
                done += await self._send_head(parts, batch.places[done:])
        except Refusal as exc:
            self.result.problem = self.result.problem or exc
            self._end()
        finally:
            if done < len(batch.texts):
                self.result.unsent += len(batch.texts) - done
                self.result.gaps.append((batch.places[done], batch.places[-1]))

    async def _send_head(self, parts: Parts, places: Sequence[Place]) -> int:
        """Send what is next of a batch; how many of its records are dealt with by that."""
        result, head = self.result, parts.head
        try:
            accepted = await self._client.submit(self._scope, head)
        except Rejected as exc:
            if exc.code not in OF_RECORDS:
                raise
            bad = parts.divide(exc.reason)
            for place, _ in zip(places, bad, strict=False):
                result.refuse(place, exc.code, without_index(exc))
            return len(bad)
        parts.take()
        result.accepted += accepted
        result.set_aside += max(0, len(head) - accepted)
        return len(head)
