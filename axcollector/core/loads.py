"""How many connections each worker has, as all of them see it, and who is to take the next one.

Each has two numbers, in memory that they share: how many it keeps, which it alone writes (and its parent, when it has
ended), and how many are on their way to it, which whoever sends it one adds to, and it takes back when they come.
Nothing locks them, so an addition is lost at times. That does not last: whenever nothing is on its way the second is
set to nought, and each now and then says anew what it keeps.
"""

from typing import Final

CELL_BYTES: Final = 8
NONE: Final = -1
"""What stands for how many a worker keeps where it takes none: it has ended, is not ready yet, or leaves."""
MOST_COMING: Final = 64
"""Who has so many on their way is sent no more: it may be hung."""


def size_bytes(workers: int) -> int:
    """How much memory the numbers of so many workers take."""
    return 2 * CELL_BYTES * workers


class Loads:
    """The numbers of all workers; each is known by its slot."""

    def __init__(self, cells: "memoryview[int] | list[int]") -> None:
        """Two cells a worker, of `CELL_BYTES` each."""
        self._cells = cells

    def keeps(self, slot: int, count: int) -> None:
        """A worker keeps so many connections."""
        self._cells[2 * slot] = count

    def takes_none(self, slot: int) -> None:
        """A worker takes no connections any more, or not yet."""
        self._cells[2 * slot] = NONE

    def comes(self, slot: int, change: int = 1) -> None:
        """One more is on its way to a worker; -1: it has come, or stays where it was."""
        self._cells[2 * slot + 1] = max(0, self._cells[2 * slot + 1] + change)

    def all_came(self, slot: int) -> None:
        """Nothing is on its way to a worker."""
        self._cells[2 * slot + 1] = 0

    def taker(self, slot: int, kept: int) -> int | None:
        """Who takes a connection that has come to a worker which keeps so many; None: that one itself.

        It goes to the one with fewest where that makes a difference: where this one would have at least two more, and
        more by an eighth of what they have in the mean. What is on its way counts for who gets it.
        """
        cells = self._cells
        others = {
            each: cells[2 * each] + cells[2 * each + 1]
            for each in range(len(cells) // 2)
            if each != slot and cells[2 * each] != NONE and cells[2 * each + 1] < MOST_COMING
        }
        if not others:
            return None
        mine = kept + cells[2 * slot + 1] + 1
        least = min(others, key=others.__getitem__)
        mean = (mine + sum(others.values())) / (len(others) + 1)
        return least if mine - others[least] > max(1, mean / 8) else None
