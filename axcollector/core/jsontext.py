"""JSON as text: the few things that a decoder does not tell, for the rare bodies that need them.

The decoder of the hot path (msgspec) checks JSON exactly, but for four things (ARCHITECTURE, trap 17): it does not look
into the UTF-8 of strings it skips, refuses a lone surrogate's escape, which JSON allows, and answers deep nesting with
`RecursionError`. Here is what those cases need. But for `is_utf8` and `mask_surrogates`, the functions take valid JSON
only: they look for its structure and check nothing. All are linear in the text's length.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_SLICE_BYTES: Final = 1 << 16
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]', re.DOTALL)
_SURROGATE: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*+\\u[dD](?:([89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|[89a-fA-F][0-9a-fA-F]{2})"
)
"""An escape of a surrogate, of a pair where the group is there. Backslashes before it escape one another, and none is
left over; behind those it goes on at once, so that a million of them are looked at once."""
_LONE_ESCAPE_BYTES: Final = len(rb"\ud800")
_SPACE: Final = b" \t\n\r"


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

    return _SURROGATE.sub(masked, text)


def depth(text: bytes) -> int:
    """How many levels of arrays and objects lie in one another; a scalar has 0."""
    deepest = level = 0
    for match in _STRUCTURE.finditer(text):
        token = text[match.start()]
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
        match = _STRUCTURE.search(text, start)
        assert match is not None
        key_text = match[0]
        yield Place(json.loads(key_text), key_text, match.start(), end, end + 1)


def elements(text: bytes) -> Iterator[bytes]:
    """The elements of an array, in their order, without the space around them."""
    return (text[start:end].strip(_SPACE) for start, end in _items(text))


def _items(text: bytes) -> Iterator[tuple[int, int]]:
    """Where that stands which lies between the outermost brackets' commas."""
    level = 0
    start = 0
    for match in _STRUCTURE.finditer(text):
        token = text[match.start()]
        if token in b"{[":
            level += 1
            if level == 1:
                start = match.end()
        elif (token in b"}]" or token in b",") and level == 1:
            if token in b"," or text[start : match.start()].strip(_SPACE):
                yield start, match.start()
            start = match.end()
        if token in b"}]":
            level -= 1
