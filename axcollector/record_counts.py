"""How many records a file holds, so that what was delivered can be counted in records.

Who makes a file knows it, and says so (`note`). What nobody has said, because it was made before the last start, is
found by reading the file once more when it is delivered. Blocking; called from several threads.
"""

import threading
from typing import Final

from axcollector.core import deflate
from axcollector.disk import Disk

_MOST_NOTED: Final = 100_000
"""Of so many files it is remembered, some 20 MB; the others are read."""
_UNREADABLE: Final[tuple[type[Exception], ...]] = (OSError, *deflate.ERRORS)
_SLICE_BYTES: Final = 1 << 14
"""Read at once: deflate makes at most a thousand times as much of it."""


class RecordCounts:
    """Remembers, or counts."""

    def __init__(self, disk: Disk) -> None:
        """Nothing is known yet."""
        self._disk = disk
        self._lock = threading.Lock()
        self._noted: dict[str, int] = {}

    def note(self, name: str, records: int) -> None:
        """A file of this name, which no other has, holds so many records."""
        with self._lock:
            self._noted[name] = records
            if len(self._noted) > _MOST_NOTED:
                del self._noted[next(iter(self._noted))]

    def take(self, name: str, path: str) -> int:
        """How many a file holds, and forget it; 0 where it is damaged from the start, or gone."""
        with self._lock:
            noted = self._noted.pop(name, None)
        return self._count(path) if noted is None else noted

    def _count(self, path: str) -> int:
        """The whole lines of all members, as far as they can be read."""
        lines = 0
        try:
            with self._disk.open_within(path) as file:
                reader = deflate.decompressor()
                while data := file.read(_SLICE_BYTES):
                    while data:
                        lines += reader.decompress(data).count(b"\n")
                        data = reader.unused_data
                        if reader.eof:
                            reader = deflate.decompressor()
        except _UNREADABLE:
            pass
        return lines
