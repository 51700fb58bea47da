"""The files of an import and an export: whole lines from one, and one that is there only when it is whole.

`-` is the standard input or output, and a name that ends in `.gz` means gzip.
"""

import contextlib
import gzip
import io
import os
import secrets
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final, Self, cast

from axcollector.cli.options import write_out
from axcollector.core.errors import TransferFailed
from axcollector.disk import open_private

STANDARD: Final = "-"
_SUFFIX: Final = ".gz"
_BLOCK_BYTES: Final = 1 << 20
MAX_LINE_BYTES: Final = 1 << 26
"""A file without line ends is not to fill the memory; no real row is nearly as long."""
_COMPRESSION_LEVEL: Final = 6


class Source:
    """A file that is read from its beginning, line by line; a context that closes it.

    Attributes:
        name: What it is called in messages.
        size: How many bytes there are to be read, or None where nobody knows.
    """

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            TransferFailed: It cannot be opened, or is a directory.
        """
        self.name = "standard input" if path == STANDARD else path
        self._bytes = 0
        with errors_named(self.name, "read"):
            if path == STANDARD:
                self._raw: BinaryIO = os.fdopen(os.dup(0), "rb", buffering=0)
            else:
                self._raw = cast("BinaryIO", open(path, "rb", buffering=0))  # noqa: SIM115 - this object is the context
            facts = os.fstat(self._raw.fileno())
            self.size = facts.st_size if stat.S_ISREG(facts.st_mode) else None
        self._file = self._raw
        if path.endswith(_SUFFIX):
            self._file = cast("BinaryIO", gzip.GzipFile(fileobj=io.BufferedReader(cast("io.RawIOBase", self._raw))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self._bytes if self.size is None else self._raw.tell()

    def blocks(self) -> Iterator[Sequence[bytes]]:
        """All lines, without their ends, some at a time.

        Raises:
            TransferFailed: It cannot be read, is no whole gzip file, or a line is longer than `MAX_LINE_BYTES`.
        """
        rest = b""
        number = 0
        while data := self._read():
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            number += len(lines)
            if len(rest) > MAX_LINE_BYTES:
                raise TransferFailed(f"{self.name}, line {number + 1}: is longer than {MAX_LINE_BYTES} bytes")
            yield lines
        if rest:
            yield [rest]

    def _read(self) -> bytes:
        with errors_named(self.name, "read"):
            try:
                data = self._file.read(_BLOCK_BYTES)
            except (gzip.BadGzipFile, zlib.error) as exc:
                raise TransferFailed(f"{self.name} is no gzip file, or a damaged one: {exc}") from exc
            except EOFError as exc:
                raise TransferFailed(f"{self.name} is cut off: its gzip stream has no end") from exc
        self._bytes += len(data)
        return data


@contextlib.contextmanager
def target(path: str) -> Iterator[BinaryIO]:
    """What is written here is in the file, which only its owner may read, when the context ends without an exception.

    Until then the file is as it was. Devices, pipes and the standard output are written to at once.

    Raises:
        TransferFailed: It cannot be written.
    """
    name = "standard output" if path == STANDARD else path
    with errors_named(name, "written"):
        if path == STANDARD:
            write_out("")
            yield cast("BinaryIO", sys.stdout.buffer)
            sys.stdout.buffer.flush()
        elif os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as file:
                yield from _compressed(path, file)
        else:
            with _replacing(os.path.realpath(path)) as file:
                yield from _compressed(path, file)


@contextlib.contextmanager
def errors_named(name: str, done: str) -> Iterator[None]:
    """What the system refuses becomes a `TransferFailed` that names the file; but a closed pipe is left as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise TransferFailed(f"{name} cannot be {done}: {exc.strerror or exc}") from exc


def _compressed(path: str, file: BinaryIO) -> Iterator[BinaryIO]:
    """The file, or what compresses into it."""
    if not path.endswith(_SUFFIX):
        yield file
        return
    # No name and no time in the header: the same rows are the same bytes.
    with gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, file, mtime=0) as packed:
        yield cast("BinaryIO", packed)


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    directory, name = os.path.split(path)
    draft = os.path.join(directory, f".{name[:100]}.{secrets.token_hex(4)}.part")
    descriptor = open_private(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
