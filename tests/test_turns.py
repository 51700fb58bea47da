"""In which order a long backlog is looked into."""

import contextlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from axcollector.core.turns import Entry, Turns


def entry(tenant: str, start: int) -> Entry:
    """A bucket that waits."""
    return start, f"{tenant}~{start}", "", tenant


def take(turns: Turns, count: int, *skip: str) -> list[Entry]:
    """The next ones."""
    with contextlib.closing(turns.taking(set(skip))) as entries:  # type: ignore[type-var]  # typed as an iterator, is a generator
        return list(itertools.islice(entries, count))


def test_tenants_take_turns_oldest_first() -> None:
    """The tenant with the oldest bucket begins, each tenant's own come oldest first, in whatever order they came."""
    turns = Turns()
    for each in (entry("a", 9), entry("b", 1), entry("a", 2), entry("c", 5), entry("b", 4), entry("b", 1)):
        turns.add(each)
    assert len(turns) == 5
    assert "b~1" in turns
    expected = [entry("b", 1), entry("a", 2), entry("c", 5), entry("b", 4), entry("a", 9)]
    assert take(turns, 9) == expected
    assert len(turns) == 0


def test_who_was_served_stands_behind() -> None:
    """Also when it is added to again; a newcomer waits for nobody's backlog."""
    turns = Turns()
    for start in range(5):
        turns.add(entry("a", start))
    assert take(turns, 1) == [entry("a", 0)]
    turns.add(entry("a", 0))
    turns.add(entry("b", 100))
    assert take(turns, 2) == [entry("b", 100), entry("a", 0)]


def test_skipped_tenants_keep_their_place() -> None:
    """They are there the next time."""
    turns = Turns()
    for tenant, start in (("a", 1), ("b", 2), ("c", 3), ("b", 4)):
        turns.add(entry(tenant, start))
    assert take(turns, 1, "a", "b") == [entry("c", 3)]
    assert take(turns, 9, "a") == [entry("b", 2), entry("b", 4)]
    assert take(turns, 9) == [entry("a", 1)]


def test_turns_of_very_many_tenants_are_forgotten() -> None:
    """Of those served longest ago; to them it is as if they never had been."""
    turns = Turns()
    for number in range(10_001):
        turns.add(entry(f"t{number}", 0))
        take(turns, 1)
    turns.add(entry("t1", 1))
    turns.add(entry("t0", 2))
    assert take(turns, 2) == [entry("t0", 2), entry("t1", 1)]


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abc"), st.integers(0, 9)),
        st.tuples(st.just("take"), st.integers(0, 3), st.frozensets(st.sampled_from("abc"))),
    )
)


@given(steps)
def test_nothing_is_lost_or_doubled(steps: list[tuple[object, ...]]) -> None:
    """Whatever is added and taken: each tenant's oldest comes, nobody's that was to be skipped."""
    turns, waiting = Turns(), set()
    for step in steps:
        if step[0] != "take":
            turns.add(entry(*step))
            waiting.add(entry(*step))
            continue
        for taken in take(turns, step[1] + 1, *step[2]):
            assert taken == min(each for each in waiting if each[3] == taken[3])
            assert taken[3] not in step[2]
            waiting.remove(taken)
        assert len(turns) == len(waiting)
    assert set(take(turns, 1000)) == waiting
