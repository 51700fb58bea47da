"""The head that a client sends again and again on one connection, but for the length of what follows, and the path.

What a head means follows from its bytes alone. So one that was taken apart, judged and answered with a 200 needs not be
again: it is enough to see that it is the same. Only its `Content-Length` may differ, which is compared as what it is;
and its path, where a connection carries the records of several tenants: whose records it says come is found anew then.

A connection remembers one head, and only when it has come twice in a row; others are taken apart as ever. So odd heads
cost nobody else anything, and what is remembered is bounded by the connections.
"""

from dataclasses import dataclass
from typing import Final

from axcollector.door import Door
from axcollector.llhttp_parts import Message
from axcollector.routes import Asked

_END: Final = b"\r\n"
_POST: Final = b"POST "
_NAMES: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
"""As nearly everybody writes it; behind a line's end it cannot be a part of another field."""
_MOST_DIGITS: Final = 9
_MOST_BYTES: Final = 1024
"""A larger head is not remembered. The bounds on heads are far larger: they hold, whatever the length's digits are."""

_LEAST_PIECE_BYTES: Final = 4096
"""Each piece costs some hundred bytes of memory besides its own; bodies that come by the byte are not kept so."""


@dataclass(frozen=True, slots=True, repr=False)
class Head:
    """A head without its method and target, and without the digits of its length.

    It may hold a token, so it is shown nowhere.

    Attributes:
        before: What stands behind the target and before the digits.
        behind: What stands behind the digits, the empty line included.
    """

    before: bytes
    behind: bytes


class Coming:
    """A request with a head that is known, while it comes in pieces: few and large ones, or it is taken as any other.

    Attributes:
        missing: How many bytes are to come.
    """

    __slots__ = ("_head", "_pieces", "missing")

    def __init__(self, data: bytes, start: int, missing: int) -> None:
        """Its beginning: the head, and from `start` on the body."""
        self._head = data[:start]
        self._pieces: list[bytes | memoryview] = [memoryview(data)[start:]]
        self.missing = missing

    def fits(self, data: bytes) -> bool:
        """Whether this is the rest of it, or so much that there will not be many pieces."""
        size = len(data)
        return size == self.missing or _LEAST_PIECE_BYTES <= size < self.missing

    def add(self, data: bytes) -> None:
        """More of it, or what stands behind it."""
        self._pieces.append(data)
        self.missing -= len(data)

    def body(self) -> bytes:
        """What has come behind the head."""
        return b"".join(self._pieces)

    def whole(self) -> bytes:
        """All that has come."""
        return b"".join([self._head, *self._pieces])


@dataclass(frozen=True, slots=True, repr=False)
class Usual:
    """A head that is remembered, with the target that it had last.

    Attributes:
        head: The head.
        before: What stands before the digits of its length: method and target, and then `head.before`.
        asked: What it asks of the door.
    """

    head: Head
    before: bytes
    asked: Asked

    def places(self, data: bytes) -> tuple[int, int]:
        """Where the body begins, and how long it is, where `data` begins with such a head; else 0, 0. The hot path."""
        before, behind = self.before, self.head.behind
        if not data.startswith(before):
            return 0, 0
        start = len(before)
        stop = data.find(_END, start, start + _MOST_DIGITS + len(_END))
        digits = data[start:stop]
        if stop < 0 or not digits.isdigit() or not data.startswith(behind, stop):
            return 0, 0
        return stop + len(behind), int(digits)

    def elsewhere(self, data: bytes, door: Door) -> "Usual | None":
        """The same head, to the ordinary path that `data` begins with; None: `data` does not begin so."""
        stop = data.find(b" ", len(_POST), _MOST_BYTES)
        if stop < 0 or not data.startswith(_POST) or not data.startswith(self.head.before, stop):
            return None
        route = door.route(data[len(_POST) : stop])
        asked = None if route is None else door.asked_like(self.asked, route)
        return None if asked is None else Usual(self.head, data[:stop] + self.head.before, asked)


def known(head: Head, message: Message, door: Door) -> Usual | None:
    """What is remembered of a request with this head that the door took; None: nothing."""
    route = door.route(message.path)
    asked = None if route is None else door.asked(route, message.values_of)
    if asked is None:
        return None
    return Usual(head, message.method + b" " + message.target + head.before, asked)


def head_of(message: Message) -> Head | None:
    """What is the same in heads like this one, which is right; None: it is not one to be remembered."""
    text = message.head
    if len(text) > _MOST_BYTES or not message.is_usual:
        return None
    line = len(message.method) + 1 + len(message.target)
    for name in _NAMES:
        at = text.find(name, line)
        if at >= 0:
            start = at + len(name)
            return Head(text[line:start], text[text.find(_END, start) :] + _END)
    return None
