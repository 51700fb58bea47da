"""A lock for which those who wait take turns by what they belong to."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer

from axcollector.fairness import FairLock


class Queue:
    """Who has got the lock so far."""

    def __init__(self) -> None:
        self.lock = FairLock()
        self.got: list[str] = []

    def acquire(self, name: str) -> "defer.Deferred[None]":
        return self.lock.acquire(name[0]).addCallback(lambda _: self.got.append(name))


def test_turns() -> None:
    """Whoever waits behind many of another gets the lock after one of them."""
    queue = Queue()
    for name in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
        queue.acquire(name)
    assert queue.got == ["a1"]
    for _ in range(7):
        queue.lock.release()
    assert queue.got == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
    queue.acquire("d1")
    assert queue.got[-1] == "d1"


def test_giving_up() -> None:
    """Who gives up waiting is passed over, and leaves nothing behind."""
    queue = Queue()
    queue.acquire("a1")
    gone = [queue.acquire(name).addErrback(lambda f: f.trap(defer.CancelledError)) for name in ("b1", "c1", "c2")]
    queue.acquire("b2")
    for each in gone[:2]:
        each.cancel()
    for _ in range(3):
        queue.lock.release()
    assert queue.got == ["a1", "b2", "c2"]
    queue.acquire("d1")
    assert queue.got[-1] == "d1"


def test_all_of_one_give_up() -> None:
    """Where nobody of a tenant waits any more, the next in turn is another's."""
    queue = Queue()
    queue.acquire("a1")
    gone = [queue.acquire(name).addErrback(lambda f: f.trap(defer.CancelledError)) for name in ("b1", "b2")]
    queue.acquire("c1")
    for each in gone:
        each.cancel()
    queue.lock.release()
    assert queue.got == ["a1", "c1"]


@given(st.lists(st.sampled_from(["acquire a", "acquire b", "acquire c", "release"])))
def test_one_at_a_time(steps: list[str]) -> None:
    """There is one holder at most, and one as long as anybody waits."""
    queue = Queue()
    asked = released = 0
    for step in steps:
        if step != "release":
            asked += 1
            queue.acquire(step[-1])
        elif released < len(queue.got):
            released += 1
            queue.lock.release()
        assert len(queue.got) == min(asked, released + 1)


def test_thousands_that_fail_at_once() -> None:
    """Work that fails as soon as it has the lock, as all does once the threads have stopped, is told so, each of it."""
    lock = FairLock()
    lock.acquire("a")

    async def work(whose: str) -> None:
        await lock.acquire(whose)
        try:
            raise defer.CancelledError
        finally:
            lock.release()

    ended = [defer.ensureDeferred(work(str(number % 7))) for number in range(3000)]
    failed = [each.addErrback(lambda failure: failure.trap(defer.CancelledError)) for each in ended]
    lock.release()
    assert [each.result for each in failed] == [defer.CancelledError] * 3000
    assert lock.acquire("b").called


def test_nobody_gets_in_between() -> None:
    """Who comes while the lock is handed on waits behind those who were there before, and holds it alone."""
    lock, order = FairLock(), list[str]()
    lock.acquire("a")

    def come_again(_: None) -> None:
        order.append("first")
        lock.release()
        lock.acquire("b").addCallback(lambda _: order.append("late"))

    lock.acquire("b").addCallback(come_again)
    lock.acquire("c").addCallback(lambda _: order.append("second"))
    lock.release()
    assert order == ["first", "second"]
    lock.release()
    assert order == ["first", "second", "late"]
