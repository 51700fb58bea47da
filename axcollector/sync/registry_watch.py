"""Looks at the registry's file: whether it has changed since the look before, and which rows. Blocking.

A connection of its own tells whether another one has committed (`PRAGMA data_version`, which works across processes);
the file's inode, size and time tell whether another file may lie there, which is then opened. If the change log goes
on from where it was at the look before, with the same tables and triggers, it tells all that happened; that holds for
a file opened anew too, since a log position is found only in a file that has been in that state. If something
happened that is not in the log, nobody knows what.

What the write-ahead log holds is brought into the file each time, so that it is empty when somebody puts another
file in this one's place. If another process does that alone, it looks like a change that is not in the change log.
Where a file was replaced while that log held something, it is removed before the new file is opened: SQLite would
take what was written to the old file for the new one's, and damage that for good.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from axcollector.core.errors import RegistryError
from axcollector.registry_changes import ChangedRow, FollowedRegistry
from axcollector.registry_file import RegistryFile, errors_of, remove_wal_of_the_replaced
from axcollector.registry_log import LogPosition

_BUSY_TIMEOUT_SECONDS: Final = 0.5
"""How long a look waits for somebody who writes; the next one comes soon."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the file has found.

    Attributes:
        version: What this state is called; another state, another version.
        schema_version: `PRAGMA schema_version`.
        position: Where the change log ends; None where there is none that can be believed.
        is_told: Whether the log tells all that happened since the look before.
        changed: The rows changed since the position that was asked about; None where none was, or if they cannot be
            told, or are too many.
    """

    version: str
    schema_version: int
    position: LogPosition | None
    is_told: bool
    changed: Sequence[ChangedRow] | None


class RegistryWatch:
    """A connection to the file, opened anew when another file lies there; lives in one thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: FollowedRegistry | None = None
        self._identity: tuple[int, ...] = ()
        self._opened = 0
        self._before: Look | None = None

    def look(self, since: LogPosition | None = None) -> Look:
        """What the file is like now, and what was changed since a position that an earlier look has told.

        Raises:
            RegistryError: It cannot be read.
        """
        if not self._opened:
            self._make_if_missing()
        try:
            identity = self._identify()
            if identity != self._identity:
                self.close()
            if self._opened and identity[:2] != self._identity[:2]:
                remove_wal_of_the_replaced(self._path)
            look = self._read(self._file or self._open(), since)
            identity = self._empty_wal(identity)
        except RegistryError:
            self.close()
            raise
        self._before, self._identity = look, identity
        return look

    def close(self) -> None:
        """Close the file, until the next look."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> FollowedRegistry:
        self._file = FollowedRegistry.open(self._path, _BUSY_TIMEOUT_SECONDS)
        self._opened += 1
        with contextlib.suppress(RegistryError):  # it may not be written by us; or not now
            self._file.begin_log()
        return self._file

    def _read(self, file: FollowedRegistry, since: LogPosition | None) -> Look:
        before = self._before
        with file.reading():
            version = f"{self._opened}.{file.data_version()}"
            schema_version = file.schema_version()
            position = file.log_position()
            if before is None or before.schema_version != schema_version:
                is_told = False
            elif before.version == version:
                is_told = True
            elif before.position is None or before.position == position:
                is_told = False  # something happened that is not in the log
            else:
                is_told = file.tells_since(before.position)
            changed = file.changed_since(since) if since is not None else None
        return Look(version, schema_version, position, is_told, changed)

    def _empty_wal(self, identity: tuple[int, ...]) -> tuple[int, ...]:
        """Empty the write-ahead log, if there is something in it; returns the file's identity afterwards."""
        if self._file is None or not self._has_wal():
            return identity
        with errors_of(self._path):
            self._file.checkpoint()
        after = self._identify()
        # Else it was replaced meanwhile, which the next look is to see.
        return after if after[:2] == identity[:2] else identity

    def _identify(self) -> tuple[int, ...]:
        with errors_of(self._path):
            try:
                facts = os.stat(self._path)
            except FileNotFoundError:
                self._identity = ()  # what comes next is another file, even if it gets the same inode
                raise
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns

    def _has_wal(self) -> bool:
        try:
            return os.path.getsize(self._path + "-wal") > 0
        except OSError:
            return False

    def _make_if_missing(self) -> None:
        """Before it has been read for the first time only: a file that goes later is missed, not replaced."""
        with errors_of(self._path):
            is_missing = not os.path.exists(self._path) or not os.path.getsize(self._path)
        if is_missing:
            RegistryFile.create(self._path).close()
