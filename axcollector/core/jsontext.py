"""JSON as text: the few things that a decoder does not tell, for the rare bodies that need them.

The decoder of the hot path (msgspec) checks JSON exactly, but for four things (ARCHITECTURE, trap 17): it does not look
into the UTF-8 of strings it skips, refuses a lone surrogate's escape, which JSON allows, and answers deep nesting with
`RecursionError`. Here is what those cases need. But for `is_utf8` and `mask_surrogates`, the functions take valid JSON
only: they look for its structure and check nothing. All are linear in the text's length.

No call of a regular expression looks at more than a window of the text: it holds the interpreter as long as it takes,
and one over a text of 50 MB kept everything else in the process waiting for seconds.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_SLICE_BYTES: Final = 1 << 16
_WINDOW_BYTES: Final = 1 << 16
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:(")|\\?\Z)|[{}\[\],:]', re.DOTALL)
"""Of a string that goes on behind the window the group is not there."""
_WITHIN_STRING: Final = re.compile(rb'(?:[^"\\]{1,1024}+|\\.){0,64}+', re.DOTALL)
_ESCAPED_PAIR: Final = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_WHOLE_ESCAPES: Final = re.compile(
    rb"(?:[^\\]{1,1024}+|" + _ESCAPED_PAIR + rb"|\\u[0-9a-fA-F]{4}|\\.|\\\Z){1,64}+", re.DOTALL
)
"""Some of a text, with no escape cut in two, nor a pair of surrogates."""
_SURROGATE: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*+\\u[dD](?:([89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|[89a-fA-F][0-9a-fA-F]{2})"
)
"""An escape of a surrogate, of a pair where the group is there. Backslashes before it escape one another, and none is
left over; behind those it goes on at once, so that a million of them are looked at once."""
_LONE_ESCAPE_BYTES: Final = len(rb"\ud800")
_QUOTE: Final = ord(b'"')
_SPACE: Final = b" \t\n\r"
_LONGEST_KEY_BYTES: Final = 256
"""No key that anybody looks for is longer, be each of its letters an escape."""


def is_utf8(text: bytes) -> bool:
    """Whether `text` is UTF-8, checked without holding a decoded copy of it."""
    if text.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(text), _SLICE_BYTES):
            decoder.decode(text[start : start + _SLICE_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def mask_surrogates(text: bytes) -> bytes:
    """`text` with each escape of a lone surrogate replaced by one of U+FFFD, which has the same length.

    The copy is valid JSON exactly where `text` is, and has the same structure at the same places.
    """

    def masked(match: re.Match[bytes]) -> bytes:
        return match[0] if match[1] else match[0][:-_LONE_ESCAPE_BYTES] + rb"\uFFFD"

    pieces = []
    start = 0
    while piece := _WHOLE_ESCAPES.match(text, start):
        pieces.append(_SURROGATE.sub(masked, piece[0]) if b"\\" in piece[0] else piece[0])
        start = piece.end()
    return b"".join(pieces)


def depth(text: bytes) -> int:
    """How many levels of arrays and objects lie in one another; a scalar has 0."""
    deepest = level = 0
    for at, _ in _tokens(text):
        token = text[at]
        if token in b"{[":
            level += 1
            deepest = max(deepest, level)
        elif token in b"}]":
            level -= 1
    return deepest


class Member(NamedTuple):
    """One member of an object: its key decoded, and key and value as they stand in the text."""

    key: str
    key_text: bytes
    value: bytes


class Place(NamedTuple):
    """Where a member stands in its object's text: from `start` to `end`; `next` is where the one behind it begins."""

    key: str
    key_text: bytes
    start: int
    end: int
    next: int


def members(text: bytes) -> Iterator[Member]:
    """The members of an object, in their order, repeated keys included."""
    for place in places(text):
        value = text[text.index(b":", place.start + len(place.key_text)) + 1 : place.end].strip(_SPACE)
        yield Member(place.key, place.key_text, value)


def places(text: bytes) -> Iterator[Place]:
    """Where the members of an object stand, in their order, repeated keys included."""
    for start, end in _items(text):
        key_start, key_end = next(_tokens(text, start))
        key_text = text[key_start:key_end]
        yield Place(_key_in(key_text), key_text, key_start, end, end + 1)


def _key_in(text: bytes) -> str:
    """A key; of one that is longer than any that is looked for its beginning, which is longer too."""
    if len(text) > _LONGEST_KEY_BYTES:
        return text[:_LONGEST_KEY_BYTES].decode("latin-1")
    key: str = json.loads(text)
    return key


def elements(text: bytes) -> Iterator[bytes]:
    """The elements of an array, in their order, without the space around them."""
    return (text[start:end].strip(_SPACE) for start, end in _items(text))


def _items(text: bytes) -> Iterator[tuple[int, int]]:
    """Where that stands which lies between the outermost brackets' commas."""
    level = 0
    start = 0
    for at, end in _tokens(text):
        token = text[at]
        if token in b"{[":
            level += 1
            if level == 1:
                start = end
        elif (token in b"}]" or token in b",") and level == 1:
            if token in b"," or text[start:at].strip(_SPACE):
                yield start, at
            start = end
        if token in b"}]":
            level -= 1


def _tokens(text: bytes, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where the brackets, commas, colons and strings stand, in their order."""
    while start < len(text):
        window = start + _WINDOW_BYTES
        for match in _STRUCTURE.finditer(text, start, window):
            at, end = match.span()
            if match[1] is None and text[at] == _QUOTE:
                window = end = _end_of_string(text, at)
                yield at, end
                break
            yield at, end
        start = window


def _end_of_string(text: bytes, start: int) -> int:
    """Where a string that begins here ends."""
    at = start + 1
    while (match := _WITHIN_STRING.match(text, at)) and match.end() > at:
        at = match.end()
    return at + 1
