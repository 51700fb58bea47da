"""Who is to take a connection, from what all workers know of each other."""

import random
from collections.abc import Callable, Sequence

import pytest

from axcollector.core.loads import MOST_COMING, NONE, Loads

CONNECTIONS = 64


def loads(*kept: int) -> Loads:
    """Workers that keep so many connections, with none on their ways."""
    return Loads([cell for count in kept for cell in (count, 0)])


def test_the_rule() -> None:
    """Who would have two more than the one with fewest hands a connection on; of many an eighth of the mean."""
    assert loads(0, 0).taker(0, 0) is None
    assert loads(1, 0).taker(0, 1) == 1
    assert loads(1, 1).taker(0, 1) is None
    assert loads(5, 4, 3).taker(0, 5) == 2
    assert loads(5, 4, 3).taker(2, 3) is None
    assert loads(1000, 900).taker(0, 1000) is None
    assert loads(1000, 800).taker(0, 1000) == 1


def test_what_is_on_its_way_counts() -> None:
    """For who gets it, until it has come; more than there is cannot come."""
    cells = [0, 0, 0, 0]
    two = Loads(cells)
    two.comes(1, 3)
    assert two.taker(0, 3) is None
    assert two.taker(1, 0) == 0
    two.comes(1, -1)
    two.comes(1, -1)
    assert two.taker(0, 3) == 1
    two.comes(1, -9)
    assert cells == [0, 0, 0, 0]
    two.comes(1)
    two.all_came(1)
    two.keeps(1, 7)
    assert cells == [0, 0, 7, 0]


def test_who_takes_none() -> None:
    """Nobody sends anything to who has ended, or does not take what was sent to it before."""
    three = loads(9, 0, 1)
    three.takes_none(1)
    assert three.taker(0, 9) == 2
    three.comes(2, MOST_COMING)
    assert three.taker(0, 500) is None
    three.keeps(1, 0)
    assert three.taker(0, 9) == 1
    assert loads(NONE, 1).taker(0, 9) == 1
    assert loads(3).taker(0, 3) is None


def shares(workers: int, sockets: Sequence[int], lag: Callable[[], int]) -> list[int]:
    """How many connections each worker keeps, of some that come to these sockets.

    Each is taken from an inbox when so many others have come that `lag` says.
    """
    shared = loads(*[0] * workers)
    kept, underway = [0] * workers, list[tuple[int, int]]()

    def keep(slot: int) -> None:
        kept[slot] += 1
        shared.keeps(slot, kept[slot])

    for at, slot in enumerate(sockets):
        for due, taker in list(underway):
            if due <= at:
                underway.remove((due, taker))
                keep(taker)
                shared.comes(taker, -1)
        taker = shared.taker(slot, kept[slot])
        if taker is None:
            keep(slot)
        else:
            shared.comes(taker)
            underway.append((at + lag(), taker))
    for _, taker in underway:
        keep(taker)
    return kept


@pytest.mark.parametrize("workers", [2, 3, 4, 8])
def test_nobody_has_much_more_than_a_fair_share(workers: int) -> None:
    """Whichever sockets connections come to, all to one for instance, and however long they lie in inboxes."""
    chance = random.Random(workers)
    most = CONNECTIONS * 0.6 if workers == 2 else CONNECTIONS / workers * 1.2
    come_to = [[slot] * CONNECTIONS for slot in range(workers)]
    come_to += [[at * workers // CONNECTIONS for at in range(CONNECTIONS)]]
    come_to += [chance.choices(range(workers), k=CONNECTIONS) for _ in range(100)]
    lags: list[Callable[[], int]] = [lambda: 1, lambda: CONNECTIONS, lambda: chance.randrange(1, CONNECTIONS)]
    found = [shares(workers, sockets, lag) for sockets in come_to for lag in lags]
    assert {sum(kept) for kept in found} == {CONNECTIONS}
    assert max(map(max, found)) <= most
