"""Threads that kinds of work share: how many there are, who has which turn, and when they end."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import defer

from axcollector.services import WorkThread
from axcollector.threads import Threads, start_daemon


class Results:
    """In a reactor's place: tells of results when it is asked to."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def callFromThread(self, function: Callable[..., None], *arguments: object) -> None:
        self._calls.put(lambda: function(*arguments))

    def until(self, *work: "defer.Deferred[Any]") -> None:
        """Tell of results until all of this work is done."""
        while not all(each.called for each in work):
            self._calls.get()()


class Stand:
    """Kinds of work that share threads, each of which can be held up.

    Attributes:
        started: The threads that were started.
        order: What was done.
    """

    def __init__(self, limit: int, kinds: int, most: int = 100) -> None:
        self.results = Results()
        self.started: list[threading.Thread] = []
        self.order: list[str] = []
        self._most = most
        threads = Threads(limit, self._start)
        self.kinds = [WorkThread(self.results, f"k{number}", threads) for number in range(kinds)]  # type: ignore[arg-type]
        for kind in self.kinds:
            kind.startService()

    def _start(self, loop: Callable[[], None]) -> None:
        if len(self.started) == self._most:
            raise RuntimeError("can't start new thread")
        before = set(threading.enumerate())
        start_daemon(loop)
        self.started += set(threading.enumerate()) - before

    def hold(self, kind: int) -> tuple[threading.Event, "defer.Deferred[Any]"]:
        """Have a kind work until the event is set; returns when it has begun."""
        begun, event = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            event.wait()

        result = self.kinds[kind].run(work)
        begun.wait()
        return event, result

    def note(self, kind: int, what: str) -> "defer.Deferred[Any]":
        """Have a kind note what it does."""
        return self.kinds[kind].run(self.order.append, what)

    def stop(self) -> None:
        """Stop all, and see that every thread has ended."""
        self.results.until(*[kind.stopService() for kind in self.kinds])
        for thread in self.started:
            thread.join()


@pytest.fixture
def stands() -> Iterator[Callable[..., Stand]]:
    """Makes stands, which are stopped in the end."""
    made: list[Stand] = []

    def make(*arguments: int, **more: int) -> Stand:
        made.append(Stand(*arguments, **more))
        return made[-1]

    yield make
    for stand in made:
        stand.stop()


def test_threads_are_started_when_they_are_needed(stands: Callable[..., Stand]) -> None:
    """One does for as long as no two kinds have work at a time; and there are never more than kinds with work."""
    stand = stands(9, 9)
    for number in range(9):
        stand.results.until(stand.note(number, "x"))
    assert len(stand.started) == 1
    held = [stand.hold(number) for number in range(3)]
    assert len(stand.started) == 3
    stand.note(2, "waits for its own kind")
    assert len(stand.started) == 3
    for event, _ in held:
        event.set()


def test_threads_are_bounded_and_shared_in_turn(stands: Callable[..., Stand]) -> None:
    """With two threads the work of a third kind waits, and then the kinds take turns, a function each."""
    stand = stands(2, 4)
    held = [stand.hold(0), stand.hold(1)]
    work = [stand.note(kind, f"{kind}{letter}") for kind in (2, 3) for letter in "ab"]
    assert len(stand.started) == 2
    assert stand.order == []
    held[0][0].set()
    stand.results.until(*work)
    assert stand.order == ["2a", "3a", "2b", "3b"]
    held[1][0].set()


def test_a_thread_is_called_after_its_work(stands: Callable[..., Stand]) -> None:
    """So that one sees who is busy."""
    stand = stands(1, 2)
    names = [kind.run(lambda: threading.current_thread().name) for kind in stand.kinds]
    stand.results.until(*names)
    assert [name.result for name in names] == ["axcollector k0", "axcollector k1"]


def test_threads_end_with_their_last_user() -> None:
    """Not before what each of them was given is done; and they can be used again."""
    stand = Stand(2, 2)
    event, held = stand.hold(0)
    stopped = [kind.stopService() for kind in stand.kinds]
    assert [each.called for each in stopped] == [False, True]
    assert [thread.is_alive() for thread in stand.started] == [True]
    event.set()
    stand.results.until(held, *stopped)
    for thread in stand.started:
        thread.join()
    stand.kinds[1].startService()
    stand.results.until(stand.note(1, "again"))
    assert (len(stand.started), stand.order) == (2, ["again"])
    stand.kinds[1].startService()  # what is started already
    stand.stop()


def test_threads_end_though_nobody_hears_of_it() -> None:
    """The reactor may have stopped before the work is done."""
    stand = Stand(1, 1)
    event, _ = stand.hold(0)
    stand.kinds[0].stopService()
    event.set()
    for thread in stand.started:
        thread.join()


def test_started_again_while_the_last_work_goes_on(stands: Callable[..., Stand]) -> None:
    """Then it comes behind that, in order."""
    stand = stands(2, 1)
    event, held = stand.hold(0)
    stopped = stand.kinds[0].stopService()
    stand.kinds[0].startService()
    behind = stand.note(0, "behind")
    assert len(stand.started) == 1
    event.set()
    stand.results.until(held, stopped, behind)
    assert stand.order == ["behind"]


def test_a_system_without_more_threads(stands: Callable[..., Stand]) -> None:
    """Those that are there do it all; without one there is no start."""
    stand = stands(3, 3, most=1)
    event, _ = stand.hold(0)
    work = [stand.note(kind, str(kind)) for kind in (1, 2)]
    event.set()
    stand.results.until(*work)
    assert stand.order == ["1", "2"]
    with pytest.raises(RuntimeError):
        Stand(1, 1, most=0)
