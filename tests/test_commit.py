"""Group commit: who waits for which write, and when it begins."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core.commit import PACE_SECONDS, Entry, GroupCommit
from axcollector.core.errors import Overloaded
from axcollector.core.model import Batch, Tenant

TENANT = Tenant("t", "acme", "prod")
MIB = 1 << 20
LINES = bytes(4 * MIB)


def batch(size: int = 10) -> Batch:
    """A batch of so many bytes."""
    return Batch(TENANT, LINES[:size], 1)


def test_arrivals_gather_while_a_write_is_under_way() -> None:
    """The first goes alone; what comes meanwhile goes together when the write has settled."""
    group: GroupCommit[str] = GroupCommit(10, 1000)
    assert list(group.take(0.0)) == []
    a, b, c = batch(), batch(), batch()
    group.add(a, "a")
    assert list(group.take(0.0)) == [Entry(a, "a")]
    group.add(b, "b")
    group.add(c, "c")
    assert list(group.take(0.0)) == []
    assert group.waiting == 3
    assert list(group.settled(0.0)) == [Entry(a, "a")]
    assert list(group.take(0.0)) == [Entry(b, "b"), Entry(c, "c")]
    assert group.waiting_bytes == 20
    group.settled(0.0)
    assert (group.waiting, group.waiting_bytes) == (0, 0)


def test_batches_beyond_the_limit_are_refused() -> None:
    """The one too many is refused at once, also while the others are being written; then there is room again."""
    group: GroupCommit[str] = GroupCommit(2, 1000)
    group.add(batch(), "a")
    group.take(0.0)
    group.add(batch(), "b")
    with pytest.raises(Overloaded, match="buffer_channel_size"):
        group.add(batch(), "c")
    group.settled(0.0)
    group.add(batch(), "c")


def test_bytes_beyond_the_limit_are_refused() -> None:
    """One large batch is taken; while it waits no other is."""
    group: GroupCommit[str] = GroupCommit(10, 1000)
    group.add(batch(5000), "a")
    with pytest.raises(Overloaded, match="max_pending_bytes"):
        group.add(batch(), "b")
    group.take(0.0)
    group.settled(0.0)
    group.add(batch(), "b")


def add(group: GroupCommit[int], count: int, size: int = 10) -> None:
    """So many more wait."""
    for number in range(count):
        group.add(batch(size), number)


def written(count: int, now: float, max_bytes: int = 100 * MIB) -> GroupCommit[int]:
    """A group commit whose last write began at `now`, took so many, and has ended."""
    group: GroupCommit[int] = GroupCommit(1000, max_bytes)
    add(group, count)
    assert len(group.take(now)) == count
    group.settled(now)
    return group


def test_one_client_never_waits_for_others() -> None:
    """One at a time, each begins at once, however close behind the last."""
    group = written(1, 5.0)
    for step in range(5):
        assert group.pause(5.0 + step * 1e-6) == 0.0  # nobody is there who could wait
        add(group, 1)
        assert group.pause(5.0 + step * 1e-6) == 0.0
        group.take(5.0 + step * 1e-6)
        group.settled(0.0)


@pytest.mark.parametrize("clients", [2, 7, 100])
def test_clients_in_step_wait_until_all_are_back(clients: int) -> None:
    """The first of them are waited for with, and nobody else once the last is there; 2 ms behind the last at most."""
    group = written(clients, 5.0)
    for now in (5.0005, 5.001, 5.0015):
        for _ in range(clients - 1):
            add(group, 1)
            assert 0 < group.pause(now) <= PACE_SECONDS
        add(group, 1)
        assert group.pause(now) == 0.0
        assert len(group.take(now)) == clients
        assert group.pause(now) == 0.0  # none can begin while one is under way
        group.settled(0.0)
    add(group, 1)
    assert group.pause(5.0015 + PACE_SECONDS + 1e-9) == 0.0


@pytest.mark.parametrize("late", [1, 4, 8])
def test_two_halves_become_one(late: int) -> None:
    """Who gathers beside a write waits, once that has settled, for those whose write it was; then all go together."""
    group: GroupCommit[int] = GroupCommit(1000, 100 * MIB)
    add(group, 8)
    group.take(5.0)
    add(group, late)
    group.settled(5.0003)
    assert group.pause(5.0003) > 0
    add(group, 7)
    assert group.pause(5.0004) > 0
    add(group, 1)
    assert group.pause(5.0005) == 0.0
    assert len(group.take(5.0005)) == late + 8


def test_a_write_that_took_long_waits_for_nobody() -> None:
    """Whoever gathers beside it goes at once when it has settled, without those who were written."""
    group: GroupCommit[int] = GroupCommit(1000, 100 * MIB)
    add(group, 8)
    group.take(5.0)
    add(group, 3)
    group.settled(5.0 + PACE_SECONDS + 1e-9)
    assert group.pause(5.0 + PACE_SECONDS + 1e-9) == 0.0


def test_who_has_gone_is_forgotten() -> None:
    """One of a hundred who went together goes on alone: within some writes he waits for nobody any more."""
    group = written(100, 0.0)
    pauses = []
    for write in range(60):
        add(group, 1)
        pauses.append(group.pause(write * 1e-9) > 0)
        group.take(write * 1e-9)
        group.settled(0.0)
    assert pauses[0]
    assert sorted(pauses, reverse=True) == pauses
    assert 20 < sum(pauses) < 50


@given(st.one_of(st.floats(-1e9, 1e9), st.floats(-0.003, 0.003)), st.integers(1, 999))
def test_a_clock_that_is_set_makes_no_wait_longer(step: float, waiting: int) -> None:
    """Set back or ahead by anything, the pause is never longer than it would have been."""
    group = written(1000, 1_480_000_080.0)
    add(group, waiting)
    assert 0.0 <= group.pause(1_480_000_080.0 + step) <= PACE_SECONDS
    if not -1e-6 <= step < PACE_SECONDS:  # what the number of a time is rounded to
        assert group.pause(1_480_000_080.0 + step) == 0.0


@pytest.mark.parametrize(("size", "max_bytes"), [(1 << 18, 100 * MIB), (1000, 1000)])
def test_enough_bytes_begin_at_once(size: int, max_bytes: int) -> None:
    """Whoever else may come: they are worth a write, or leave no room for others, who would be refused meanwhile."""
    group = written(10, 5.0, max_bytes)
    add(group, 1, size - 1)
    assert group.pause(5.0) > 0
    add(group, 1, 1)
    assert group.pause(5.0) == 0.0


SIZES = st.lists(st.sampled_from([1, 1000, 300_000, MIB - 1, MIB, MIB + 1, 3 * MIB]), max_size=8)


@given(st.lists(SIZES, max_size=8))
def test_groups_are_divided_by_bytes(rounds: list[list[int]]) -> None:
    """In their order, each once and whole; no more than 1 MB and one batch, and no fewer than may go together."""
    group: GroupCommit[int] = GroupCommit(1000, 1000 * MIB)
    numbers = itertools.count()
    waiting: list[tuple[int, int]] = []  # the model: number and size, those of the write under way first
    under_way = 0

    def settle() -> None:
        nonlocal under_way
        assert [(entry.waiter, entry.batch.size_bytes) for entry in group.settled(0.0)] == waiting[:under_way]
        del waiting[:under_way]
        under_way = 0

    def take() -> None:
        nonlocal under_way
        taken = group.take(0.0)
        under_way = len(taken)
        assert [(entry.waiter, entry.batch.size_bytes) for entry in taken] == waiting[:under_way]
        sizes = [size for _, size in waiting]
        assert sum(sizes[: under_way - 1]) < MIB or under_way == 0
        assert under_way == len(waiting) or sum(sizes[:under_way]) >= MIB

    def check() -> None:
        assert (group.waiting, group.waiting_bytes) == (len(waiting), sum(size for _, size in waiting))

    for sizes in rounds:
        for size in sizes:
            number = next(numbers)
            group.add(batch(size), number)
            waiting.append((number, size))
        check()
        if under_way:
            assert group.take(0.0) == ()
            settle()
            check()
        take()
        check()
    while waiting:
        settle()
        take()
    check()
    assert group.take(0.0) == ()


@pytest.mark.parametrize(("seconds", "writes", "total"), [(0.005, 64, 0.7), (0.1, 14, 2.0), (1.0, 4, 5.0)])
def test_a_slow_disk_gets_more_at_once(seconds: float, writes: int, total: float) -> None:
    """What waits is written in pieces where that costs little, and in fewer where each write takes long."""
    group: GroupCommit[int] = GroupCommit(1000, 1000 * MIB)
    add(group, 64, MIB)
    now, count = 0.0, 0
    while taken := group.take(now):
        now += seconds + 0.004 * len(taken)  # the disk, and the compression
        count += 1
        group.settled(now)
    assert count <= writes
    assert now < total
    add(group, 4, MIB)
    group.take(now)
    group.settled(now + 0.001)
    assert group.waiting in {0, 3}
    add(group, 4, MIB)
    assert len(group.take(now + 1)) == 1  # fast again
