"""Courtesy: long work sleeps where others had the core meanwhile, and only then."""

import pytest

from axcollector.courtesy import SLICE_SECONDS, Courtesy, Haste

MS = 0.001


class Machine:
    """A core that others may want, too: its clocks, and who sleeps."""

    def __init__(self, slice_seconds: float = SLICE_SECONDS) -> None:
        self.time = 1000.0
        self.had = 7.0
        self.slept: list[float] = []
        self.courtesy = Courtesy(slice_seconds, self.sleep, lambda: self.time, lambda: self.had)

    def sleep(self, seconds: float) -> None:
        """Time passes, and no work is done."""
        self.slept.append(seconds)
        self.time += seconds

    def work(self, seconds: float, share: float = 1.0) -> None:
        """So much processor time, at that share of the core."""
        self.had += seconds
        self.time += seconds / share


def test_alone_it_never_sleeps() -> None:
    """Neither with the whole core, nor with a little less, as it is by chance."""
    machine = Machine()
    for _ in range(200):
        machine.work(0.7 * MS, 0.85)
        machine.courtesy.step_back()
    assert machine.slept == []


@pytest.mark.parametrize("share", [0.5, 0.75, 0.1])
def test_among_others_a_quarter_is_its_own(share: float) -> None:
    """Three times as long as it has worked it sleeps, whatever share of the core it got, once in each slice."""
    machine = Machine()
    for _ in range(30):
        machine.work(1.1 * MS, share)
        machine.courtesy.step_back()
    assert machine.slept == pytest.approx([6.6 * MS] * 15)


def test_it_looks_after_a_slice() -> None:
    """Less than a slice is too little to judge by, and counts towards the next look."""
    machine = Machine(10 * MS)
    machine.work(6 * MS, 0.5)
    assert machine.courtesy.due() == 0.0
    machine.work(5 * MS)  # alone now: 17 ms for 11
    assert machine.courtesy.due() == pytest.approx(33 * MS)
    assert machine.courtesy.due() == 0.0
    machine.work(11 * MS)
    assert machine.courtesy.due() == 0.0


def test_every_piece_is_a_slice() -> None:
    """With a slice of nothing it judges each piece, one without work included."""
    machine = Machine(0.0)
    assert machine.courtesy.due() == 0.0
    machine.work(0.1 * MS, 0.5)
    assert machine.courtesy.due() == pytest.approx(0.3 * MS)


def test_waiting_for_a_disk_is_no_contention() -> None:
    """What passed before it goes on counts for nothing, neither its own sleep."""
    machine = Machine()
    for _ in range(20):
        machine.work(1.5 * MS)
        machine.time += 80 * MS
        machine.courtesy.go_on()
        machine.work(2.5 * MS)
        machine.courtesy.step_back()
    assert machine.slept == []
    machine.work(4 * MS, 0.5)
    machine.courtesy.step_back()
    machine.work(4 * MS)
    machine.courtesy.step_back()
    assert machine.slept == pytest.approx([12 * MS])


def test_whoever_hurries_sleeps_no_more() -> None:
    """However little of the core it gets from then on."""
    machine = Machine()
    machine.work(3 * MS, 0.5)
    machine.courtesy.step_back()
    machine.courtesy.hurry()
    machine.work(100 * MS, 0.1)
    machine.courtesy.step_back()
    assert machine.slept == pytest.approx([9 * MS])


def test_haste_never_sleeps() -> None:
    """Whatever it is asked, and however little of the core it gets."""
    machine = Machine()
    haste = Haste(0.0, machine.sleep, lambda: machine.time, lambda: machine.had)
    machine.work(100 * MS, 0.01)
    assert haste.due() == 0.0
    haste.step_back()
    assert machine.slept == []
