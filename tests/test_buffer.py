"""The record buffer: whatever comes, each record is accepted once, or counted as refused, dropped or pending."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from axcollector.buffer import RecordBuffer
from axcollector.core.bounds import Counts
from axcollector.core.errors import NotReady, Overloaded, RateLimited, Rejected, SpoolFailed
from axcollector.persistent import SCOPE_PATIENCE_SECONDS, UNFORESEEN_TRIES
from tests.conftest import LoggedFailures
from tests.fakes import result_of


class FakeTarget:
    """A target that takes batches as a collector does, all or nothing, when told to.

    Attributes:
        taken: The records that it has taken, in order, by scope.
        asked: How many batches it was given.
        most: How many it had at once.
        failing: What it fails with; by scope, or "" for all.
        is_slow: Whether batches wait for `step`.
        waiting: Those that do.
    """

    def __init__(self) -> None:
        self.taken: dict[str, list[bytes]] = {}
        self.asked = self.most = 0
        self.failing: dict[str, Exception] = {}
        self.is_slow = False
        self.waiting: list[tuple[defer.Deferred[int], str, Sequence[bytes]]] = []

    def submit(self, scope: str, records: Sequence[bytes]) -> "defer.Deferred[int]":
        self.asked += 1
        assert records
        if self.is_slow:
            result: defer.Deferred[int] = defer.Deferred(self._forget)
            self.waiting.append((result, scope, records))
            assert Counter(scope for _, scope, _ in self.waiting).most_common(1)[0][1] == 1
            self.most = max(self.most, len(self.waiting))
            return result
        return defer.maybeDeferred(self._take, scope, records)

    def _forget(self, result: "defer.Deferred[int]") -> None:
        self.waiting = [entry for entry in self.waiting if entry[0] is not result]

    def _take(self, scope: str, records: Sequence[bytes]) -> int:
        if (problem := self.failing.get(scope) or self.failing.get("")) is not None:
            raise problem
        for index, record in enumerate(records):
            if b"nameless" in record:
                raise Rejected("BAD_DATA", "Not a valid JSON payload")
            if b"bad" in record:
                raise Rejected("MISSING_FIELD", f"Missing Required field: x (record {index})")
        self.taken.setdefault(scope, []).extend(records)
        return len(records)

    def step(self, number: int = 0) -> None:
        """Let a batch that waits go on."""
        result, scope, records = self.waiting.pop(number)
        defer.maybeDeferred(self._take, scope, records).chainDeferred(result)


def total(counts: Counts) -> int:
    """All that the counts tell of."""
    gone = sum(counts.refused.values()) + sum(counts.dropped.values())
    return counts.accepted + counts.set_aside + gone + counts.pending + counts.waiting


def made(target: Any, **settings: Any) -> tuple[RecordBuffer, Clock]:
    """A buffer that runs, and its clock."""
    clock = Clock()
    buffer = RecordBuffer(clock, target, chance=lambda: 0.5, **{"batch_records": 3, "batch_seconds": 1, **settings})
    buffer.startService()
    return buffer, clock


SCOPES = st.sampled_from(["a", "b", "c"])
FAILURES = st.sampled_from(
    [
        None,
        Overloaded("full", 2),
        RateLimited("much", 3),
        SpoolFailed("disk"),
        NotReady(),
        Rejected("UNAUTHORIZED", "no"),
    ]
)
MAX_RECORDS, MAX_BYTES = 12, 400


class BufferMachine(RuleBasedStateMachine):
    """Adds, failures, slowness, time and stops in any order."""

    full = ""

    def __init__(self) -> None:
        super().__init__()
        self.target = FakeTarget()
        self.buffer, self.clock = made(
            self.target, batch_bytes=60, max_records=MAX_RECORDS, max_bytes=MAX_BYTES, concurrency=2, full=self.full
        )
        self.given: dict[str, list[bytes]] = {}
        self.waiters: list[defer.Deferred[None]] = []
        self.outcomes: Counter[str] = Counter()
        self.added = 0

    @rule(scope=SCOPES, kind=st.sampled_from(["good", "good", "good", "bad", "nameless"]), more=st.integers(0, 300))
    def add(self, scope: str, kind: str, more: int) -> None:
        record = {"n": self.added, "kind": kind, "more": "x" * (more if more > 200 else 0)}
        waiter = self.buffer.add(scope, record)
        text = b'{"n":%d,"kind":"%b","more":"%b"}' % (self.added, kind.encode(), record["more"].encode())
        record.clear()  # what the caller does with it later is nothing to us
        self.added += 1
        self.given.setdefault(scope, []).append(text)
        if waiter is not None:
            self.waiters.append(waiter)
            waiter.addCallbacks(
                lambda _: self.outcomes.update(["held"]), lambda f: self.outcomes.update([f.type.__name__])
            )

    @rule(scope=st.sampled_from(["a", "b", ""]), failure=FAILURES)
    def fail(self, scope: str, failure: Exception | None) -> None:
        self.target.failing.pop(scope, None)
        if failure is not None:
            self.target.failing[scope] = failure

    @rule(is_slow=st.booleans())
    def turn_slow(self, is_slow: bool) -> None:
        self.target.is_slow = is_slow

    @precondition(lambda self: self.target.waiting)
    @rule(number=st.integers(0, 1))
    def step(self, number: int) -> None:
        self.target.step(min(number, len(self.target.waiting) - 1))

    @rule(seconds=st.sampled_from([0.3, 1, 5, 30]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.waiters)
    @rule(number=st.integers(0, 9))
    def cancel(self, number: int) -> None:
        self.waiters[number % len(self.waiters)].cancel()

    @rule()
    def stop_and_start(self) -> None:
        stopped = self.buffer.stopService()
        self.target.is_slow = False
        while self.target.waiting:
            self.target.step()
        self.clock.advance(5)
        result_of(stopped)
        counts = self.buffer.counts
        assert (counts.pending, counts.waiting, self.clock.getDelayedCalls()) == (0, 0, [])
        waiter = self.buffer.add("a", b"{}")
        self.added += 1
        if waiter is not None:
            with pytest.raises(Overloaded, match="stopped"):
                result_of(waiter)
        self.buffer.startService()

    @invariant()
    def every_record_is_somewhere(self) -> None:
        """Nothing is counted twice or not at all; bounds hold; what was taken was given, in order, and once."""
        counts = self.buffer.counts
        assert counts.added == self.added == total(counts)
        assert counts.pending <= MAX_RECORDS
        assert counts.pending_bytes <= MAX_BYTES
        assert counts.waiting <= MAX_RECORDS
        assert sum(map(len, self.target.taken.values())) == counts.accepted
        assert self.target.most <= 2
        for scope, taken in self.target.taken.items():
            given = iter(self.given[scope])
            assert all(text in given for text in taken)  # in order, each once
            assert not any(b"bad" in text or b"nameless" in text for text in taken)

    def teardown(self) -> None:
        self.target.failing.clear()
        self.target.is_slow = False
        while self.target.waiting:
            self.target.step()
        result_of(self.buffer.stopService())
        counts = self.buffer.counts
        assert (counts.pending, counts.waiting) == (0, 0)
        assert set(counts.dropped) <= {"full", "too_large", "stopped", "cancelled"}
        for waiter in self.waiters:
            assert waiter.called
        self.every_record_is_somewhere()


def machine(policy: str) -> Any:
    """The machine for one policy."""
    kind = type(f"{policy}_machine", (BufferMachine,), {"full": policy}).TestCase
    kind.settings = settings(max_examples=40, stateful_step_count=30)
    return kind


TestDropNew = machine("drop_new")
TestDropOld = machine("drop_old")
TestWait = machine("wait")


def lines_of(target: FakeTarget, scope: str = "a") -> list[bytes]:
    """What the target has taken of a scope."""
    return target.taken.get(scope, [])


def test_batches_by_number_bytes_and_time() -> None:
    """A batch is sent when it has so many records or bytes, or when its first record is so old; not before."""
    target = FakeTarget()
    buffer, clock = made(target, batch_records=3, batch_bytes=50)
    buffer.add("a", {"n": 1})
    clock.advance(0.9)
    buffer.add("a", {"n": 2})
    assert target.asked == 0
    clock.advance(0.2)
    assert lines_of(target) == [b'{"n":1}', b'{"n":2}']
    for number in range(3, 7):
        buffer.add("a", {"n": number})
    assert len(lines_of(target)) == 5
    buffer.add("a", {"n": "x" * 60})
    assert (target.asked, len(lines_of(target)), clock.getDelayedCalls()) == (4, 7, [])


def test_before_the_start() -> None:
    """What is added before the start is sent when it has come."""
    target, clock = FakeTarget(), Clock()
    buffer = RecordBuffer(clock, target)
    buffer.add("a", {"n": 1})
    assert clock.getDelayedCalls() == []
    buffer.startService()
    clock.advance(1)
    assert lines_of(target) == [b'{"n":1}']


def test_good_records_beside_bad_ones(log_events: list[LogEvent]) -> None:
    """Of a refused batch the bad records are found, with a reason that names them and without; the others are kept."""
    target = FakeTarget()
    buffer, _ = made(target, batch_records=100)
    kinds = ["good", "bad", "good", "nameless", *["good"] * 95, "bad"]
    for number, kind in enumerate(kinds):
        buffer.add("a", {kind: number})
    assert lines_of(target) == [b'{"good":%d}' % n for n, kind in enumerate(kinds) if kind == "good"]
    counts = buffer.counts
    assert (counts.accepted, counts.refused, counts.pending) == (97, {"MISSING_FIELD": 2, "BAD_DATA": 1}, 0)
    assert target.asked <= 30
    told = [event for event in log_events if event["log_namespace"] == "axcollector.complaints.Complaints"]
    assert [(event["count"], event["reason"]) for event in told] == [(1, "MISSING_FIELD: Missing Required field: x")]
    result_of(buffer.stopService())
    told = [event for event in log_events if event["log_namespace"] == "axcollector.complaints.Complaints"]
    assert [event["count"] for event in told] == [1, 2]


class Misleading(FakeTarget):
    """Names the wrong record, as it does where one record's text holds two."""

    def _take(self, scope: str, records: Sequence[bytes]) -> int:
        try:
            return super()._take(scope, records)
        except Rejected as exc:
            raise Rejected(exc.code, "Missing Required field: x (record 0)") from None


def test_a_wrong_index_costs_no_record() -> None:
    """A record is refused only when it was refused alone, whatever a reason says."""
    target = Misleading()
    buffer, _ = made(target, batch_records=8)
    for number in range(8):
        buffer.add("a", {"bad" if number == 5 else "good": number})
    assert (len(lines_of(target)), buffer.counts.refused) == (7, {"MISSING_FIELD": 1})


def test_a_slow_scope_holds_up_no_other() -> None:
    """One batch of a scope is under way at a time; the others' go on."""
    target = FakeTarget()
    buffer, _ = made(target, concurrency=2)
    target.is_slow = True
    for number in range(6):
        buffer.add("slow", {"n": number})
    assert len(target.waiting) == 1
    target.is_slow = False
    for number in range(6):
        buffer.add("quick", {"n": number})
    assert (len(lines_of(target, "quick")), buffer.counts.pending) == (6, 6)
    target.step()
    assert [lines_of(target, "slow")[n] for n in (0, 5)] == [b'{"n":0}', b'{"n":5}']


def test_a_scope_that_nobody_takes_leaves_room_for_others() -> None:
    """It holds half of what may be held, and no more."""
    target = FakeTarget()
    buffer, clock = made(target, max_records=20)
    target.failing["stuck"] = SpoolFailed("disk")
    for number in range(50):
        buffer.add("stuck", {"n": number})
        buffer.add("well", {"n": number})
    clock.advance(1)
    assert len(lines_of(target, "well")) == 50
    assert (buffer.counts.pending, buffer.counts.dropped) == (10, {"full": 40})


def test_which_records_are_dropped() -> None:
    """The new ones or the old ones; never those of a batch under way."""
    for full, kept in (("drop_new", [0, 1, 2, 3, 4]), ("drop_old", [0, 1, 2, 7, 8])):
        target = FakeTarget()
        target.is_slow = True
        buffer, clock = made(target, max_records=10, full=full)
        for number in range(9):
            buffer.add("a", {"n": number})
        target.is_slow = False
        target.step()
        clock.advance(1)
        assert lines_of(target) == [b'{"n":%d}' % number for number in kept]
        assert buffer.counts.dropped == {"full": 4}


def test_who_holds_most_pays() -> None:
    """With `drop_old` and all room taken, one of the scopes that hold most loses its oldest records."""
    target = FakeTarget()
    target.is_slow = True
    buffer, clock = made(target, batch_records=100, max_records=10, full="drop_old")
    for scope, count in (("a", 5), ("b", 4), ("c", 1), ("d", 2)):
        for number in range(count):
            buffer.add(scope, {"n": number})
    target.is_slow = False
    clock.advance(1)
    assert {scope: len(lines) for scope, lines in target.taken.items()} == {"a": 3, "b": 4, "c": 1, "d": 2}
    assert lines_of(target)[0] == b'{"n":2}'


def test_waiting_for_room() -> None:
    """With `wait` the Deferred fires when the record is held, in turn; as many may wait as may be held."""
    target = FakeTarget()
    target.is_slow = True
    buffer, clock = made(target, batch_records=2, max_records=4, full="wait")
    outcomes = [buffer.add("a", {"n": number}) for number in range(6)]
    assert outcomes[:2] == [None, None]
    waiting = [each for each in outcomes if each is not None]
    assert [each.called for each in waiting] == [False] * 4
    with pytest.raises(Overloaded):
        result_of(buffer.add("a", {"n": 6}))
    assert buffer.add("b", {"n": 0}) is None
    waiting[1].cancel()
    waiting[1].addErrback(lambda failure: failure.trap(defer.CancelledError))
    target.step()
    assert [each.called for each in waiting] == [True, True, True, False]
    target.is_slow = False
    while target.waiting:
        target.step()
    clock.advance(1)
    assert lines_of(target) == [b'{"n":%d}' % number for number in (0, 1, 2, 4, 5)]
    assert buffer.counts.dropped == {"full": 1, "cancelled": 1}


def test_until_it_is_taken() -> None:
    """What cannot be taken now is tried again, when the target asks for it or ever later."""
    target = FakeTarget()
    buffer, clock = made(target)
    for problem, seconds in ((Overloaded("full", 7), 7), (RateLimited("much", 4), 4), (NotReady(), 0.55)):
        asked = target.asked
        target.failing[""] = problem
        for number in range(3):
            buffer.add("a", {"n": number})
        assert target.asked == asked + 1
        target.failing.clear()
        clock.advance(seconds - 0.01)
        assert target.asked == asked + 1
        clock.advance(0.02)
        assert (target.asked, buffer.counts.pending) == (asked + 2, 0)
    assert (buffer.counts.retried, buffer.counts.accepted) == (3, 9)


def test_a_scope_that_is_not_known() -> None:
    """It may just have been made; after a while its records are refused, until one is taken."""
    target = FakeTarget()
    buffer, clock = made(target, max_records=100)
    target.failing["new"] = target.failing["wrong"] = Rejected("UNKNOWN_SCOPE", "No tenant")
    for scope in ("new", "wrong"):
        buffer.add(scope, {"n": 1})
    clock.advance(1)
    del target.failing["new"]
    clock.pump([1] * int(SCOPE_PATIENCE_SECONDS * 1.5))
    assert (lines_of(target, "new"), buffer.counts.refused, buffer.counts.pending) == (
        [b'{"n":1}'],
        {"UNKNOWN_SCOPE": 1},
        0,
    )
    for _ in range(3):
        buffer.add("wrong", {"n": 2})
    assert buffer.counts.refused == {"UNKNOWN_SCOPE": 4}
    target.failing.clear()
    for _ in range(3):
        buffer.add("wrong", {"n": 3})
    assert len(lines_of(target, "wrong")) == 3


def test_a_token_that_is_not_known() -> None:
    """That speaks of all scopes: nothing is refused, however long it takes to exchange it."""
    target = FakeTarget()
    buffer, clock = made(target)
    target.failing[""] = Rejected("UNAUTHORIZED", "A token is needed")
    buffer.add("a", {"n": 1})
    clock.pump([30] * 20)
    target.failing.clear()
    clock.advance(60)
    assert (buffer.counts.accepted, buffer.counts.refused) == (1, {})


def test_a_target_with_a_bug(logged_failures: LoggedFailures) -> None:
    """What fails as no target should is tried a few times, then dropped, and what comes behind is sent."""
    target = FakeTarget()
    buffer, clock = made(target)
    target.failing["a"] = ZeroDivisionError("a bug")
    buffer.add("a", {"n": 1})
    clock.pump([60] * (UNFORESEEN_TRIES + 2))
    assert buffer.counts.dropped == {"failed": 1}
    assert len(logged_failures.take(Exception)) == UNFORESEEN_TRIES - 1
    target.failing.clear()
    buffer.add("a", {"n": 2})
    clock.advance(1)
    assert lines_of(target) == [b'{"n":2}']


def test_a_target_that_is_stopped() -> None:
    """Who cancels what he was given is asked again."""
    target = FakeTarget()
    target.is_slow = True
    buffer, clock = made(target)
    buffer.add("a", {"n": 1})
    clock.advance(1)
    target.waiting[0][0].cancel()
    clock.advance(1)
    target.step()
    assert buffer.counts.accepted == 1


def test_records_that_are_none() -> None:
    """What JSON cannot say is refused at once; what it can is written so that a collector reads the same."""
    target = FakeTarget()
    buffer, clock = made(target)
    for value in (float("nan"), [{"x": float("-inf")}], object(), {"deep": None}):
        nested: Any = value
        if value == {"deep": None}:
            for _ in range(200_000):
                nested = [nested]
        buffer.add("a", {"v": nested, "other": None})
    assert buffer.counts.refused == {"BAD_DATA": 4}
    for record in ({"a": None, "b": [1.5]}, {"a": "\ud800"}, b'{"as": "given"}', {"ä": 1 << 80}):
        buffer.add("a", record)
    clock.advance(1)
    assert lines_of(target) == [
        b'{"a":null,"b":[1.5]}',
        rb'{"a":"\ud800"}',
        b'{"as": "given"}',
        '{"ä":1208925819614629174706176}'.encode(),
    ]


def test_quarantined_records_are_told_apart() -> None:
    """A target that sets records aside says how many it has accepted."""

    class Quarantining:
        def submit(self, scope: str, records: Sequence[bytes]) -> "defer.Deferred[int]":
            return defer.succeed(len(records) - 1)

    buffer, _ = made(Quarantining())
    for number in range(3):
        buffer.add("a", {"n": number})
    assert (buffer.counts.accepted, buffer.counts.set_aside) == (2, 1)


class ServiceTarget(FakeTarget, Service):
    """A target that is a service, and notes what it had taken when it was stopped."""

    had = -1

    def stopService(self) -> "defer.Deferred[None]":
        self.running = False
        self.had = sum(map(len, self.taken.values()))
        return defer.succeed(None)


def test_a_target_is_started_first_and_stopped_last() -> None:
    """One that runs already is left alone."""
    target = ServiceTarget()
    buffer, _ = made(target)
    assert target.running
    buffer.add("a", {"n": 1})
    result_of(buffer.stopService())
    assert (target.had, bool(target.running)) == (1, False)
    target.startService()
    buffer.startService()
    result_of(buffer.stopService())
    assert target.running


def test_started_or_stopped_twice() -> None:
    """Once started is started; a second stop waits for the end of the first; started in midst of a stop it goes on."""
    target = ServiceTarget()
    buffer, clock = made(target)
    buffer.startService()
    result_of(buffer.stopService())
    assert not target.running
    slow = FakeTarget()
    buffer, clock = made(slow)
    slow.is_slow = True
    buffer.add("a", {"n": 1})
    stops = [buffer.stopService(), buffer.stopService()]
    assert [stop.called for stop in stops] == [False, False]
    buffer.startService()
    assert buffer.add("a", {"n": 2}) is None
    slow.step()
    clock.advance(1)
    slow.step()
    for stop in stops:
        result_of(stop)
    assert (buffer.counts.accepted, buffer.counts.dropped) == (2, {})
    result_of(buffer.stopService())
    assert clock.getDelayedCalls() == []


class HurriedTarget(FakeTarget):
    """A slow target that takes everything at once when it is told to hurry."""

    def hurry(self) -> None:
        while self.waiting:
            self.step()


def test_a_target_is_hurried() -> None:
    """When half of the time that a stop may take is over, and not before."""
    target = HurriedTarget()
    buffer, clock = made(target, stop_seconds=4)
    target.is_slow = True
    buffer.add("a", {"n": 1})
    stopped = buffer.stopService()
    clock.advance(1.9)
    assert not stopped.called
    clock.advance(0.2)
    result_of(stopped)
    assert (buffer.counts.accepted, clock.getDelayedCalls()) == (1, [])


@pytest.mark.parametrize("full", ["drop_new", "drop_old"])
def test_drops_are_told(full: str, log_events: list[LogEvent]) -> None:
    """That records are dropped because nobody takes any is in the log, however they are."""
    target = FakeTarget()
    buffer, _ = made(target, max_records=4, full=full)
    target.is_slow = True
    for number in range(9):
        buffer.add("a", {"n": number})
    told = [event["log_format"].format(**event) for event in log_events if "what" in event]
    assert [line.startswith("1 records were lost, the last of scope a: the buffer is full") for line in told] == [True]
    stopped = buffer.stopService()
    while target.waiting:
        target.step()
    result_of(stopped)


def test_a_stop_does_not_last(log_events: list[LogEvent]) -> None:
    """What cannot be sent in time is dropped, counted and told, and so is what comes later; a waiter hears of it."""
    target = FakeTarget()
    buffer, clock = made(target, max_records=4, full="wait", stop_seconds=5)
    target.is_slow = True
    outcomes = [buffer.add("a", {"n": number}) for number in range(3)]
    stopped = buffer.stopService()
    assert len(target.waiting) == 1
    clock.advance(4.9)
    assert not stopped.called
    clock.advance(0.2)
    result_of(stopped)
    assert (target.waiting, clock.getDelayedCalls()) == ([], [])
    with pytest.raises(Overloaded, match="The buffer is stopped"):
        result_of(outcomes[2])
    with pytest.raises(Overloaded, match="The buffer is stopped"):
        result_of(buffer.add("a", {"n": 4}))
    assert buffer.counts.dropped == {"stopped": 4}
    assert "3 records were lost, the last of scope a: they could not be sent before the stop" in [
        event["log_format"].format(**event) for event in log_events if "what" in event
    ]


def test_a_stop_does_not_wait_for_a_pause() -> None:
    """What waits for its next try has it at once."""
    target = FakeTarget()
    buffer, _ = made(target)
    target.failing[""] = Overloaded("full", 60)
    for number in range(3):
        buffer.add("a", {"n": number})
    target.failing.clear()
    result_of(buffer.stopService())
    assert buffer.counts.accepted == 3


@pytest.mark.parametrize("wrong", [{"batch_records": 0}, {"max_bytes": -1}, {"full": "explode"}])
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    """They are refused where they are given."""
    with pytest.raises(ValueError, match=next(iter(wrong)) if "full" not in wrong else "explode"):
        RecordBuffer(Clock(), FakeTarget(), **wrong)
