"""Whole lines out of a gzip file that may be torn: cut, damaged, or ended in zeros. Sans I/O, in constant memory.

The file is read twice. `Survey` finds how far it can be believed; `LineReader` then gives the lines up to there. What
is believed, and why:

* What a member's CRC proves is given as it was written, whatever it is. Where the whole file ends as a gzip file does
  (zeros behind it are padding), a last line that has no newline is whole, and gets one.
* A member that does not end well is believed up to its first damage, to the byte: the decompressor gets small slices,
  and the one in which it fails once more byte by byte, because a call that fails gives nothing of what it had found.
  No CRC vouches for these lines, and a flipped bit goes unnoticed as often as not, so lines that are no JSON objects
  are dropped (an altered one that still is an object passes). What follows the last newline is torn, and dropped.
* Zeros at the end of such a member are no data. They are what a lost page leaves, and zero bits mean something in
  deflate: mostly to repeat what was there, which would invent records. A writer that flushes after each batch, as the
  reference does, loses no flushed line by this, because a flush ends in other bytes than zeros.
* Behind the first damage nothing is read, not even a later member: the reference writes one a file, and who finds the
  file damaged can keep it.

No line is too long. Those over `LONG_LINE_BYTES` are not held: for them the survey notes which do not look like an
object (braces around, UTF-8, no control characters), and the others are passed on in pieces.
"""

import codecs
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from axcollector.core.jsontext import is_utf8, mask_surrogates

LONG_LINE_BYTES: Final = 1 << 20
"""Lines up to this length are held, and checked to be JSON to the last comma."""
_SLICE_BYTES: Final = 1 << 9
"""Given to the decompressor at once. Deflate makes at most 1032 bytes of one, so nothing is longer than half of the
above; and the memory that a slice may take needs no other limit."""
_GZIP: Final = 31
_LONGEST_ZERO_END_BYTES: Final = 16
"""A member's own end may be zeros, but no more: a CRC, a length and some bits before them."""
_CONTROL: Final = re.compile(rb"[\x00-\x1f]")


class _AnyObject(msgspec.Struct):
    """A JSON object, of which nothing is kept."""


_OBJECT: Final = msgspec.json.Decoder(_AnyObject)


@dataclass(frozen=True, slots=True)
class Findings:
    """How far a file can be believed.

    Attributes:
        size: So many of its bytes were understood; those behind are zeros, damaged, or came after damage.
        whole: It ends as a gzip file does.
        damaged: Something else than the lack of an end, or zeros, ended it.
        blank: There is nothing in it: no bytes, nothing but zeros, or whole members of nothing.
        proved: So many bytes of its text consist of lines that a CRC vouches for.
        lines: So many bytes of its text consist of whole lines; at least as many as are proved.
        torn: Whether some text follows those.
        unfit: Where in the text the long lines begin that are no objects; of those that are not proved.
    """

    size: int
    whole: bool
    damaged: bool
    blank: bool
    proved: int
    lines: int
    torn: bool
    unfit: frozenset[int]


class _Members:
    """Gzip members one after the other, with zeros between them, as text.

    The standard zlib reads them, because its readers can be copied.
    """

    def __init__(self) -> None:
        self._reader = zlib.decompressobj(_GZIP)
        self.between = False

    def copy(self) -> Self:
        """Another one, as far as this one."""
        other = type(self)()
        other._reader = self._reader.copy()  # noqa: SLF001 - its own
        other.between = self.between
        return other

    def read(self, data: bytes) -> list[tuple[bytes, bool]]:
        """The text in `data`, in pieces, and of each whether a member whose CRC is right ends with it.

        Raises:
            zlib.error: There is damage in it; nothing is known of what stands before.
        """
        pieces = []
        while data := data.lstrip(b"\0") if self.between else data:
            text = self._reader.decompress(data)
            data = self._reader.unused_data
            self.between = self._reader.eof
            pieces.append((text, self.between))
            if self.between:
                self._reader = zlib.decompressobj(_GZIP)
        return pieces


class _LongLine:
    """Whether a line that is not held looks like a JSON object."""

    def __init__(self, start: int) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")()
        self._last = b""
        self._fit = True
        self.start = start
        self.length = 0

    def add(self, piece: bytes) -> None:
        """Look at more of it."""
        if not piece:
            return
        if not self.length:
            self._fit = piece.startswith(b"{")
        self.length += len(piece)
        self._last = piece[-1:]
        try:
            self._text.decode(piece)
        except UnicodeDecodeError:
            self._fit = False
        self._fit = self._fit and _CONTROL.search(piece) is None

    @property
    def unfit(self) -> bool:
        """Whether it is long, and no object."""
        return self.length > LONG_LINE_BYTES and not (self._fit and self._last == b"}")


class Survey:
    """The first reading of a file: feed all of it in slices of any size, then `finish`.

    Attributes:
        damaged: Whether there was damage; more need not be fed then.
    """

    def __init__(self) -> None:
        self._members = _Members()
        self._zeros = 0  # at the end of what was fed, not read yet
        self._size = 0
        self._text = 0
        self._lines = 0
        self._proved = 0
        self._open = _LongLine(0)
        self._unfit: set[int] = set()
        self.damaged = False

    def feed(self, data: bytes) -> None:
        """Read on."""
        body = data.rstrip(b"\0")
        if body:
            for size in _slices(self._zeros):
                self._read(bytes(size))
            self._zeros = 0
            position = 0
            for size in _slices(len(body)):
                self._read(body[position : position + size])
                position += size
        self._zeros += len(data) - len(body)

    def _read(self, data: bytes) -> None:
        if self.damaged:
            return
        before = self._members.copy()
        try:
            pieces = self._members.read(data)
        except zlib.error:
            if len(data) == 1:
                self.damaged = True
                return
            self._members = before
            for i in range(len(data)):
                self._read(data[i : i + 1])
            return
        self._size += len(data)
        self._look_at(pieces)

    def _look_at(self, pieces: list[tuple[bytes, bool]]) -> None:
        for text, proved in pieces:
            first, last = text.find(b"\n"), text.rfind(b"\n")
            if first < 0:
                self._open.add(text)
            else:
                self._open.add(text[:first])
                if self._open.unfit:
                    self._unfit.add(self._open.start)
                self._lines = self._text + last + 1
                self._open = _LongLine(self._lines)
                self._open.add(text[last + 1 :])
            self._text += len(text)
            if proved:
                self._proved = self._lines
                self._unfit.clear()

    def finish(self) -> Findings:
        """What was found."""
        if self._zeros and not self.damaged:
            self._try_zeros(bytes(min(self._zeros, _LONGEST_ZERO_END_BYTES)))
        whole = self._members.between and not self.damaged
        return Findings(
            size=self._size,
            whole=whole,
            damaged=self.damaged,
            blank=not self._text and (whole or not (self._size or self.damaged)),
            proved=self._text if whole else self._proved,
            lines=self._text if whole else self._lines,
            torn=not whole and self._text > self._lines,
            unfit=frozenset(self._unfit),
        )

    def _try_zeros(self, zeros: bytes) -> None:
        """Take zeros at the end for data where a member ends well with them."""
        trial = self._members.copy()
        try:
            pieces = trial.read(zeros)
        except zlib.error:
            return
        if trial.between:
            self._members = trial
            self._size += len(zeros)
            self._look_at(pieces)


class LineReader:
    """The second reading: feed the same file in slices of any size, take all that each gives, then `finish`.

    Attributes:
        kept: How many lines were given so far.
        dropped: How many were not, because they are no JSON objects; a torn last one is not counted.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._members = _Members()
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
        for size in _slices(min(len(data), self._findings.size - self._size)):
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
        given = [self._close(first)]
        *lines, rest = rest.split(b"\n")
        given += [self._judged(line, _is_object(line)) for line in lines]
        self._open_start = self._text - len(rest)
        self._open += rest
        return b"".join(given)

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
        good = _is_object(line) if self._passing is None else self._passing
        self._open.clear()
        self._passing = None
        return self._judged(line, good)

    def _judged(self, line: bytes, good: bool) -> bytes:  # noqa: FBT001 - private, and clear where it is called
        self.kept += good
        self.dropped += not good
        return line + b"\n" if good else b""


def _changed() -> ValueError:
    return ValueError("it was changed while it was read")


def _slices(size: int) -> Iterator[int]:
    """The sizes of the slices that so many bytes are read in."""
    for start in range(0, size, _SLICE_BYTES):
        yield min(_SLICE_BYTES, size - start)


def _is_object(line: bytes) -> bool:
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
