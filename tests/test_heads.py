"""The rules for heads by themselves: they hold whatever the parser that hands lines over would have refused."""

from collections.abc import Mapping, Sequence

import pytest

from axcollector import heads


@pytest.mark.parametrize(
    ("values", "is_refused"),
    [
        ({}, False),
        ({b"Content-Length": [b"1"]}, False),
        ({b"Content-Length": [b"1", b"1"]}, True),
        ({b"Transfer-Encoding": [b"chunked"]}, False),
        ({b"Transfer-Encoding": [b"Chunked"]}, False),
        ({b"Transfer-Encoding": [b"chunked", b"chunked"]}, True),
        ({b"Transfer-Encoding": [b"gzip, chunked"]}, True),
        ({b"Content-Length": [b"1"], b"Transfer-Encoding": [b"chunked"]}, True),
        ({b"Host": [b"a", b"a"]}, True),
        ({b"Expect": [b"100-Continue"]}, False),
        ({b"Expect": [b"tea"]}, True),
    ],
)
def test_heads(values: Mapping[bytes, Sequence[bytes]], is_refused: bool) -> None:
    """There is one way to know where a body ends, one host, and one expectation."""
    assert (heads.problem(b"HTTP/1.1", lambda name: values.get(name, [])) is not None) is is_refused


@pytest.mark.parametrize(
    ("line", "is_refused"),
    [
        (b"Content-Length: 0", False),
        (b"content-length:\t12 ", False),
        (b"Content-Length:", True),
        (b"Content-Length: ", True),
        (b"Content-Length: +1", True),
        (b"Content-Length: 1,1", True),
        (b"Content-Length: 1 1", True),
        (b"Content-Length: " + b"9" * 18, False),
        (b"Content-Length: " + b"9" * 19, True),
        (b"X:", False),
        (b"X : a", True),
        (b" X: a", True),
        (b"X: a\x00b", True),
        (b"X: a\rb", True),
    ],
)
def test_fields(line: bytes, is_refused: bool) -> None:
    """A length is digits, of which there are some; a name has no blanks around it, a value no control characters."""
    assert (heads.field_problem(line) is not None) is is_refused
