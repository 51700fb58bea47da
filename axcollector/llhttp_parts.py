"""What llhttp makes of the parts of a request: a head, and the pieces of a chunked body.

A parser is made for each: a fresh one has no state that could be left over from what came before, and takes 2 µs.
"""

from collections.abc import Sequence
from typing import Final

import httptools

from axcollector import heads
from axcollector.heads import NO_HTTP, Cut
from axcollector.reception import Incoming, Reception

_END: Final = b"\r\n"
_ANY_LINE: Final = b"POST / HTTP/1.1\r\n"
"""llhttp knows some methods, and some kinds of targets; which of them are right is for `heads` and resources to say."""
_CHUNKED_HEAD: Final = _ANY_LINE + b"Transfer-Encoding: chunked\r\n\r\n"


class NotHTTP(Exception):
    """llhttp does not take this."""


class Message:
    """A request while it comes; the `Call` that the door answers when it is there, whole.

    Attributes:
        head: What was taken apart.
        method: What is to be done.
        target: With what.
        version: The protocol's.
        fields: The header fields as they came.
        incoming: Its body.
    """

    __slots__ = ("_values", "fields", "head", "incoming", "method", "target", "version")

    def __init__(self, head: bytes, incoming: Incoming) -> None:
        """Take a head apart, without the empty line behind it.

        Raises:
            NotHTTP: It is none.
        """
        self.head = head
        line, _, fields = head.partition(_END)
        self.method, self.target, self.version = line.split(b" ")
        self.fields: list[tuple[bytes, bytes]] = []
        self._values: dict[bytes, list[bytes]] = {}
        self.incoming = incoming
        try:
            httptools.HttpRequestParser(self).feed_data(_ANY_LINE + fields + _END)
        except httptools.HttpParserUpgrade:  # to what we do not speak: it is a request as any other
            pass
        except httptools.HttpParserError as exc:
            raise NotHTTP from exc

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field."""
        self.fields.append((name, value))
        name = name.lower()
        if name in self._values:
            self._values[name].append(value)
        else:
            self._values[name] = [value]

    def values_of(self, name: bytes) -> Sequence[bytes]:
        """As `Call.values_of`."""
        return self._values.get(name, ())

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    @property
    def is_usual(self) -> bool:
        """Whether all that is to be known of it are a length, the headers that the door asks for, and the end."""
        values = self._values
        return self.version == b"HTTP/1.1" and b"content-length" in values and b"expect" not in values

    @property
    def length(self) -> int | None:
        """How long its body is, if the head is right; None: it comes in chunks."""
        if b"transfer-encoding" in self._values:
            return None
        lengths = self._values.get(b"content-length")
        return int(lengths[0]) if lengths else 0

    @property
    def reception(self) -> Reception:
        """As `Call.reception`."""
        return self.incoming.reception

    def read(self, most: int) -> bytes:
        """As `Call.read`."""
        return self.incoming.content.read(most)

    def forget_body(self) -> None:
        """As `Call.forget_body`."""
        self.incoming.drop()


class Chunks:
    """A chunked body: pieces in, content out.

    Attributes:
        complete: The body is there, whole.
        problem: Why the connection is to be cut, if it is.
    """

    __slots__ = ("_in_trailer", "_incoming", "_parser", "_to_end", "complete", "problem")

    def __init__(self, incoming: Incoming) -> None:
        """Nothing has come yet of what `incoming` is to get."""
        self.complete = False
        self.problem: Cut | None = None
        self._incoming = incoming
        self._to_end = 0
        self._in_trailer = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def on_body(self, data: bytes) -> None:
        """A piece of the content."""
        self.problem = self._incoming.add(data)

    def on_message_complete(self) -> None:
        """The body is there, whole."""
        self.complete = True

    def take(self, data: bytes, start: int = 0) -> int:
        """Take what stands there: a piece of a chunk, or a line. How much that was; 0 where more must come."""
        if self._to_end:
            piece = data[start : start + self._to_end]
            self._to_end -= len(piece)
            return self._feed(piece)
        end = data.find(_END, start)
        if end < 0:
            self.problem = self._unfinished_problem(data[start:])
            return 0
        line, piece = data[start:end], data[start : end + len(_END)]
        if self._in_trailer and line:  # what it says is for nobody, though llhttp would heed some of it
            self.problem = heads.field_problem(line) or self._incoming.framed(len(piece))
            return len(piece)
        self.problem = None if self._in_trailer else self._size_problem(line)
        return 0 if self.problem else self._feed(piece)

    def _feed(self, piece: bytes) -> int:
        known = self._incoming.received
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserError:
            self.problem = NO_HTTP
        framing = len(piece) - (self._incoming.received - known)
        self.problem = self.problem or self._incoming.framed(framing)
        return len(piece)

    def _unfinished_problem(self, line: bytes) -> Cut | None:
        most = heads.MAX_HEAD_BYTES if self._in_trailer else heads.MAX_CHUNK_LINE_BYTES
        return NO_HTTP if len(line) > most or b"\n" in line else None

    def _size_problem(self, line: bytes) -> Cut | None:
        size = heads.chunk_size(line)
        if size is None:
            return NO_HTTP
        self._in_trailer = size == 0
        self._to_end = size + len(_END) if size else 0
        return self._incoming.announce_chunk(size)
