"""What `axcollector send` reads: records of a file or of standard input, in batches, each record with its place.

A line is a record, or a document `{"records": […]}`, as Apigee's clients send them; or all of the input is one such
document over several lines, which then begins with a `{`. Of a record nothing is changed, and nothing checked but that
it is a JSON object: the collector knows its own rules.
"""

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from typing import Final, Self

import msgspec
from msgspec import UNSET, Raw, UnsetType

from axcollector.cli.slow_lines import SlowLines
from axcollector.core.errors import CommandFailed, Rejected
from axcollector.core.payload import decode
from axcollector.core.salvage import is_object
from axcollector.core.unpacking import Limits
from axcollector.sending import Batch, Place

MAX_DOCUMENT_BYTES: Final = 1 << 28
"""A document is taken into memory whole; a longer one is to be cut into lines."""
LINGER_SECONDS: Final = 1.0
"""Whoever follows a log wants to see its records soon, and a request a second costs nothing."""
_NO_LIMITS: Final = Limits(max_body_bytes=sys.maxsize, max_decompressed_bytes=sys.maxsize, max_batch_records=1 << 31)


_Found = tuple[Place, bytes]
_PAUSE: Final[_Found] = (Place(0), b"")
"""Stands where no record has come for a while."""


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

    def __init__(self, path: str, batch_records: int, batch_bytes: int, linger_seconds: float = LINGER_SECONDS) -> None:
        """Open it.

        Args:
            path: The file's; `-` is the standard input.
            batch_records: How many records are sent together at the most.
            batch_bytes: So many bytes at the most, unless one record is larger.
            linger_seconds: For how long a record waits for others at the most, where what is read may pause.

        Raises:
            TransferFailed: It cannot be opened.
        """
        self._source = SlowLines(path)
        self.name = self._source.name
        self.size = self._source.size
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes
        self._linger_seconds = linger_seconds
        self._due: float | None = None
        self._bad: list[Place] = []
        self._held: _Found | None = None
        self._problem: CommandFailed | None = None
        self._lines = self._numbered_lines()
        self._records = self._all_records()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def next_batch(self) -> Batch | None:
        """The next records; None: there are no more. Blocking.

        Of what pauses, those that have come are given when the first of them has waited long enough for others.

        Raises:
            TransferFailed: It cannot be read.
            CommandFailed: It is no whole gzip file, or has a line that is too long.
        """
        texts: list[bytes] = []
        places: list[Place] = []
        size = 0
        self._due = None
        while (found := self._take()) is not None:
            if found is _PAUSE:
                if texts or self._bad:
                    break
                continue
            place, text = found
            if texts and (len(texts) >= self._batch_records or size + len(text) > self._batch_bytes):
                self._held = found
                break
            places.append(place)
            texts.append(text)
            size += len(text)
            if self._is_due():
                break
        bad, self._bad = self._bad, []
        if not texts and not bad:
            if self._problem is not None:
                raise self._problem
            return None
        return Batch(texts, places, bad, self._source.position, is_last=found is None and self._problem is None)

    def _take(self) -> "_Found | None":
        """The next record; None: there is none, or no reading on. What was read before is worth sending first."""
        if self._held is not None:
            held, self._held = self._held, None
            return held
        try:
            return next(self._records, None)
        except CommandFailed as exc:
            self._problem = exc
            return None

    def _is_due(self) -> bool:
        """Whether the first record has waited long enough for others; its time begins when this is asked first."""
        if not self._source.may_pause:
            return False
        now = time.monotonic()
        if self._due is None:
            self._due = now + self._linger_seconds
        return now >= self._due

    def _numbered_lines(self) -> "Iterator[tuple[int, bytes]]":
        """The lines that are not blank; number 0: none has come for a while."""
        number = 0
        while (line := self._source.next_line(self._due)) != b"":
            if line is None:
                self._due = None
                yield 0, b""
                continue
            number += 1
            if not line.isspace():
                self._is_due()
                yield number, line

    def _all_records(self) -> Iterator[tuple[Place, bytes]]:
        first = next(self._lines, None)
        if first is None:
            return
        ahead = [first]
        opening = first[1].strip()
        if opening.startswith(b"{") and not is_object(opening):
            size = len(first[1])
            while size <= MAX_DOCUMENT_BYTES and (more := next(self._lines, None)) is not None:
                ahead.append(more)
                size += len(more[1])
            texts = _document(b"".join(line for _, line in ahead))
            if texts is not None:
                yield from ((Place(0, index), text) for index, text in enumerate(texts))
                return
        for number, line in itertools.chain(ahead, self._lines):
            if number:
                yield from self._of_line(number, line.strip())
            else:
                yield _PAUSE

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
