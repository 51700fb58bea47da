"""The first reading of a gzip file that may be torn: how far it can be believed. What is believed is in `salvage`.

A call of the decompressor that fails gives nothing of what it had found before the damage. So the slices are small, the
reader is copied before each, and one in which it fails is read once more by halves, and those likewise, to the byte.
"""

import codecs
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

LONG_LINE_BYTES: Final = 1 << 20
"""Lines up to this length are held, and checked to be JSON to the last comma."""
_SLICE_BYTES: Final = 1 << 9
"""Given to the decompressor at once. Deflate makes at most 1032 bytes of one, so the text of a slice is no longer than
half of the above, and what it takes in memory needs no other limit."""
_GZIP: Final = 31
_LONGEST_ZERO_END_BYTES: Final = 16
"""A member's own end may be zeros, but no more: a CRC, a length and some bits before them."""
_CONTROL: Final = re.compile(rb"[\x00-\x1f]")


@dataclass(frozen=True, slots=True)
class Findings:
    """How far a file can be believed.

    Attributes:
        size: So many of its bytes were understood; those behind are zeros, damaged, or came after damage.
        whole: It ends as a gzip file does.
        damaged: It shows signs of something else than the lack of an end, or zeros.
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


class Members:
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


class _OpenLine:
    """Whether a line that is not held looks like a JSON object; it begins at `start`."""

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
        self._members = Members()
        self._zeros = 0  # at the end of what was fed, not read yet
        self._size = 0
        self._text = 0
        self._lines = 0
        self._proved = 0
        self._ended = False  # whether a member has
        self._open = _OpenLine(0)
        self._unfit: set[int] = set()
        self.damaged = False

    def feed(self, data: bytes) -> None:
        """Read on."""
        body = data.rstrip(b"\0")
        if body:
            for size in slice_sizes(self._zeros):
                self._read(bytes(size))
            self._zeros = 0
            position = 0
            for size in slice_sizes(len(body)):
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
            self._read(data[: len(data) // 2])
            self._read(data[len(data) // 2 :])
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
                self._open = _OpenLine(self._lines)
                self._open.add(text[last + 1 :])
            self._text += len(text)
            if proved:
                self._proved = self._lines
                self._ended = True
                self._unfit.clear()

    def finish(self) -> Findings:
        """What was found."""
        if self._zeros and not self.damaged:
            self._try_zeros(bytes(min(self._zeros, _LONGEST_ZERO_END_BYTES)))
        whole = self._members.between and not self.damaged
        # A crash of the reference, which writes one member, leaves no whole one before a torn one; damage that swallows
        # the members behind it does.
        self.damaged |= self._ended and not whole
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


def slice_sizes(size: int) -> Iterator[int]:
    """The sizes of the slices that so many bytes are read in."""
    for start in range(0, size, _SLICE_BYTES):
        yield min(_SLICE_BYTES, size - start)
