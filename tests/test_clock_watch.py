"""Delayed calls stay relative when the wall clock is set."""

import threading

from twisted.internet.task import Clock
from twisted.logger import LogEvent

from axcollector.clock_steps import ClockSteps
from tests.fakes import result_of


class SettableClock(Clock):
    """A wall clock that can be set, beside one that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = 1_480_000_080.0
        self.monotonic = 100.0
        self.from_thread = threading.Event()

    def pass_seconds(self, seconds: float) -> None:
        """Real time passes."""
        self.monotonic += seconds
        self.advance(seconds)

    def callFromThread(self, function: object) -> None:
        self.from_thread.set()


def test_steps_move_what_is_scheduled(log_events: list[LogEvent]) -> None:
    """Back by an hour: each call comes when so much time has passed as was asked for; forward: all come at once."""
    clock = SettableClock()
    watch = ClockSteps(clock, clock.seconds, lambda: clock.monotonic)
    watch.startService()
    came: list[str] = []
    clock.callLater(10, came.append, "ten")
    clock.callLater(20, came.append, "twenty")
    clock.pass_seconds(5)
    clock.rightNow -= 3600
    watch.look()
    clock.pass_seconds(4.5)
    assert came == []
    clock.pass_seconds(1)
    assert came == ["ten"]
    clock.callLater(5, came.append, "later")
    clock.rightNow += 86_400
    watch.look()
    clock.pass_seconds(0)
    assert came == ["ten", "later", "twenty"]
    assert [round(event["step"]) for event in log_events if "step" in event] == [-3600]
    result_of(watch.stopService())


def test_a_slewed_clock_is_no_step(log_events: list[LogEvent]) -> None:
    """Small differences are followed, and never add up to a step."""
    clock = SettableClock()
    watch = ClockSteps(clock, clock.seconds, lambda: clock.monotonic)
    watch.startService()
    for _ in range(1000):
        clock.rightNow += 0.01
        watch.look()
    assert log_events == []
    result_of(watch.stopService())
    result_of(watch.stopService())


def test_the_thread_looks_and_ends() -> None:
    """The watching thread has the reactor look, and ends with the service."""
    clock = SettableClock()
    watch = ClockSteps(clock, clock.seconds, lambda: clock.monotonic)
    before = set(threading.enumerate())
    watch.startService()
    (thread,) = set(threading.enumerate()) - before
    assert clock.from_thread.wait(30)
    result_of(watch.stopService())
    thread.join()
