"""Members that are written and read whole: the same bytes, however they come in."""

import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from axcollector.core import deflate, frames, unpacking
from axcollector.core.errors import Rejected
from axcollector.core.unpacking import Limits, NeedsCare, unpack
from tests.effort import either

LIMITS = Limits(1 << 21, 1 << 21, 10)
LARGE = random.Random(3).randbytes(500_000)
"""A body of this size, gzip'd, is still taken as one member first."""
EMPTY = gzip.compress(b"", mtime=0)

sizes = st.one_of(st.integers(0, 40), st.sampled_from([65_535, 65_536, 65_537, 140_000]))
parts = st.lists(st.tuples(sizes, st.booleans()), min_size=1, max_size=12)


@settings(max_examples=either(500, 40))
@given(parts)
@example([(0, True)])
@example([(0, False), (65_537, True)])
@example([(40_000, True)] * 5)
def test_parts_are_one_member(made: list[tuple[int, bool]]) -> None:
    """Few or many, small or large, of bytes that may change or not: one member, with nothing behind it."""
    given_parts = [
        (bytearray if changeable else bytes)(bytes([65 + at]) * size) for at, (size, changeable) in enumerate(made)
    ]
    reader = zlib.decompressobj(31)
    assert reader.decompress(deflate.member_of(given_parts)) == b"".join(given_parts)
    assert (reader.eof, reader.unused_data) == (True, b"")
    assert [bytes(part) for part in given_parts] == [bytes([65 + at]) * size for at, (size, _) in enumerate(made)]


def test_large_parts_are_not_copied_together() -> None:
    """What is compressed takes the memory of its member, and of a part."""
    given_parts = [b"x" * 70_000] * 100
    tracemalloc.start()
    try:
        member = deflate.member_of(given_parts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert gzip.decompress(member) == b"".join(given_parts)
    assert peak < 1_000_000


@settings(max_examples=50)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_crc(first: bytes, second: bytes) -> None:
    """It is that of zlib, in one piece or two: journals of earlier versions are read, and they read ours."""
    assert deflate.crc32(first + second) == zlib.crc32(first + second)
    assert deflate.crc32(second, deflate.crc32(first)) == zlib.crc32(first + second)
    frame = frames.write("journal", 0, "acme~prod", 1, first, second, 1)
    assert int.from_bytes(frame[19:23], "big") == zlib.crc32(first + second)


@settings(max_examples=either(500, 50))
@given(st.lists(st.binary(max_size=200), max_size=4), st.integers(0, 10**6), st.integers(-3, 3))
def test_members_are_read_like_slices_of_them(texts: list[bytes], place: int, spare: int) -> None:
    """Whole, cut or damaged, and with just so much room: taken in one call or slice by slice, it is the same."""
    whole = b"".join(gzip.compress(text, mtime=0) for text in texts)
    cut, damaged = whole[: place % (len(whole) + 1)], bytearray(whole)
    if whole:
        damaged[place % len(whole)] ^= 1 + place % 255
    limit = max(0, sum(map(len, texts)) + spare)
    for body in (whole, cut, bytes(damaged), whole + b"\0", EMPTY + whole):
        assert said(lambda b=body: unpack(b, "gzip", Limits(1 << 20, limit, 1), careful=False)) == said(
            lambda b=body: unpacking._gunzip_in_slices(b, limit)
        )
    if texts and spare >= 0:
        assert unpack(whole, "gzip", Limits(1 << 20, limit, 1)) == b"".join(texts)


def said(unpacked: object) -> object:
    """The text, or the code of the refusal."""
    assert callable(unpacked)
    try:
        return unpacked()
    except Rejected as exc:
        return exc.code


@pytest.mark.parametrize(
    ("body", "at_once"),
    [
        (gzip.compress(LARGE, mtime=0), True),
        (gzip.compress(LARGE + LARGE[:30_000], mtime=0), False),
        (EMPTY * 3000, True),
        (EMPTY * 4000, False),
        (gzip.compress(LARGE[:70_000], mtime=0) + EMPTY, False),
    ],
    ids=["one member", "larger", "many members", "more of them", "two members"],
)
def test_what_may_take_long(body: bytes, at_once: bool) -> None:
    """It is not done where nobody would wait for it, but taken all the same."""
    text = unpack(body, "gzip", LIMITS)
    assert text == gzip.decompress(body)
    if at_once:
        assert unpack(body, "gzip", LIMITS, careful=False) == text
    else:
        with pytest.raises(NeedsCare):
            unpack(body, "gzip", LIMITS, careful=False)
    with pytest.raises(Rejected, match="max_body_bytes"):
        unpack(body, "gzip", Limits(len(body) - 1, 1 << 21, 10), careful=False)
