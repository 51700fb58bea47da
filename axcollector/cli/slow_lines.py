"""The lines of a file or of a pipe, of which it can also be said that none has come for a while.

Who writes to a pipe may pause, and what was read until then must not wait for what follows. What a buffered reader is
given is therefore read by `_Patient`, which waits with a deadline; the beginning of a line that came before it is kept.
Gzip is recognised by its first two bytes; whoever packs holds back what is written anyway, so there nothing is told.
"""

import gzip
import io
import os
import select
import stat
import time
import zlib
from typing import BinaryIO, Final, cast

from axcollector.cli.transfer_files import STANDARD, errors_named
from axcollector.core.errors import CommandFailed

MAX_LINE_BYTES: Final = 1 << 26
"""No collector takes so long a record, and a file without line ends is not to fill the memory."""
_BUFFER_BYTES: Final = 1 << 18
_LOOK_MILLISECONDS: Final = 200
"""So often somebody who waits looks whether it was closed meanwhile."""
_GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"


class SlowLines:
    """Opens a file, or the standard input.

    Attributes:
        name: What it is called in messages.
        size: How many bytes there are, or None where nobody knows.
        may_pause: Whether a line may be long in coming, and this can tell.
    """

    def __init__(self, path: str) -> None:
        """Open it; `-` is the standard input.

        Raises:
            TransferFailed: It cannot be opened.
        """
        self.name = "standard input" if path == STANDARD else path
        with errors_named(self.name, "read"):
            descriptor = os.dup(0) if path == STANDARD else os.open(path, os.O_RDONLY)
            self._raw = _Patient(descriptor)
            buffered = io.BufferedReader(self._raw, _BUFFER_BYTES)
            is_packed = buffered.peek(len(_GZIP)).startswith(_GZIP)
        self.size = self._raw.size
        self.may_pause = self.size is None and not is_packed
        self._file = cast("BinaryIO", gzip.GzipFile(fileobj=buffered) if is_packed else buffered)
        self._begun = b""  # of a line whose end has not come
        self._read_bytes = 0
        self._number = 0

    def close(self) -> None:
        """Close it."""
        self._raw.close()

    @property
    def position(self) -> int:
        """How many bytes were read: of the file where it has a size, else of lines."""
        if self.size is None:
            return self._read_bytes
        return self.size if self._raw.closed else self._raw.position

    def next_line(self, deadline: float | None) -> bytes | None:
        """The next line; nothing at the end; None: by the deadline none has come. Blocking.

        Args:
            deadline: As `time.monotonic` counts; None: there is none.

        Raises:
            TransferFailed: It cannot be read.
            CommandFailed: It is no whole gzip file, or has a line that is too long.
        """
        self._raw.deadline = deadline if self.may_pause else None
        self._raw.is_late = False
        number = self._number + 1
        with errors_named(self.name, "read"):
            try:
                line = self._begun + self._file.readline(MAX_LINE_BYTES - len(self._begun))
            except (gzip.BadGzipFile, zlib.error, EOFError) as exc:
                raise CommandFailed(f"{self.name} is no whole gzip file: {exc}, in line {number}") from exc
        if len(line) >= MAX_LINE_BYTES:
            raise CommandFailed(f"{self.name}, line {number}: is longer than {MAX_LINE_BYTES} bytes")
        if self._raw.is_late:
            self._begun = line
            return None
        self._begun, self._number = b"", number
        self._read_bytes += len(line)
        return line.removeprefix(_BOM) if number == 1 else line


class _Patient(io.RawIOBase):
    """Reads a file; what may pause is waited for, until the deadline.

    Attributes:
        size: How many bytes there are, or None where nobody knows.
        deadline: By when something must have come; None: whenever.
        is_late: Whether the last reading ended because nothing had.
        position: How many bytes were read.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "rb", buffering=0)  # knows when it was closed meanwhile by another thread
        facts = os.fstat(descriptor)
        self.size = facts.st_size if stat.S_ISREG(facts.st_mode) else None
        self.deadline: float | None = None
        self.is_late = False
        self.position = 0
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int | None:  # type: ignore[override]  # what is given
        """None: nothing has come by the deadline; a buffered reader hands out what it has then."""
        while self.size is None and not self._poll.poll(self._left()):
            if self._file.closed:  # by another thread, which nobody that waits here is told of
                return 0
            if self.deadline is not None and not self._left():
                self.is_late = True
                return None
        count = self._file.readinto(buffer)
        self.position += count or 0
        return count

    def _left(self) -> float:
        """How many milliseconds are left to wait for at once."""
        if self.deadline is None:
            return _LOOK_MILLISECONDS
        return min(_LOOK_MILLISECONDS, max(0.0, self.deadline - time.monotonic()) * 1000)

    def close(self) -> None:
        self._file.close()
        super().close()
