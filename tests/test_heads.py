"""The rules for heads by themselves: they hold whatever the parser that hands lines over would have refused."""

from collections.abc import Mapping, Sequence

import pytest

from axcollector import heads


@pytest.mark.parametrize(
    ("values", "is_refused"),
    [
        ({}, False),
        ({b"content-length": [b"1"]}, False),
        ({b"content-length": [b"1", b"1"]}, True),
        ({b"transfer-encoding": [b"chunked"]}, False),
        ({b"transfer-encoding": [b"Chunked"]}, False),
        ({b"transfer-encoding": [b"chunked", b"chunked"]}, True),
        ({b"transfer-encoding": [b"gzip, chunked"]}, True),
        ({b"content-length": [b"1"], b"transfer-encoding": [b"chunked"]}, True),
        ({b"host": [b"a", b"a"]}, True),
        ({b"expect": [b"100-Continue"]}, False),
        ({b"expect": [b"tea"]}, True),
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
