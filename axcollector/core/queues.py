"""Single records gathered into batches, one queue a scope: what is held, what may be, and what became of the rest.

Every record that was offered is, at any moment, exactly one of: accepted, set aside, refused, dropped, pending (in a
queue, or in the batch under way of one), or waiting for room. `Counts` tells how many are which.

What is pending is bounded in records and in bytes of JSON text. One scope may hold half of that, so that a scope whose
records nobody takes leaves the other half to the others. Beyond, the policy decides:

* `drop_new`: the record that comes is dropped.
* `drop_old`: the oldest record of its scope is, or, where all scopes together hold too much, of one of those that
  hold most; never one of a batch under way. Where that makes no room the record that comes is dropped.
* `wait`: it waits, in turn, for room. What waits is bounded too, by as much as may be pending; beyond, it is dropped.

A record too large for the half is dropped. Pure.
"""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from axcollector.core.bounds import Bounds, Counts, Full
from axcollector.core.isolation import Parts

W = TypeVar("W")


class Queue(Generic[W]):
    """What is held of one scope.

    Attributes:
        scope: The scope.
        texts: The records that are in no batch yet.
        bytes: How many bytes those have.
        under_way: The batch that is under way, as far as it is not dealt with; its records are held too.
        held: How many records it has.
        held_bytes: How many bytes those have.
        waiting: The records that wait for room, each with whoever waits.
    """

    __slots__ = ("bytes", "held", "held_bytes", "scope", "texts", "under_way", "waiting")

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.texts: deque[bytes] = deque()
        self.bytes = 0
        self.under_way = Parts(())
        self.held = 0
        self.held_bytes = 0
        self.waiting: deque[tuple[bytes, W]] = deque()


class Gathering(Generic[W]):
    """The queues of all scopes; `W` is whoever waits for room.

    Attributes:
        queues: The queue of each scope of which something is held or waits.
        displaced: How many records were dropped because there was no room.
    """

    def __init__(self, bounds: Bounds, full: Full) -> None:
        self.queues: dict[str, Queue[W]] = {}
        self.displaced = 0
        self._bounds = bounds
        self._full = full
        self._records_each = max(1, bounds.max_records // 2)
        self._bytes_each = bounds.max_bytes // 2
        self._records = self._bytes = 0
        self._waiting = self._waiting_bytes = 0
        self._added = self._accepted = self._set_aside = 0
        self._refused: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._fullest: Queue[W] | None = None
        self._with_waiting: dict[str, Queue[W]] = {}

    def counts(self, retried: int) -> Counts:
        """What became of all that was offered, given how often a batch was sent again."""
        return Counts(
            self._added,
            self._accepted,
            self._set_aside,
            dict(self._refused),
            dict(self._dropped),
            retried,
            self._records,
            self._bytes,
            self._waiting,
        )

    def offer(self, scope: str, text: bytes) -> Queue[W] | None:
        """Take a record. The queue that it is in, or None: there is no room for it, and it was dropped.

        With `wait` it was not dropped: ask `let_wait` then.
        """
        self._added += 1
        queue = self.queues.get(scope) or self.queues.setdefault(scope, Queue(scope))
        if not self._fits(queue, len(text)):
            if self._full is Full.WAIT:
                return None
            if not self._make_room(queue, len(text)):
                self._drop(queue, text)
                return None
        self._put(queue, text)
        return queue

    def let_wait(self, scope: str, text: bytes, waiter: W) -> bool:
        """With `wait`: let a record wait that was offered. Whether it may; else it was dropped."""
        queue = self.queues[scope] if scope in self.queues else self.queues.setdefault(scope, Queue(scope))
        bounds = self._bounds
        is_full = self._waiting >= bounds.max_records or self._waiting_bytes + len(text) > bounds.max_bytes
        if is_full or len(text) > self._bytes_each:
            self._drop(queue, text)
            return False
        queue.waiting.append((text, waiter))
        self._with_waiting[scope] = queue
        self._waiting += 1
        self._waiting_bytes += len(text)
        return True

    def _drop(self, queue: Queue[W], text: bytes) -> None:
        """Drop a record that comes."""
        self.displaced += 1
        self._dropped["full" if len(text) <= self._bytes_each else "too_large"] += 1
        self._forget_empty(queue)

    def lose(self, reason: str, count: int = 1) -> None:
        """Records came that can be taken by nobody; they are dropped without having been offered."""
        self._added += count
        self._dropped[reason] += count

    def refuse(self, code: str) -> None:
        """A record came that is none; it is refused without having been offered."""
        self._added += 1
        self._refused[code] += 1

    def is_full(self, queue: Queue[W]) -> bool:
        """Whether the next batch of a scope is."""
        return len(queue.texts) >= self._bounds.batch_records or queue.bytes >= self._bounds.batch_bytes

    def begin(self, queue: Queue[W]) -> None:
        """Begin the next batch of a scope, of which none is under way: `queue.under_way`."""
        bounds, texts, batch, size = self._bounds, queue.texts, list[bytes](), 0
        while texts and len(batch) < bounds.batch_records and not (batch and size + len(texts[0]) > bounds.batch_bytes):
            size += len(texts[0])
            batch.append(texts.popleft())
        queue.under_way = Parts(batch)
        queue.held, queue.held_bytes = len(batch), size
        queue.bytes -= size

    def accepted(self, queue: Queue[W], count: int) -> None:
        """The target has taken the head of the batch under way, `count` records of it for delivery, and no less."""
        part = queue.under_way.take()
        count = min(count, len(part))
        self._accepted += count
        self._set_aside += len(part) - count
        self._release(queue, part)

    def divided(self, queue: Queue[W], code: str, reason: str) -> int:
        """The target refuses that head, on account of its records. How many of them are refused for good."""
        return self._refuse(queue, queue.under_way.divide(reason), code)

    def refused(self, queue: Queue[W], code: str) -> int:
        """The target refuses that head, whatever is in it. How many records that is."""
        return self._refuse(queue, queue.under_way.take(), code)

    def _refuse(self, queue: Queue[W], texts: Sequence[bytes], code: str) -> int:
        if texts:
            self._refused[code] += len(texts)
            self._release(queue, texts)
        return len(texts)

    def drop_head(self, queue: Queue[W], reason: str) -> int:
        """Give the head of the batch under way up. How many records that is."""
        part = queue.under_way.take()
        self._dropped[reason] += len(part)
        self._release(queue, part)
        return len(part)

    def drop_all(self, queue: Queue[W], reason: str) -> list[W]:
        """Give up all that is held of a scope, and what waits: those who wait."""
        self._dropped[reason] += queue.held + len(queue.texts) + len(queue.waiting)
        self._release(queue, queue.under_way.rest)
        queue.under_way = Parts(())
        self._records -= len(queue.texts)
        self._bytes -= queue.bytes
        queue.texts.clear()
        queue.bytes = 0
        waiters = [self._next_waiting(queue)[1] for _ in range(len(queue.waiting))]
        self._forget_empty(queue)
        return waiters

    def admit(self, queue: Queue[W]) -> list[tuple[Queue[W], W]]:
        """Take what waits for room as far as there is some, those of a queue that has made room first: who waited."""
        admitted = []
        for each in (queue, *self._with_waiting.values()):
            while each.waiting and self._fits(each, len(each.waiting[0][0]), in_turn=True):
                text, waiter = self._next_waiting(each)
                self._put(each, text)
                admitted.append((each, waiter))
        self._forget_empty(queue)
        return admitted

    def give_up(self, scope: str, waiter: W) -> None:
        """Somebody waits no longer; his record is dropped."""
        queue = self.queues[scope]
        entry = next(entry for entry in queue.waiting if entry[1] is waiter)
        queue.waiting.remove(entry)
        self._note_gone(queue, entry[0])
        self._dropped["cancelled"] += 1
        self._forget_empty(queue)

    def _next_waiting(self, queue: Queue[W]) -> tuple[bytes, W]:
        text, waiter = queue.waiting.popleft()
        self._note_gone(queue, text)
        return text, waiter

    def _note_gone(self, queue: Queue[W], text: bytes) -> None:
        self._waiting -= 1
        self._waiting_bytes -= len(text)
        if not queue.waiting:
            del self._with_waiting[queue.scope]

    def _fits(self, queue: Queue[W], size: int, *, in_turn: bool = False) -> bool:
        bounds = self._bounds
        return (
            self._records < bounds.max_records
            and self._bytes + size <= bounds.max_bytes
            and len(queue.texts) + queue.held < self._records_each
            and queue.bytes + queue.held_bytes + size <= self._bytes_each
            and (in_turn or not queue.waiting)
        )

    def _put(self, queue: Queue[W], text: bytes) -> None:
        size = len(text)
        queue.texts.append(text)
        queue.bytes += size
        self._records += 1
        self._bytes += size

    def _release(self, queue: Queue[W], texts: Sequence[bytes]) -> None:
        size = sum(map(len, texts))
        queue.held -= len(texts)
        queue.held_bytes -= size
        self._records -= len(texts)
        self._bytes -= size
        self._forget_empty(queue)

    def _forget_empty(self, queue: Queue[W]) -> None:
        if not (queue.texts or queue.held or queue.waiting):
            self.queues.pop(queue.scope, None)

    def _make_room(self, queue: Queue[W], size: int) -> bool:
        """With `drop_old`: drop what is older, of the scope or of one that holds most. Whether that suffices."""
        if self._full is not Full.DROP_OLD or size > self._bytes_each:
            return False
        while not self._fits(queue, size):
            own = len(queue.texts) + queue.held >= self._records_each
            own = own or queue.bytes + queue.held_bytes + size > self._bytes_each
            victim = queue if own else self._who_holds_most()
            if not victim.texts:
                return False
            old = victim.texts.popleft()
            victim.bytes -= len(old)
            self._records -= 1
            self._bytes -= len(old)
            self.displaced += 1
            self._dropped["full"] += 1
            if victim is not queue:
                self._forget_empty(victim)
        return True

    def _who_holds_most(self) -> Queue[W]:
        """The queue with the most records in no batch; one that has as many as the average will do, and is kept."""
        found = self._fullest
        if found is None or len(found.texts) * len(self.queues) < self._records or not found.texts:
            found = self._fullest = max(self.queues.values(), key=lambda queue: len(queue.texts))
        return found
