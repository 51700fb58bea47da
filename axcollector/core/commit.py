"""Group commit: who waits for which write, and when it begins.

While one write is under way, arrivals gather; when it has settled they go together as the next group. A write costs
much the same whoever goes with it, and on a fast disk what it costs is processor time. So the next one waits for the
rest of those who went lately, with one write or gathering behind it, who are likely to be back at once, but begins
`PACE_SECONDS` behind the last at the latest. (Were only those expected who went *together*, clients would stay in two
halves, one gathering while the other is written.) Where one client sends, nobody is waited for; where writes take
longer than that, neither.
While less than `_MOST_BYTES` wait, nobody waits for more than two writes and that pause: the one under way and the one
that takes him.
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from axcollector.core.errors import Overloaded
from axcollector.core.model import Batch

PACE_SECONDS: Final = 0.002
_FORGETTING: Final = 0.9
"""Of so many as were there at most, so many are expected one write later."""
_ENOUGH_BYTES: Final = 1 << 18
"""A group of so many bytes is worth a write, whoever else may come: the write costs no more than they do. So is one
that leaves no room for others."""
_MOST_BYTES: Final = 1 << 20
"""A group has no more bytes than this and one batch, lest those in it wait for the compression of all the others."""
_LONG_SECONDS: Final = 0.02
"""A write that takes longer is the disk's: the next may have as many more bytes, lest what waits be written slowly."""

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
        self._enough_bytes = min(_ENOUGH_BYTES, max_bytes)
        self._gathered: list[Entry[W]] = []
        self._writing: Sequence[Entry[W]] = ()
        self._bytes = 0
        self._expected = 1.0
        self._taken_at = 0.0
        self._most_bytes: float = _MOST_BYTES

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

    def pause(self, now: float) -> float:
        """How long the next write waits for others, in seconds; 0: it may begin, or there is none to begin."""
        gathered = len(self._gathered)
        if not gathered or self._writing or gathered >= self._expected or self._bytes >= self._enough_bytes:
            return 0.0
        since = now - self._taken_at
        return PACE_SECONDS - since if 0 <= since < PACE_SECONDS else 0.0  # less than 0: the clock was set back

    def take(self, now: float) -> Sequence[Entry[W]]:
        """The next group to write; empty where nothing waits or a write is under way. Settle it with `settled`."""
        if self._writing or not self._gathered:
            return ()
        self._writing, self._gathered = self._divided()
        self._expected = max(len(self._writing), self._expected * _FORGETTING)
        self._taken_at = now
        return self._writing

    def _divided(self) -> tuple[list[Entry[W]], list[Entry[W]]]:
        """Those that go now, and those that go with the next write."""
        gathered = self._gathered
        if self._bytes > self._most_bytes:
            size = 0
            for place, entry in enumerate(gathered, 1):
                size += entry.batch.size_bytes
                if size >= self._most_bytes:
                    return gathered[:place], gathered[place:]
        return gathered, []

    def settled(self, now: float) -> Sequence[Entry[W]]:
        """The group whose write has ended, well or badly; the next may be taken."""
        group, self._writing = self._writing, ()
        self._expected = max(self._expected, len(group) + len(self._gathered))
        self._most_bytes = _MOST_BYTES * max(1.0, (now - self._taken_at) / _LONG_SECONDS)
        self._bytes -= sum([entry.batch.size_bytes for entry in group])
        return group
