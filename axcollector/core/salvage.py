"""Whole lines out of a gzip file that may be torn: cut, damaged, or ended in zeros. Sans I/O, in constant memory.

The file is read twice. `Survey` finds how far it can be believed; `LineReader` then gives the lines up to there. What
is believed, and why:

* What a member's CRC proves is given as it was written, whatever it is. Where the whole file ends as a gzip file does
  (zeros behind it are padding), a last line that has no newline is whole, and gets one.
* A member that does not end well is believed up to its first damage, to the byte. No CRC vouches for its lines, and a
  flipped bit goes unnoticed as often as not, so lines that are no JSON objects are dropped (an altered one that still
  is an object passes). What follows the last newline is torn, and dropped.
* Zeros at the end of such a member are no data. They are what a lost page leaves, and zero bits mean something in
  deflate: mostly to repeat what was there, which would invent records. A writer that flushes after each batch, as the
  reference does, loses no flushed line by this, because a flush ends in other bytes than zeros.
* Behind the first damage nothing is read, not even a later member: the reference writes one a file, and who finds the
  file damaged can keep it.

No line is too long. Those over `LONG_LINE_BYTES` are not held: for them the survey notes which do not look like an
object (braces around, UTF-8, no control characters), and the others are passed on in pieces.
"""

import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from axcollector.core.jsontext import is_utf8, mask_surrogates
from axcollector.core.survey import LONG_LINE_BYTES, Findings, Members, slice_sizes


class _AnyObject(msgspec.Struct):
    """A JSON object, of which nothing is kept."""


_OBJECT: Final = msgspec.json.Decoder(_AnyObject)


class LineReader:
    """The second reading: feed the same file in slices of any size, take all that each gives, then `finish`.

    Attributes:
        kept: How many lines were given so far.
        dropped: How many were not, because they are no JSON objects; a torn last one is not counted.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._members = Members()
        self._size = 0
        self._text = 0
        self._open = bytearray()
        self._open_start = findings.proved
        self._passing: bool | None = None  # of a long line, not held: whether it is given
        self._last = b"\n"
        self.kept = 0
        self.dropped = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines in `data`, as pieces that need not end where lines do; all of them together do.

        Raises:
            ValueError: It is not the file that was surveyed.
        """
        position = 0
        for size in slice_sizes(min(len(data), self._findings.size - self._size)):
            try:
                pieces = self._members.read(data[position : position + size])
            except zlib.error as exc:
                raise _changed() from exc
            position += size
            self._size += size
            for text, _ in pieces:
                yield from self._sift(text)

    def finish(self) -> bytes:
        """The newline that the last line of a whole file may lack.

        Raises:
            ValueError: It is not the file that was surveyed.
        """
        if self._text != self._findings.lines or self._open or self._passing is not None:
            raise _changed()
        if self._last == b"\n":
            return b""
        self.kept += 1
        return b"\n"

    def _sift(self, text: bytes) -> Iterator[bytes]:
        text = text[: self._findings.lines - self._text]
        proved = text[: max(0, self._findings.proved - self._text)]
        self._text += len(text)
        if proved:
            self._last = proved[-1:]
            self.kept += proved.count(b"\n")
            yield proved
        if len(text) > len(proved):
            yield self._check(text[len(proved) :])

    def _check(self, text: bytes) -> bytes:
        """What is given of text that no CRC vouches for."""
        first, newline, rest = text.partition(b"\n")
        if not newline:
            return self._extend(first)
        given = bytearray(self._close(first))
        start = 0
        while (end := rest.find(b"\n", start)) >= 0:  # not `split`: there may be half a million of them
            line = rest[start:end]
            given += self._judged(line, is_object(line))
            start = end + 1
        self._open_start = self._text - (len(rest) - start)
        self._open += rest[start:]
        return bytes(given)

    def _extend(self, piece: bytes) -> bytes:
        """More of a line that goes on."""
        if self._passing is None:
            self._open += piece
            if len(self._open) <= LONG_LINE_BYTES:
                return b""
            self._passing = self._open_start not in self._findings.unfit
            piece = bytes(self._open)
            self._open.clear()
        return piece if self._passing else b""

    def _close(self, piece: bytes) -> bytes:
        """The end of a line."""
        line = bytes(self._open) + piece
        good = is_object(line) if self._passing is None else self._passing
        self._open.clear()
        self._passing = None
        return self._judged(line, good)

    def _judged(self, line: bytes, good: bool) -> bytes:  # noqa: FBT001 - private, and clear where it is called
        self.kept += good
        self.dropped += not good
        return line + b"\n" if good else b""


def _changed() -> ValueError:
    return ValueError("it was changed while it was read")


def is_object(line: bytes) -> bool:
    """Whether it is one JSON object; the decoder alone would refuse lone surrogates, and not look into strings."""
    try:
        _OBJECT.decode(line)
    except RecursionError:
        return False
    except msgspec.DecodeError:
        try:
            _OBJECT.decode(mask_surrogates(line))
        except (msgspec.DecodeError, RecursionError):
            return False
    return is_utf8(line)
