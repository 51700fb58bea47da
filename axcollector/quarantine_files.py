"""The files in `quarantine/`: reading them, and taking records out of them, so that a crash doubles none. Blocking.

The service only ever adds files there, whole. Whoever takes records out holds a lock on the directory, and does it in
three steps, after each of which everybody who reads sees the same:

1. The numbers of the lines that are dealt with are appended to `{file}.done`, durably. These lines count as gone.
2. When all of a file was looked at, what stays is written anew beside it, and put in its place by one rename.
3. `{file}.done` is removed. Until then it says of which content it speaks (size and CRC), and is no concern of another.
"""

import contextlib
import fcntl
import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from axcollector.buckets import parse_bucket, remove_if_empty
from axcollector.core import deflate
from axcollector.core.errors import QuarantineDamaged, QuarantineError
from axcollector.core.layout import FILE_SUFFIX
from axcollector.core.quarantine import Entry, parse
from axcollector.disk import AppendFile, Disk, read_slices

DONE_SUFFIX: Final = ".done"
Reason = tuple[str, str]
"""Code and reason."""


class QuarantineFile:
    """One file; its path below `quarantine/` is its name.

    Attributes:
        name: `{bucket}/{file}`.
        was_changed: Whether some of its lines are done with and still in it.
    """

    def __init__(self, disk: Disk, directory: str, name: str) -> None:
        """Nothing of it is read yet."""
        self._disk = disk
        self._path = os.path.join(directory, name)
        self._done_path = self._path + DONE_SUFFIX
        self._log: AppendFile | None = None
        self.was_changed = disk.exists(self._done_path)
        self.name = name

    @property
    def tenant(self) -> str:
        """The tenant, as `tenant_directory` writes it."""
        return parse_bucket(os.path.dirname(self.name))[1]

    def lines(self) -> Iterator[tuple[int, bytes, Entry]]:
        """Number, text and content of each line that is not done with.

        Raises:
            QuarantineDamaged: It is damaged, behind the lines that came.
            FileNotFoundError: It is not there.
        """
        with self._disk.open(self._path) as raw:
            done = self._done()
            try:
                with gzip.GzipFile(fileobj=raw, mode="rb") as file:
                    for number, line in enumerate(file):
                        if number not in done:
                            yield number, line, parse(line)
            except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as exc:
                message = f"{self._path} is damaged: {exc}; what can be read of it may be shown, and is not sent"
                raise QuarantineDamaged(message) from exc

    def done_lines(self) -> set[int]:
        """The numbers of the lines that are done with, counted from 0."""
        return self._done() if self.was_changed else set()

    def _mark(self) -> bytes:
        """What tells this content from another."""
        crc = size = 0
        with self._disk.open(self._path) as file:
            for data in read_slices(file):
                crc = zlib.crc32(data, crc)
                size += len(data)
        return b"%d %08x\n" % (size, crc)

    def _done(self) -> set[int]:
        """The numbers of the lines that are done with; one that was cut short was not acknowledged."""
        try:
            with self._disk.open(self._done_path) as file:
                content = b"".join(read_slices(file))
        except FileNotFoundError:
            return set()
        mark = self._mark()
        if not content.startswith(mark):
            return set()
        numbers = content[len(mark) : content.rindex(b"\n") + 1].split()
        return {int(number) for number in numbers if number.isdigit()}

    def finish_lines(self, numbers: Iterable[int]) -> None:
        """Be done with these lines, durably. For who has the lock."""
        if self._log is None:
            self._log = self._begin_log()
            self.was_changed = True
        self._log.write(b"".join(b"%d\n" % number for number in numbers))
        self._log.sync()

    def _begin_log(self) -> AppendFile:
        """The log, begun anew with what an earlier one says: that one may end in a torn line."""
        done = self._done()
        draft = self._done_path + ".new"
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(draft)
        log = self._disk.create(draft)
        log.write(self._mark() + b"".join(b"%d\n" % number for number in sorted(done)))
        log.sync()
        self._disk.rename(draft, self._done_path)
        self._disk.sync_directory(os.path.dirname(self._path))
        return log

    def rewrite(self, reasons: Mapping[int, Reason]) -> int:
        """Leave what is not done with, with new reasons for the lines of these numbers. How many stay.

        A file of which nothing stays is removed, as is its bucket's directory when it is empty. For who has the lock.
        """
        self.close()
        draft = self._path + ".new"
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(draft)
        left = self._write_rest(draft, reasons)
        if left:
            self._disk.rename(draft, self._path)
            self._disk.sync_directory(os.path.dirname(self._path))
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(self._done_path)
        else:
            self._disk.unlink(draft)
            self.drop()
        return left

    def _write_rest(self, draft: str, reasons: Mapping[int, Reason]) -> int:
        left = 0
        packer = deflate.packer()
        with self._disk.create(draft) as target:
            for number, line, entry in self.lines():
                code, reason = reasons.get(number, (entry.code, entry.reason))
                if (code, reason) != (entry.code, entry.reason):
                    line = msgspec.structs.replace(entry, code=code, reason=reason).line()  # noqa: PLW2901 - what is written for it
                target.write_in_steps(packer.compress(line))
                left += 1
            target.write_in_steps(packer.flush())
            target.sync()
        return left

    def drop(self) -> None:
        """Remove it with all that is in it, durably. For who has the lock."""
        self.close()
        bucket = os.path.dirname(self._path)
        self._disk.unlink(self._path)
        self._disk.sync_directory(bucket)
        for leftover in (self._done_path, self._done_path + ".new", self._path + ".new"):
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(leftover)
        if remove_if_empty(self._disk, bucket):
            self._disk.sync_directory(os.path.dirname(bucket))

    def close(self) -> None:
        """Close the log of what is done, if it is open."""
        log, self._log = self._log, None
        if log is not None:
            log.close()


def files_in(disk: Disk, directory: str) -> list[QuarantineFile]:
    """All files, the oldest bucket first; what is none of ours is left out."""
    found: list[tuple[int, str]] = []
    try:
        buckets = disk.names(directory)
    except FileNotFoundError:
        return []
    for bucket in buckets:
        try:
            start, _ = parse_bucket(bucket)
            names = disk.names(os.path.join(directory, bucket))
        except (ValueError, FileNotFoundError, NotADirectoryError):
            continue
        found += [(start, os.path.join(bucket, name)) for name in names if name.endswith(FILE_SUFFIX)]
    return [QuarantineFile(disk, directory, name) for _, name in sorted(found)]


@contextlib.contextmanager
def taking_out(directory: str) -> Iterator[None]:
    """A context for taking records out of the directory: one process at a time may.

    Raises:
        QuarantineError: Another one does.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # nothing was ever set aside
        yield
        return
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise QuarantineError(f"another command takes records out of {directory}; try again when it is done") from exc
