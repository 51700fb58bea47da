"""Periodic work, ordered start and stop, a work thread."""

import threading

import pytest
import pytest_twisted
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock

from axcollector.services import InOrder, Periodic, Rest, WorkThread
from tests.conftest import LoggedFailures
from tests.fakes import result_of


def test_periodic_work_comes_at_its_times() -> None:
    """At once, then every interval; late calls fall out; after the stop there are none."""
    clock = Clock()
    calls: list[float] = []
    work = Periodic(clock, 10, "counting", lambda: calls.append(clock.seconds()))
    work.startService()
    clock.pump([10, 5, 5, 35])
    assert calls == [0, 10, 20, 55]
    result_of(work.stopService())
    clock.advance(100)
    assert calls == [0, 10, 20, 55]
    assert clock.getDelayedCalls() == []


def test_failures_are_logged_and_the_work_goes_on(logged_failures: LoggedFailures) -> None:
    """An exception, or a Deferred that fails, is logged and counted; the next call comes."""
    clock = Clock()
    outcomes: list[object] = [ZeroDivisionError("a"), defer.fail(ZeroDivisionError("b")), defer.succeed(None)]

    def run() -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    work = Periodic(clock, 1, "failing", run)
    work.startService()
    clock.pump([1, 1])
    assert outcomes == []
    assert (work.failures, work.reason) == (2, "ZeroDivisionError: b")
    assert work.runs == 3
    assert [str(failure) for failure in logged_failures.take(ZeroDivisionError)] == ["a", "b"]
    result_of(work.stopService())


def test_stopping_waits_for_the_call_under_way() -> None:
    """Calls never overlap, and the stop waits for the one that lasts."""
    clock = Clock()
    lasting: list[defer.Deferred[None]] = []

    async def run() -> None:
        lasting.append(defer.Deferred())
        await lasting[-1]

    work = Periodic(clock, 1, "lasting", run)
    work.startService()
    clock.pump([1, 1, 1])
    assert len(lasting) == 1
    stopped = work.stopService()
    assert not stopped.called
    lasting[0].callback(None)
    result_of(stopped)
    assert clock.getDelayedCalls() == []


def test_a_cancelled_call_is_no_failure() -> None:
    """Work that was cancelled is not logged as a failure."""
    work = Periodic(Clock(), 1, "cancelled", lambda: defer.fail(defer.CancelledError()))
    work.startService()
    assert work.failures == 0
    result_of(work.stopService())


class Noting(Service):
    """A service that notes when it is started and stopped, and stops when told."""

    def __init__(self, name: str, notes: list[str], fault: str = "") -> None:
        self.name = name
        self.notes = notes
        self.fault = fault
        self.stopped: defer.Deferred[None] = defer.Deferred()

    def startService(self) -> None:
        if self.fault == "start":
            raise ZeroDivisionError
        self.notes.append(f"start {self.name}")

    def stopService(self) -> "defer.Deferred[None]":
        self.notes.append(f"stop {self.name}")
        return self.stopped


def test_services_start_in_order_and_stop_backwards() -> None:
    """Each stop is waited for before the next."""
    notes: list[str] = []
    a, b, c = (Noting(name, notes) for name in "abc")
    services = InOrder([a, b, c])
    services.startService()
    stopped = services.stopService()
    assert notes == ["start a", "start b", "start c", "stop c"]
    c.stopped.callback(None)
    b.stopped.errback(ZeroDivisionError())
    assert notes[4:] == ["stop b", "stop a"]
    assert not stopped.called
    a.stopped.callback(None)
    with pytest.raises(ZeroDivisionError):
        result_of(stopped)


def test_a_start_that_fails_stops_those_before() -> None:
    """The failure is raised, and what had been started is told to stop."""
    notes: list[str] = []
    a, b = Noting("a", notes), Noting("b", notes, fault="start")
    with pytest.raises(ZeroDivisionError):
        InOrder([a, b]).startService()
    assert notes == ["start a", "stop a"]


@pytest_twisted.ensureDeferred
async def test_a_work_thread_runs_in_order() -> None:
    """Functions run one after the other, elsewhere; results and exceptions come back to the reactor's thread."""
    from twisted.internet import reactor

    thread = WorkThread(IReactorFromThreads(reactor), "test")
    with pytest.raises(defer.CancelledError):
        await thread.run(int)
    thread.startService()
    order: list[int] = []
    names = [thread.run(lambda i=i: (order.append(i), threading.current_thread().name)[1]) for i in range(5)]
    failing = thread.run(int, "x")
    assert [await name for name in names] == ["axcollector test"] * 5
    assert order == list(range(5))
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(ValueError, match="invalid literal"):
        await failing
    await thread.stopService()
    with pytest.raises(defer.CancelledError):
        await thread.run(int)


@pytest_twisted.ensureDeferred
async def test_stopping_a_work_thread() -> None:
    """The stop waits for what was given before; a caller that will not wait any longer may cancel it."""
    from twisted.internet import reactor

    thread = WorkThread(IReactorFromThreads(reactor), "test")
    thread.startService()
    go_on = threading.Event()
    work = thread.run(go_on.wait)
    impatient, patient = thread.stopService(), thread.stopService()
    impatient.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
    impatient.cancel()
    assert not patient.called
    go_on.set()
    await patient
    assert await work is True


@pytest_twisted.ensureDeferred
async def test_cancelled_work_is_forgotten() -> None:
    """The function runs all the same, and its result goes nowhere."""
    from twisted.internet import reactor

    thread = WorkThread(IReactorFromThreads(reactor), "test")
    thread.startService()
    done: list[int] = []
    work = thread.run(done.append, 1)
    work.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
    work.cancel()
    await thread.stopService()
    assert done == [1]


def test_a_pause_is_over_or_ended_or_cancelled() -> None:
    """Whatever comes first; no delayed call is left."""
    clock = Clock()
    rest = Rest(clock)
    rest.end()
    first = rest.take(5)
    clock.advance(5)
    assert result_of(first) is None
    second = rest.take(5)
    rest.end(first)
    assert not second.called
    rest.end(second)
    assert result_of(second) is None
    third, fourth = rest.take(5), rest.take(5)
    third.cancel()
    third.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
    rest.end()
    assert result_of(fourth) is None
    assert clock.getDelayedCalls() == []
