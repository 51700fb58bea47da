"""Backoff, pauses, probes, and `Retry-After`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from axcollector.core.retry import MAX_PAUSE_SECONDS, Backoff, Pace, Pause, Pauses, parse_date, parse_retry_after

NOW = 1_700_000_000.0
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("failures", "chance", "expected"),
    [(1, 0.0, 0.5), (1, 0.5, 0.75), (2, 0.5, 1.25), (5, 0.0, 0.5), (9, 0.5, 128.25), (10, 0.5, 150.25), (5000, 0, 0.5)],
)
def test_delays(failures: int, chance: float, expected: float) -> None:
    """The longest delay doubles from 1 s to 5 min; chance takes any part of it, but half a second at least."""
    assert expected == Backoff().delay(failures, chance)


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_delays_are_bounded(failures: int, chance: float) -> None:
    """No delay is 0, none is longer than 5 min."""
    assert 0.5 <= Backoff().delay(failures, chance) <= MAX_PAUSE_SECONDS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 5000, 999_999_999.0),
        (DATE, 0.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:12:20 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("Tue, 99 Nov 2023 22:14:20 GMT", None),
    ],
)
def test_retry_after(text: str, expected: float | None) -> None:
    """Seconds or an HTTP date; what is neither asks for nothing."""
    assert expected == parse_retry_after(text, NOW)


def test_dates() -> None:
    """An HTTP date names a moment; other text none."""
    assert parse_date(DATE) == NOW
    assert parse_date("yesterday") is None


def test_a_clock_that_was_set_back_prolongs_no_pause() -> None:
    """Who would be paused for longer than any pause lasts is not."""
    pauses = Pauses()
    pauses.failed("one", "host", "503", 60.0, NOW, 0.0)
    assert not pauses.let_through(["host"], NOW - 200)
    assert pauses.let_through(["host"], NOW - 86_400)


def test_nobody_is_paused_at_first() -> None:
    """Uploads are let through, and leave nothing behind."""
    pauses = Pauses()
    assert pauses.let_through(["signer", "host"], NOW)
    pauses.begin("a", ["signer", "host"])
    assert pauses.answered("a", ["signer", "host"]) == ()
    pauses.end("a")
    assert pauses.current() == ()


def test_after_a_pause_one_probes() -> None:
    """Nobody goes until the pause is over, then one; its success frees all."""
    pauses = Pauses()
    pause = pauses.failed("a", "host", "503", None, NOW, 0.5)
    assert pause == Pause("host", NOW + 0.75, "503", 1)
    assert pauses.of("host") == pause
    assert not pauses.let_through(["signer", "host"], NOW + 0.7)
    assert pauses.let_through(["signer", "other"], NOW + 0.7)
    assert pauses.let_through(["signer", "host"], NOW + 0.75)
    pauses.begin("b", ["signer", "host"])
    assert not pauses.let_through(["signer", "host"], NOW + 100)
    assert pauses.answered("b", ["signer", "host"]) == ("host",)
    assert pauses.let_through(["signer", "host"], NOW + 100)
    assert pauses.of("host") is None


def test_a_failed_probe_pauses_for_longer() -> None:
    """The backoff grows with each failed probe, and begins anew after a success."""
    pauses = Pauses()
    now = NOW
    for failures, delay in [(1, 0.75), (2, 1.25), (3, 2.25)]:
        pauses.begin(failures, ["host"])
        pause = pauses.failed(failures, "host", "503", None, now, 0.5)
        pauses.end(failures)
        assert pause == Pause("host", now + delay, "503", failures)
        now = pause.until
    pauses.begin("good", ["host"])
    pauses.answered("good", ["host"])
    assert pauses.failed("x", "host", "503", None, now, 0.5).failures == 1


def test_late_news_is_of_the_same_outage() -> None:
    """Uploads that began before the pause neither end it nor make it count twice, but may ask for a longer one."""
    pauses = Pauses()
    for upload in "abc":
        pauses.begin(upload, ["host"])
    pauses.failed("a", "host", "503", 10, NOW, 0.5)
    assert pauses.failed("b", "host", "503", 5, NOW + 1, 0.5) == Pause("host", NOW + 10, "503", 1)
    assert pauses.failed("b", "host", "503", None, NOW + 1, 0.5) == Pause("host", NOW + 10, "503", 1)
    assert pauses.failed("b", "host", "503", 20, NOW + 1, 0.5) == Pause("host", NOW + 21, "503", 1)
    assert pauses.answered("c", ["host"]) == ()
    assert not pauses.let_through(["host"], NOW + 20)


def test_late_news_during_a_probe() -> None:
    """It leaves the probe alone."""
    pauses = Pauses()
    pauses.begin("slow", ["host"])
    pauses.failed("a", "host", "503", 1, NOW, 0.5)
    pauses.begin("probe", ["host"])
    assert pauses.failed("slow", "host", "cut", None, NOW + 5, 0.5).failures == 1
    assert pauses.answered("probe", ["host"]) == ("host",)


def test_a_probe_without_an_outcome() -> None:
    """What ends without saying anything about an authority leaves it waiting for the next probe."""
    pauses = Pauses()
    pauses.failed("a", "host", "503", 1, NOW, 0.5)
    pauses.begin("b", ["host"])
    assert not pauses.let_through(["host"], NOW + 5)
    pauses.end("b")
    assert pauses.let_through(["host"], NOW + 5)
    assert pauses.current() == (Pause("host", NOW + 1, "503", 1),)


def test_those_before_the_failed_one_have_answered() -> None:
    """A store that fails proves that the signer works; those after the failed one were not asked."""
    pauses = Pauses()
    needed = ["signer", "tenant", "host"]
    for authority in needed:
        pauses.failed("a", authority, "cut", 1, NOW, 0.5)
    pauses.begin("b", needed)
    assert pauses.answered("b", needed, before="tenant") == ("signer",)
    pauses.failed("b", "tenant", "403", None, NOW + 2, 0.5)
    pauses.end("b")
    assert [(p.authority, p.failures) for p in pauses.current()] == [("host", 1), ("tenant", 2)]
    assert pauses.let_through(["signer", "host"], NOW + 2)


@pytest.mark.parametrize(("asked", "seconds"), [(0, 0.5), (7, 7), (3600, 300)])
def test_what_is_asked_for_is_obeyed_within_bounds(asked: float, seconds: float) -> None:
    """`Retry-After` decides instead of the backoff, from half a second to 5 min."""
    assert Pauses().failed("a", "host", "503", asked, NOW, 0.9).until == NOW + seconds


def test_very_many_pauses() -> None:
    """Each tenant at a signer may be one: all are counted, those that began first are told, by name."""
    pauses = Pauses()
    assert (len(pauses), pauses.current(3), pauses.longest()) == (0, (), None)
    for number in range(2000):
        pauses.failed(number, f"tenant {9999 - number}", "no", 60.0 + number % 7, NOW, 0.0)
    assert len(pauses) == len(pauses.current()) == 2000
    assert [each.authority for each in pauses.current(3)] == ["tenant 9997", "tenant 9998", "tenant 9999"]
    assert pauses.longest() == NOW + 66


def test_a_long_table_forgets() -> None:
    """What nobody has asked about for an hour goes once there are a thousand; what is being probed stays."""
    pauses = Pauses()
    for number in range(1000):
        pauses.failed("a", f"tenant {number:03}", "403", 1, NOW, 0.5)
    pauses.begin("b", ["tenant 007"])
    pauses.failed("a", "one more", "403", 1, NOW + 3000, 0.5)
    assert len(pauses.current()) == 1001
    pauses.failed("a", "another", "403", 1, NOW + 4000, 0.5)
    assert [p.authority for p in pauses.current()] == ["another", "one more", "tenant 007"]


class PausesMachine(RuleBasedStateMachine):
    """Uploads that need a host begin and end in any order; only the rules of the docstring hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = Pauses()
        self.now = NOW
        self.under_way: dict[int, bool] = {}
        self.serial = 0

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        pause = self.pauses.of("host")
        may_go = self.pauses.let_through(["host"], self.now)
        if pause is not None:
            is_probed = any(self.under_way.values())
            assert may_go == (pause.until <= self.now and not is_probed)
        if may_go:
            self.serial += 1
            self.under_way[self.serial] = pause is not None
            self.pauses.begin(self.serial, ["host"])

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(["good", "bad", "cut"]), chance=st.floats(0, 1, exclude_max=True))
    def end(self, data: st.DataObject, outcome: str, chance: float) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.under_way)))
        is_probe = self.under_way.pop(ticket)
        if outcome == "good":
            assert self.pauses.answered(ticket, ["host"]) == (("host",) if is_probe else ())
        elif outcome == "bad":
            before = self.pauses.of("host")
            after = self.pauses.failed(ticket, "host", "503", None, self.now, chance)
            assert after.until > self.now or (before is not None and any(self.under_way.values()))
        self.pauses.end(ticket)

    @invariant()
    def at_most_one_probes(self) -> None:
        assert sum(self.under_way.values()) <= 1


TestPausesMachine = PausesMachine.TestCase


def test_a_pace_slows_down() -> None:
    """Twice as long after each failure in a row; from the start again after a success or a long attempt."""
    pace = Pace(Backoff(1.0, 60.0, 0.5))
    assert [pace.failed(0.0, 0.5) for _ in range(3)] == [0.75, 1.25, 2.25]
    assert pace.failed(1.0, 0.5) == 0.75
    assert pace.failed(0.9, 0.5) == 1.25
    pace.succeeded()
    assert pace.failed(0.0, 0.5) == 0.75


@pytest.mark.parametrize(("asked", "expected"), [(0.0, 0.75), (20.0, 20.0), (1e9, MAX_PAUSE_SECONDS), (None, 0.75)])
def test_a_pace_is_what_was_asked_for(asked: float | None, expected: float) -> None:
    """Where that is longer, and bearable."""
    assert Pace(Backoff(1.0, 60.0, 0.5)).failed(0.0, 0.5, asked) == expected
