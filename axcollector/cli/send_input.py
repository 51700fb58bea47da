"""What `axcollector send` reads: records of a file or of standard input, in batches, each record with its place.

A line is a record, or a document `{"records": […]}`, as Apigee's clients send them; or all of the input is one such
document over several lines. Gzip is recognised by its first two bytes. Of a record nothing is changed, and nothing
checked but that it is a JSON object: the collector knows its own rules.
"""

import contextlib
import gzip
import io
import itertools
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, Self, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from axcollector.cli.transfer_files import STANDARD, errors_named
from axcollector.core.errors import CommandFailed, Rejected
from axcollector.core.payload import decode
from axcollector.core.salvage import is_object
from axcollector.core.unpacking import Limits
from axcollector.sending import Batch, Place

MAX_DOCUMENT_BYTES: Final = 1 << 28
"""A document is taken into memory whole; a longer one is to be cut into lines."""
MAX_LINE_BYTES: Final = 1 << 26
"""No collector takes so long a record, and a file without line ends is not to fill the memory."""
_BUFFER_BYTES: Final = 1 << 18
_GZIP: Final = b"\x1f\x8b"
_NO_LIMITS: Final = Limits(max_body_bytes=sys.maxsize, max_decompressed_bytes=sys.maxsize, max_batch_records=1 << 31)


class _Line(msgspec.Struct):
    """What tells a document from a record: a record has a start, and a document records."""

    records: Raw | UnsetType = UNSET
    client_received_start_timestamp: Raw | UnsetType = UNSET


_LINE: Final = msgspec.json.Decoder(_Line)


class Input:
    """A file, or the standard input, of records; a context that closes it.

    Attributes:
        name: What it is called in messages.
        size: How many bytes there are, or None where nobody knows.
    """

    def __init__(self, path: str, batch_records: int, batch_bytes: int) -> None:
        """Open it.

        Args:
            path: The file's; `-` is the standard input.
            batch_records: How many records are sent together at the most.
            batch_bytes: So many bytes at the most, unless one record is larger.

        Raises:
            TransferFailed: It cannot be opened.
        """
        self.name = "standard input" if path == STANDARD else path
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes
        self._bad: list[Place] = []
        self._held: tuple[Place, bytes] | None = None
        with errors_named(self.name, "read"):
            raw = os.fdopen(os.dup(0) if path == STANDARD else os.open(path, os.O_RDONLY), "rb", buffering=0)
            self._raw = raw
            facts = os.fstat(raw.fileno())
            self.size = facts.st_size if stat.S_ISREG(facts.st_mode) else None
            buffered = io.BufferedReader(raw, _BUFFER_BYTES)
            is_packed = buffered.peek(len(_GZIP)).startswith(_GZIP)
        self._file = cast("BinaryIO", gzip.GzipFile(fileobj=buffered) if is_packed else buffered)
        self._read_bytes = 0
        self._lines = self._numbered_lines()
        self._records = self._all_records()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def next_batch(self) -> Batch | None:
        """The next records; None: there are no more. Blocking.

        Raises:
            TransferFailed: It cannot be read.
            CommandFailed: It is no whole gzip file, or has a line that is too long.
        """
        texts: list[bytes] = []
        places: list[Place] = []
        size = 0
        while (found := self._take()) is not None:
            place, text = found
            if texts and (len(texts) >= self._batch_records or size + len(text) > self._batch_bytes):
                self._held = found
                break
            places.append(place)
            texts.append(text)
            size += len(text)
        bad, self._bad = self._bad, []
        if not texts and not bad:
            return None
        return Batch(texts, places, bad, self._position(), is_last=self._held is None)

    def _take(self) -> tuple[Place, bytes] | None:
        if self._held is not None:
            held, self._held = self._held, None
            return held
        return next(self._records, None)

    def _position(self) -> int:
        if self.size is None:
            return self._read_bytes
        return self._raw.tell() if not self._raw.closed else self.size

    def _numbered_lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank."""
        for number in itertools.count(1):
            line = self._line(number)
            if not line:
                return
            if not line.isspace():
                yield number, line

    def _line(self, number: int) -> bytes:
        with errors_named(self.name, "read"):
            try:
                line = self._file.readline(MAX_LINE_BYTES)
            except (gzip.BadGzipFile, zlib.error, EOFError) as exc:
                raise CommandFailed(f"{self.name} is no whole gzip file: {exc}, in line {number}") from exc
        if len(line) == MAX_LINE_BYTES:
            raise CommandFailed(f"{self.name}, line {number}: is longer than {MAX_LINE_BYTES} bytes")
        self._read_bytes += len(line)
        return line

    def _all_records(self) -> Iterator[tuple[Place, bytes]]:
        first = next(self._lines, None)
        if first is None:
            return
        ahead = [first]
        if not is_object(first[1].strip()):
            size = len(first[1])
            while size <= MAX_DOCUMENT_BYTES and (more := next(self._lines, None)) is not None:
                ahead.append(more)
                size += len(more[1])
            texts = _document(b"".join(line for _, line in ahead))
            if texts is not None:
                yield from ((Place(0, index), text) for index, text in enumerate(texts))
                return
        for number, line in itertools.chain(ahead, self._lines):
            yield from self._of_line(number, line.strip())

    def _of_line(self, number: int, line: bytes) -> Iterator[tuple[Place, bytes]]:
        if not is_object(line):
            self._bad.append(Place(number))
            return
        texts = None
        with contextlib.suppress(msgspec.DecodeError):  # a lone surrogate, which only the collector may like
            said = _LINE.decode(line)
            if said.records is not UNSET and said.client_received_start_timestamp is UNSET:
                texts = _document(line)
        if texts is None:
            yield Place(number), line
        else:
            yield from ((Place(number, index), text) for index, text in enumerate(texts))


def _document(text: bytes) -> list[bytes] | None:
    """The records of a document; None: it is none."""
    try:
        return [bytes(each) for each in decode(text.strip(), None, _NO_LIMITS).records]
    except Rejected:
        return None
