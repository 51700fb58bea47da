"""Rate limits: what a scope may send, when it may again, and what is kept of it."""

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from axcollector.core.errors import RateLimited
from axcollector.core.rates import RateLimits, Rates

NOW = 1_800_000_000.25
LIMITS = RateLimits(records_per_second=10, bytes_per_second=1000, burst_seconds=2)


def send(rates: Rates, count: int, size: int, now: float, scope: str = "s") -> float:
    """Seconds after which to come again; 0: it is taken."""
    try:
        rates.bring(scope, size, now)
        rates.unpack(scope, size, count, now)
    except RateLimited as exc:
        return exc.retry_after
    return 0.0


def test_without_limits() -> None:
    """They are off unless there are some."""
    assert not RateLimits()
    assert RateLimits(records_per_second=1)
    assert RateLimits(bytes_per_second=1)


def test_records() -> None:
    """A burst is taken at once, then as many a second as are allowed; what is refused costs nothing."""
    rates = Rates(LIMITS)
    assert [send(rates, 5, 1, NOW) for _ in range(4)] == [0, 0, 0, 0]
    assert [send(rates, 5, 1, NOW) for _ in range(100)] == [0.1] * 100  # how many it has is not known yet
    assert send(rates, 5, 1, NOW + 0.375) == 0.125
    assert send(rates, 5, 1, NOW + 0.5) == 0
    assert send(rates, 5, 1, NOW + 0.5) == 0.1
    assert rates.refused == 102


def test_bytes() -> None:
    """Likewise; the reason says which limit it is."""
    rates = Rates(LIMITS)
    assert send(rates, 1, 2000, NOW) == 0
    with pytest.raises(RateLimited, match=r"more than 1000 bytes a second \(rate_limit_bytes\)") as caught:
        rates.bring("s", 500, NOW)
    assert (caught.value.status, caught.value.code) == (429, "RATE_LIMITED")
    assert caught.value.retry_after == 0.5
    assert send(rates, 1, 500, NOW + 0.5) == 0


def test_one_limit_alone() -> None:
    """Where only one is set, the other is none."""
    assert send(Rates(RateLimits(records_per_second=1, burst_seconds=1)), 1, 1 << 40, NOW) == 0
    assert send(Rates(RateLimits(bytes_per_second=1, burst_seconds=1)), 1 << 40, 1, NOW) == 0


def test_a_batch_larger_than_the_burst() -> None:
    """It is taken when the bucket is full, and then nothing until the debt is paid."""
    rates = Rates(LIMITS)
    assert send(rates, 100, 1, NOW) == 0
    with pytest.raises(RateLimited, match=r"more than 10 records a second \(rate_limit_records\)") as caught:
        rates.bring("s", 1, NOW)
    assert caught.value.retry_after == pytest.approx(8.1)
    assert send(rates, 1, 1, NOW + 8.0) > 0
    assert send(rates, 1, 1, NOW + 8.1) == 0
    assert send(rates, 100, 1, NOW + 9) > 0
    assert send(rates, 100, 1, NOW + 11.1) == 0


def test_who_was_refused_is_waited_for() -> None:
    """A flood of large batches is refused before it is unpacked, and a small batch does not go before a large one."""
    rates = Rates(LIMITS)
    assert send(rates, 20, 1, NOW) == 0
    rates.bring("s", 1, NOW + 0.5)  # there is room for some
    with pytest.raises(RateLimited):
        rates.unpack("s", 1, 20, NOW + 0.5)
    for now in (NOW + 0.6, NOW + 1.9):
        with pytest.raises(RateLimited):
            rates.bring("s", 1, now)
    assert send(rates, 20, 1, NOW + 2.0) == 0
    assert send(rates, 1, 1, NOW + 2.2) == 0


def test_bytes_of_a_batch_with_too_many_records() -> None:
    """They are given back: what is refused costs nothing."""
    rates = Rates(LIMITS)
    assert send(rates, 19, 1, NOW) == 0
    assert send(rates, 5, 1900, NOW) == pytest.approx(0.4)
    assert send(rates, 5, 1900, NOW + 0.4) == 0


def test_scopes_do_not_share() -> None:
    """What one sends is nothing to the others."""
    rates = Rates(LIMITS)
    assert send(rates, 1000, 1, NOW, "flood") == 0
    assert send(rates, 1, 1, NOW, "flood") > 0
    assert send(rates, 20, 2000, NOW, "good") == 0


def test_steps_of_the_clock() -> None:
    """A step back gives nothing and takes nothing; one ahead fills the bucket and no more."""
    rates = Rates(LIMITS)
    assert send(rates, 15, 1, NOW) == 0
    assert send(rates, 5, 1, NOW - 86_400) == 0
    assert send(rates, 5, 1, NOW - 86_400) == 0.1
    assert send(rates, 6, 1, NOW - 86_399.5) == pytest.approx(0.1)
    assert send(rates, 5, 1, NOW - 86_399.25) == 0
    assert send(rates, 20, 1, NOW + 86_400) == 0
    assert send(rates, 1, 1, NOW + 86_400) > 0


def test_what_is_kept_of_many_scopes() -> None:
    """One entry each at most, and none for long: who has sent nothing for a while is forgotten."""
    rates = Rates(LIMITS)
    for scope in range(10_000):
        assert send(rates, 1, 1, NOW, str(scope)) == 0
    assert len(rates) == 10_000
    for scope in range(5_000):
        send(rates, 1, 1, NOW + 60, str(scope % 10))
    assert len(rates) == 10


def test_the_longer_wait_is_told() -> None:
    """Where both records and bytes are short, whoever waits as told is taken."""
    rates = Rates(LIMITS)
    assert send(rates, 25, 5000, NOW) == 0
    assert send(rates, 1, 500, NOW) == 3.5
    assert send(rates, 1, 500, NOW + 3.5) == 0


def test_who_goes_on_sending_hides_nobody() -> None:
    """Who was first and sends still is no reason to remember others who have been silent since."""
    rates = Rates(LIMITS)
    for second in range(10):
        assert send(rates, 8, 1, NOW + second, "busy") == 0
        if not second:
            send(rates, 1, 1, NOW, "silent")
    assert len(rates) == 1


def test_who_owes_is_not_forgotten() -> None:
    """A debt outlives any number of other scopes."""
    rates = Rates(LIMITS)
    assert send(rates, 10_000, 1, NOW, "flood") == 0
    for scope in range(1000):
        assert send(rates, 1, 1, NOW + scope / 10, str(scope)) == 0
    assert send(rates, 1, 1, NOW + 100, "flood") > 0


@dataclass(frozen=True)
class Sent:
    """One batch, and how long after the last it comes."""

    pause: float
    count: int
    size: int


batches = st.lists(
    st.builds(Sent, st.floats(0, 5) | st.just(0.0), st.integers(1, 60), st.integers(1, 5000)), min_size=1, max_size=60
)
limits = st.builds(RateLimits, st.integers(0, 30), st.integers(0, 3000), st.sampled_from([1.0, 2.5, 10.0]))


def taken_of(rates: Rates, given: Iterable[Sent], start: float = NOW) -> list[tuple[float, Sent]]:
    """The batches that are taken, with their times."""
    now = start
    taken = []
    for sent in given:
        now += sent.pause
        if not send(rates, sent.count, sent.size, now):
            taken.append((now, sent))
    return taken


@given(limits, batches)
def test_the_rate_holds_in_every_span(limits: RateLimits, given_batches: list[Sent]) -> None:
    """In no span of time is more taken than the burst, the rate over that time, and one batch larger than the burst."""
    taken = taken_of(Rates(limits), given_batches)
    for rate, of in (
        (limits.records_per_second, lambda sent: sent.count),
        (limits.bytes_per_second, lambda sent: sent.size),
    ):
        for first in range(len(taken) if rate else 0):
            total = 0
            for now, sent in taken[first:]:
                over = max(0.0, of(sent) - rate * limits.burst_seconds)
                allowed = rate * (limits.burst_seconds + now - taken[first][0] + 1e-3) + over
                total += of(sent)
                assert total <= allowed


@given(limits, batches, st.integers(1, 60), st.integers(1, 5000))
def test_who_comes_as_told_is_taken(limits: RateLimits, given_batches: list[Sent], count: int, size: int) -> None:
    """Alone, whoever waits the whole seconds that an answer tells is taken then, at the latest the second time."""
    rates = Rates(limits)
    taken_of(rates, given_batches)
    now = NOW + sum(sent.pause for sent in given_batches)
    waits = []
    while wait := send(rates, count, size, now):
        waits.append(wait)
        now += math.ceil(wait)
    assert len(waits) <= 2


class OneScope(RuleBasedStateMachine):
    """A scope's buckets beside the naive ones: levels that are written down, and time that only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = Rates(LIMITS)
        self.wall = NOW
        self.records, self.bytes, self.wanted = 20.0, 2000.0, 1

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.wall += seconds
        self.records = min(20.0, self.records + 10 * seconds)
        self.bytes = min(2000.0, self.bytes + 1000 * seconds)

    @rule(seconds=st.sampled_from([-86_400.0, -1.5]))
    def step_back(self, seconds: float) -> None:
        """The clock is set back, and looked at before and after: of what lies between nobody can tell."""
        self.look()
        self.wall += seconds
        self.look()

    def look(self) -> None:
        """Have it look at the clock."""
        with contextlib.suppress(RateLimited):
            self.rates.bring("s", 0, self.wall)

    @rule(count=st.integers(1, 40), size=st.integers(0, 4000))
    def send(self, count: int, size: int) -> None:
        """A batch comes."""
        near = 0.01  # where floating point decides, any answer is right
        brought = self.bytes - min(size, 2000), self.records - min(self.wanted, 20)
        room = self.records - min(count, 20)
        if min(map(abs, (*brought, room))) < near:
            return
        if min(brought) < 0:
            expected = False
        elif room < 0:
            self.wanted = count
            expected = False
        else:
            self.wanted = 1
            self.records -= count
            self.bytes -= size
            expected = True
        assert (send(self.rates, count, size, self.wall) == 0) is expected

    @invariant()
    def one_entry(self) -> None:
        """There is never more than one."""
        assert len(self.rates) <= 1


TestOneScope = OneScope.TestCase
