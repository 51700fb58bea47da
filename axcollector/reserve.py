"""The room that the splits of all journals will need, which whoever writes journals leaves free.

A split writes a journal's members a second time before the journal is deleted. On a disk that journals were allowed to
fill, none of them could be split any more: what is on it could neither be delivered nor make room. So a commit is
refused already when what would be left does not suffice for splitting all that was committed.
"""

import errno
import os

from axcollector.core.layout import JOURNAL_SUFFIX, JournalName
from axcollector.disk import Disk

TENANT_BYTES = 8192
"""What a tenant's file and its directory take beside the members: a block each."""
MARGIN_BYTES = 1 << 18
"""For what else is written now and then: names, counters, the registry's log."""
_LEAST_FRAME_BYTES = 256
"""A frame of one small record; tells how many tenants a journal has at the most that nobody has read yet."""


class SplitReserve:
    """How much the journals that are not split yet will need. Its parts may be called from different threads."""

    def __init__(self, disk: Disk, directory: str) -> None:
        """No journal is known yet.

        Args:
            disk: The hands.
            directory: A directory of the file system in question.
        """
        self._disk = disk
        self._directory = directory
        self._needs: dict[str, int] = {}

    def note(self, identity: str, size: int, tenants: int) -> None:
        """A journal has so many bytes, of so many tenants."""
        self._needs[identity] = size + tenants * TENANT_BYTES

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

    @property
    def needed(self) -> int:
        """How many bytes the splits of all known journals will write."""
        return sum(tuple(self._needs.values()))

    def check(self, size: int, tenants: int) -> None:
        """Refuse a commit of so many bytes that would take the room of a split.

        Raises:
            OSError: With ENOSPC; nothing was written.
        """
        wanted = self.needed + 2 * size + tenants * TENANT_BYTES + MARGIN_BYTES
        if self._disk.free_bytes(self._directory) < wanted:
            raise OSError(errno.ENOSPC, "No space left but what is kept for splitting journals")
