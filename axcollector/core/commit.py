"""Group commit: who waits for which write.

While one write is under way, arrivals gather; when it has settled they go together as the next group. There is no
timer: with one client a commit takes one write and fsync, with a thousand still one for all of them.
Below the limits nobody waits for more than two writes: the one under way and the one that takes him.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from axcollector.core.errors import Overloaded
from axcollector.core.model import Batch

W = TypeVar("W")


class Entry(msgspec.Struct, Generic[W], frozen=True):
    """A batch, and whoever waits for it."""

    batch: Batch
    waiter: W


class GroupCommit(Generic[W]):
    """The batches that wait for a write, and whether one is under way."""

    def __init__(self, max_batches: int, max_bytes: int) -> None:
        """Nothing waits yet.

        Args:
            max_batches: How many batches may wait, those of the write under way included.
            max_bytes: How many bytes of lines may wait; a single batch may be larger.
        """
        self._max_batches = max_batches
        self._max_bytes = max_bytes
        self._gathered: list[Entry[W]] = []
        self._writing: Sequence[Entry[W]] = ()
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """How many batches wait, those of the write under way included."""
        return len(self._gathered) + len(self._writing)

    @property
    def waiting_bytes(self) -> int:
        """The bytes of their lines."""
        return self._bytes

    def check_room(self) -> None:
        """Refuse what could not be taken now.

        Raises:
            Overloaded: As many batches wait as may.
        """
        if len(self._gathered) + len(self._writing) >= self._max_batches:
            raise Overloaded(f"{self.waiting} batches wait to be written already (buffer_channel_size)")
        if self._bytes >= self._max_bytes:
            raise Overloaded(f"{self._bytes} bytes of records wait to be written already (max_pending_bytes)")

    def add(self, batch: Batch, waiter: W) -> None:
        """Let a batch wait for the next write.

        Raises:
            Overloaded: As many batches wait as may.
        """
        self.check_room()
        self._gathered.append(Entry(batch, waiter))
        self._bytes += batch.size_bytes

    def take(self) -> Sequence[Entry[W]]:
        """The next group to write; empty where nothing waits or a write is under way. Settle it with `settled`."""
        if self._writing:
            return ()
        self._writing, self._gathered = self._gathered, []
        return self._writing

    def settled(self) -> Sequence[Entry[W]]:
        """The group whose write has ended, well or badly; the next may be taken."""
        group, self._writing = self._writing, ()
        self._bytes -= sum([entry.batch.size_bytes for entry in group])
        return group
