"""The head that a client sends again and again on one connection, but for the length of what follows.

What a head means follows from its bytes alone. So one that was taken apart, judged and answered with a 200 needs not be
again: it is enough to see that it is the same. Only its `Content-Length` may differ, which is compared as what it is.

A connection remembers one head, and only when it has come twice in a row; others are taken apart as ever. So odd heads
cost nobody else anything, and what is remembered is bounded by the connections.
"""

from dataclasses import dataclass
from typing import Final

from axcollector.door import Door
from axcollector.llhttp_parts import Message
from axcollector.routes import Asked

_END: Final = b"\r\n"
_NAMES: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
"""As nearly everybody writes it; behind a line's end it cannot be a part of another field."""
_MOST_DIGITS: Final = 9
_MOST_BYTES: Final = 1024
"""A larger head is not remembered. The bounds on heads are far larger: they hold, whatever the length's digits are."""


@dataclass(frozen=True, slots=True, repr=False)
class Head:
    """A head without the digits of its length. It may hold a token, so it is shown nowhere.

    Attributes:
        before: What stands before them.
        behind: What stands behind them, the empty line included.
    """

    before: bytes
    behind: bytes

    def body_of(self, data: bytes) -> bytes | None:
        """The body, where `data` is such a head with exactly its body behind it; the hot path."""
        before, behind = self.before, self.behind
        if not data.startswith(before):
            return None
        start = len(before)
        stop = data.find(_END, start, start + _MOST_DIGITS + len(_END))
        digits = data[start:stop]
        if stop < 0 or not digits.isdigit() or not data.startswith(behind, stop):
            return None
        body = data[stop + len(behind) :]
        return body if len(body) == int(digits) else None


@dataclass(frozen=True, slots=True)
class Usual:
    """A head that is remembered.

    Attributes:
        head: The head.
        asked: What it asks of the door.
    """

    head: Head
    asked: Asked


def known(head: Head, message: Message, door: Door) -> Usual | None:
    """What is remembered of a request with this head that the door took; None: nothing."""
    route = door.route(message.path)
    asked = None if route is None else door.asked(route, message.values_of)
    return None if asked is None else Usual(head, asked)


def head_of(message: Message) -> Head | None:
    """What is the same in heads like this one, which is right; None: it is not one to be remembered."""
    text = message.head
    if len(text) > _MOST_BYTES or not message.is_usual:
        return None
    for name in _NAMES:
        at = text.find(name)
        if at >= 0:
            start = at + len(name)
            return Head(text[:start], text[text.find(_END, start) :] + _END)
    return None
