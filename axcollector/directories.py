"""Directories whose names are durable, also where they were there before. Blocking; runs in work threads."""

import os

from axcollector.disk import Disk


class DurableDirectories:
    """Makes directories, and sees to it once for each that its name is durable, also where it was there already.

    That a directory is there does not mean that it will be after a power loss: whoever made it may have been killed
    before the sync, or the sync may have failed. So what this object has not synced itself it syncs.
    """

    _LIMIT = 10_000  # names kept; beyond it, all are forgotten and synced again

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._durable: set[str] = set()
        self._made: set[str] = set()  # and not synced yet

    def ensure(self, path: str) -> None:
        """Make a directory and those above it where they are missing; their names are durable."""
        self.make(path)
        self.sync(path)

    def make(self, path: str) -> None:
        """Make a directory and those above it where they are missing; their names are durable after `sync` only."""
        if not os.path.isdir(path):
            self.make(os.path.dirname(path))
            self._disk.make_directory(path)
            self._durable.discard(path)
            self._made.add(path)

    def sync(self, path: str) -> None:
        """Bring the name of a directory, and of those above it, to stable storage, the uppermost first.

        It makes no difference to what is durable then that all of them are made before the first is synced, but to a
        file system that writes what it has gathered with the first: the other syncs find nothing left to do.
        """
        parent = os.path.dirname(path)
        if path in self._durable or parent == path:
            return
        self.sync(parent)
        try:
            self._disk.sync_directory(parent)
        except PermissionError:  # nothing that we made lies in a directory that we may not read
            if path in self._made:
                raise
        self._made.discard(path)
        if len(self._durable) >= self._LIMIT:
            self._durable.clear()
        self._durable.add(path)


def ensure_directory(disk: Disk, path: str) -> None:
    """Make a directory and those above it where they are missing; their names are durable."""
    DurableDirectories(disk).ensure(path)
