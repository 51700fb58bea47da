"""The room that the splits of all journals will need, which whoever writes journals leaves free.

A split writes a journal's members a second time before the journal is deleted. On a disk that journals were allowed to
fill, none of them could be split any more: what is on it could neither be delivered nor make room. So a commit is
refused already when what would be left does not suffice for splitting all that was committed.
"""

import errno
import os
from collections.abc import Iterable, Mapping

from axcollector.core.layout import JOURNAL_SUFFIX, JournalName
from axcollector.disk import Disk

TENANT_BYTES = 8192
"""What a tenant's file and its directory take beside the members: a block each."""
MARGIN_BYTES = 1 << 18
"""For what else is written now and then: names, counters, the registry's log."""
_LEAST_FRAME_BYTES = 256
"""A frame of one small record; tells how many tenants a journal has at the most that nobody has read yet."""


class SplitReserve:
    """How much the journals that are not split yet will need. Its parts may be called from different threads.

    Attributes:
        others_need: How many bytes the splits of journals will need that other processes know of.
    """

    def __init__(self, disk: Disk, directory: str) -> None:
        """No journal is known yet.

        Args:
            disk: The hands.
            directory: A directory of the file system in question.
        """
        self._disk = disk
        self._directory = directory
        self._needs: dict[str, int] = {}
        self.others_need = 0

    def note(self, identity: str, size: int, tenants: int) -> None:
        """A journal has so many bytes, of so many tenants."""
        self.note_need(identity, size + tenants * TENANT_BYTES)

    def note_need(self, identity: str, need: int) -> None:
        """The split of a journal needs so many bytes."""
        self._needs[identity] = need

    def note_found(self, directory: str) -> None:
        """Note the journals that a crash left in a directory, whatever is in them."""
        for name in self._disk.names(directory):
            try:
                journal, suffix = JournalName.parse(name)
            except ValueError:
                continue
            if suffix == JOURNAL_SUFFIX:
                size = self._disk.size(os.path.join(directory, name))
                self.note(journal.identity, size, size // _LEAST_FRAME_BYTES)

    def forget(self, identity: str) -> None:
        """A journal is split, or gone."""
        self._needs.pop(identity, None)

    def forget_gone(self, directory: str, identities: Iterable[str]) -> None:
        """Forget those of some journals that are not in their directory any more: others have split them."""
        for identity in identities:
            if not self._disk.exists(os.path.join(directory, identity + JOURNAL_SUFFIX)):
                self.forget(identity)

    def take_over(self, directory: str, needs: Mapping[str, int]) -> None:
        """The room for the splits of what somebody has left in a directory is ours to keep from now on."""
        for identity, need in needs.items():
            self.note_need(identity, need)
        self.forget_gone(directory, needs)

    @property
    def needs(self) -> Mapping[str, int]:
        """How many bytes the split of each known journal will write."""
        return self._needs.copy()

    @property
    def needed(self) -> int:
        """How many bytes the splits of all known journals will write."""
        return sum(tuple(self._needs.values()))

    def check(self, size: int, tenants: int) -> None:
        """Refuse a commit of so many bytes that would take the room of a split.

        Raises:
            OSError: With ENOSPC; nothing was written.
        """
        wanted = self.needed + self.others_need + 2 * size + tenants * TENANT_BYTES + MARGIN_BYTES
        if self._disk.free_bytes(self._directory) < wanted:
            raise OSError(errno.ENOSPC, "No space left but what is kept for splitting journals")
