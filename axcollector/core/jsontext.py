"""JSON as text: the few things that a decoder does not tell, for the rare bodies that need them.

The decoder of the hot path (msgspec) checks JSON exactly, but for four things (ARCHITECTURE, trap 17): it does not look
into the UTF-8 of strings it skips, refuses a lone surrogate's escape, which JSON allows, and answers deep nesting with
`RecursionError`. Here is what those cases need. But for `is_utf8` and `mask_surrogates`, the functions take valid JSON
only: they look for its structure and check nothing. All are linear in the text's length, and none holds the
interpreter for long: what waits in the reactor's thread gets its turn between two searches.
"""

import codecs
import json
import re
from collections.abc import Iterator
from io import BytesIO
from typing import Final, NamedTuple

_SLICE_BYTES: Final = 1 << 16
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[{}\[\],:]', re.DOTALL)
"""A bracket, a comma, a colon, or a string; one that the search's end has parted has an empty group."""
_IN_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SURROGATE: Final = re.compile(
    rb"\\(?:\\(?:\\\\)*+|u[dD](?:[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|([89a-fA-F][0-9a-fA-F]{2})))"
)
"""Backslashes that escape one another, an escaped pair of surrogates, or, where the group is there, a lone one."""
_PAIR_BYTES: Final = len(rb"\ud83d\ude00")
_SEARCHED_BYTES: Final = 1 << 16
"""So much is searched in one call, which holds the interpreter; even, so that it divides no pair of backslashes."""
_SPACE: Final = b" \t\n\r"
_LONGEST_KEY_BYTES: Final = 256
"""No key that anybody looks for is longer, be each of its letters an escape."""
_QUOTE: Final = ord('"')


def is_utf8(text: bytes) -> bool:
    """Whether `text` is UTF-8, checked without holding a decoded copy of it."""
    if text.isascii():
        return True
    if len(text) <= _SLICE_BYTES:
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
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
    masked: BytesIO | None = None
    start = 0
    while start < len(text):
        end = _not_behind_a_backslash(text, start, start + _SEARCHED_BYTES)
        if end == start:  # nothing but backslashes that escape one another
            start += _SEARCHED_BYTES
            continue
        for match in _SURROGATE.finditer(text, start, end + _PAIR_BYTES):
            if match.start() >= end:
                break
            start = match.end()
            if match[1]:
                masked = BytesIO(text) if masked is None else masked
                masked.seek(match.start())
                masked.write(rb"\uFFFD")
        start = max(start, end)
    return text if masked is None else masked.getvalue()  # not a copy


def _not_behind_a_backslash(text: bytes, start: int, end: int) -> int:
    """The last such place from `start` to `end`, where no escape but one of a surrogate is parted."""
    if end >= len(text):
        return len(text)
    return start + len(text[start:end].rstrip(b"\\"))


def depth(text: bytes) -> int:
    """How many levels of arrays and objects lie in one another; a scalar has 0."""
    deepest = level = 0
    for start, _ in _structure(text):
        token = text[start]
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
        value = _stripped(text, text.index(b":", place.start + len(place.key_text)) + 1, place.end)
        yield Member(place.key, place.key_text, value)


def places(text: bytes) -> Iterator[Place]:
    """Where the members of an object stand, in their order, repeated keys included."""
    for start, end in _items(text):
        key_start, key_end = next(_structure(text, start))
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
    return (_stripped(text, start, end) for start, end in _items(text))


def _items(text: bytes) -> Iterator[tuple[int, int]]:
    """Where that stands which lies between the outermost brackets' commas."""
    level = 0
    start = 0
    for token_start, token_end in _structure(text):
        token = text[token_start]
        if token in b"{[":
            level += 1
            if level == 1:
                start = token_end
        elif (token in b"}]" or token in b",") and level == 1:
            if token in b"," or _stripped(text, start, token_start):
                yield start, token_start
            start = token_end
        if token in b"}]":
            level -= 1


def _stripped(text: bytes, start: int, end: int) -> bytes:
    """What lies there, without the space around it."""
    while end - start > _SEARCHED_BYTES and text[start : start + _SEARCHED_BYTES].isspace():
        start += _SEARCHED_BYTES
    while end - start > _SEARCHED_BYTES and text[end - _SEARCHED_BYTES : end].isspace():
        end -= _SEARCHED_BYTES
    return text[start:end].strip(_SPACE)


def _structure(text: bytes, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where strings, brackets, commas and colons begin and end, from `start` on."""
    while start < len(text):
        end = start + _SEARCHED_BYTES
        for match in _STRUCTURE.finditer(text, start, end):
            start = _string_end(text, match.end()) if match[1] == b"" else match.end()
            yield match.start(), start
        start = max(start, end)


def _string_end(text: bytes, at: int) -> int:
    """Where a string ends, amid which this place is."""
    while text[at] != _QUOTE:
        match = _IN_STRING.match(text, at, at + _SEARCHED_BYTES)
        assert match is not None  # it may be empty
        at = match.end()
    return at + 1
