"""Salvage: whole lines out of gzip streams that are cut, damaged, or ended in zeros."""

import contextlib
import gzip
import json
import random
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from isal import isal_zlib

from axcollector.core.salvage import LineReader
from axcollector.core.survey import LONG_LINE_BYTES, Findings, Survey

SLICES = [1, 77, 4096, 1 << 18]


def slices(data: bytes, size: int) -> list[bytes]:
    """`data` in slices."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def survey(data: bytes, size: int = 1 << 18) -> Findings:
    """What is found in it."""
    reader = Survey()
    for piece in slices(data, size):
        reader.feed(piece)
    return reader.finish()


def salvage(data: bytes, size: int = 1 << 18) -> bytes:
    """The lines in it; the two readings agree."""
    findings = survey(data, size)
    reader = LineReader(findings)
    found = b"".join(piece for part in slices(data, size) for piece in reader.feed(part)) + reader.finish()
    assert found.count(b"\n") == reader.kept
    assert found.endswith(b"\n") == bool(found)
    if not (findings.damaged or reader.dropped or findings.blank):
        assert len(found) - findings.lines in {0, int(findings.whole)}
    return found


def dropped(data: bytes) -> int:
    """How many lines are not given because they are no objects."""
    reader = LineReader(survey(data))
    list(reader.feed(data))
    return reader.dropped


def flushed(batches: list[bytes], library=zlib, level: int = 6) -> tuple[bytes, list[int]]:
    """One member as the reference writes it, flushed after each batch and not ended; and where each flush ends."""
    writer = library.compressobj(level, zlib.DEFLATED, 31)
    stream = b""
    ends = []
    for batch in batches:
        stream += writer.compress(batch) + writer.flush(zlib.Z_SYNC_FLUSH)
        ends.append(len(stream))
    return stream, ends


def records(count: int, seed: int = 1) -> list[bytes]:
    """Lines that are not much alike."""
    chance = random.Random(seed)
    return [json.dumps({"id": i, "text": chance.randbytes(20).hex()}).encode() + b"\n" for i in range(count)]


def readable(stream: bytes) -> bytes:
    """What the standard decompressor gives of it, byte by byte up to its first complaint."""
    reader = zlib.decompressobj(31)
    text = b""
    with contextlib.suppress(zlib.error):
        for i in range(len(stream)):
            text += reader.decompress(stream[i : i + 1])
    return text


def whole_lines(text: bytes) -> bytes:
    """It without what follows the last newline."""
    return text[: text.rfind(b"\n") + 1]


objects = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=30) | st.none(), max_size=5)
batches_of_lines = st.lists(
    st.lists(objects.map(lambda value: json.dumps(value, ensure_ascii=False).encode() + b"\n"), max_size=4).map(
        b"".join
    ),
    max_size=8,
)


@given(batches_of_lines, st.floats(0, 1), st.sampled_from(SLICES), st.integers(0, 300), st.integers(0, 9))
def test_any_cut(batches: list[bytes], where: float, size: int, zeros: int, level: int) -> None:
    """Of a stream cut anywhere, perhaps ending in zeros, come the lines before the cut, and all that were flushed."""
    stream, ends = flushed(batches, level=level)
    cut = stream[: int(where * len(stream))]
    found = salvage(cut + bytes(zeros), size)
    assert whole_lines(readable(cut.rstrip(b"\0"))) == found
    assert b"".join(batches).startswith(found)
    assert found.startswith(b"".join(batch for batch, end in zip(batches, ends, strict=True) if end <= len(cut)))


@given(st.lists(st.binary(max_size=60), max_size=6), st.sampled_from(SLICES), st.integers(0, 40))
@example([b"\0\0\n\0"], 1, 0)
@example([b""], 1, 9)
def test_whole_files_keep_every_byte(members: list[bytes], size: int, zeros: int) -> None:
    """What CRCs prove is given as it is, JSON or not, in any number of members; a last newline is added at most."""
    text = b"".join(members)
    data = b"".join(map(gzip.compress, members)) + bytes(zeros)
    assert text + b"\n" * (not text.endswith(b"\n") and bool(text)) == salvage(data, size)
    findings = survey(data, size)
    assert (findings.damaged, findings.torn, findings.blank) == (False, False, not text)
    assert findings.whole == bool(members)


@pytest.mark.parametrize("library", [zlib, isal_zlib])
@pytest.mark.parametrize("size", SLICES)
def test_a_zero_filled_tail(library, size: int) -> None:
    """All flushed records come out, whoever wrote them and however they are fed."""
    lines = records(200 if size == 1 else 2000)
    stream, _ = flushed(lines, library, 1)
    found = salvage(stream + bytes(3000 if size == 1 else 300_000), size)
    assert b"".join(lines) == found
    assert survey(stream + bytes(9)) == survey(stream)


def test_zeros_invent_nothing() -> None:
    """Zero bits repeat the match before them: behind a block of like records they would make further ones."""
    line = b'{"client_received_start_timestamp":1480000000000,"path":"/v1/things"}\n'
    stream, _ = flushed([line * 2000])
    invented = False
    for cut in range(len(stream) // 2, len(stream), 7):
        torn = stream[:cut] + bytes(1000)
        invented |= readable(torn).count(b"\n") > 2000
        assert salvage(torn) == whole_lines(readable(stream[:cut].rstrip(b"\0")))
        assert salvage(torn).count(b"\n") <= 2000
    assert invented


def test_zeros_in_the_middle() -> None:
    """A page of zeros is damage: what was flushed before it comes, nothing behind it, nothing torn."""
    lines = records(500)
    stream, ends = flushed(lines)
    hole = 4096 * 3
    data = stream[:hole] + bytes(4096) + stream[hole + 4096 :]
    whole = b"".join(line for line, end in zip(lines, ends, strict=True) if end <= hole)
    found = salvage(data)
    assert found.startswith(whole)
    assert len(found) - len(whole) <= len(lines[-1])
    assert survey(data).damaged


@pytest.mark.parametrize(
    ("data", "blank"),
    [
        (b"", True),
        (bytes(1), True),
        (bytes(5000), True),
        (gzip.compress(b"", mtime=0), True),
        (gzip.compress(b"", mtime=0) * 3 + bytes(50), True),
        (b"\x1f", False),
        (gzip.compress(b"", mtime=0)[:10], False),
        (b"\0\0" + gzip.compress(b"{}\n", mtime=0), False),
        (b"no gzip\n", False),
        (b"x", False),
        (gzip.compress(b"{}", mtime=0)[:-1], False),
    ],
)
def test_files_without_lines(data: bytes, blank: bool) -> None:
    """Some have nothing in them, of others nothing can be read; no line comes of either."""
    for size in SLICES:
        assert salvage(data, size) == b""
        assert survey(data, size).blank == blank


def test_a_last_line_without_newline() -> None:
    """It is whole where its stream ended, and torn where it did not."""
    whole = gzip.compress(b'{"a":1}\n{"b":2}')
    assert salvage(whole) == b'{"a":1}\n{"b":2}\n'
    assert salvage(whole + whole) == b'{"a":1}\n{"b":2}{"a":1}\n{"b":2}\n'
    for cut in range(1, 9):
        assert salvage(whole[:-cut]) == b'{"a":1}\n'
        assert survey(whole[:-cut]).torn
    assert salvage(whole + b"more") == b'{"a":1}\n'


def test_lines_across_members() -> None:
    """A line goes on in the next member; torn there, it is dropped, and one that ends there is checked."""
    first, second = gzip.compress(b'{"a":1}\nno JSON\n{"b"'), gzip.compress(b":2}\n{}\n")
    assert salvage(first + second) == b'{"a":1}\nno JSON\n{"b":2}\n{}\n'
    assert salvage(first + second[:-1]) == b'{"a":1}\nno JSON\n{"b":2}\n{}\n'
    assert salvage(first + gzip.compress(b"2}\n{}\n")[:-1]) == b'{"a":1}\nno JSON\n{}\n'
    assert salvage(first + second[:10]) == b'{"a":1}\nno JSON\n'


def test_a_wrong_crc() -> None:
    """Lines that no CRC vouches for are given where they are JSON objects; what they stood in is damaged."""
    data = bytearray(gzip.compress(b'{"a":1}\n[]\n\n{"b":"\xff"}\n{"c":}\n{"\\ud800":"\\udc00"}\nnull\n{"d":2}\n'))
    data[-8] ^= 1
    assert salvage(bytes(data)) == b'{"a":1}\n{"\\ud800":"\\udc00"}\n{"d":2}\n'
    assert dropped(bytes(data)) == 5
    assert survey(bytes(data)).damaged
    deep = gzip.compress(
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b'}\n{"a":"\\ud800","b":' + b"[" * 100_000 + b"\n"
    )
    assert salvage(deep[:-1]) == b""
    assert dropped(deep[:-1]) == 2


@pytest.mark.parametrize("in_members", [True, False])
def test_every_flip(in_members: bool) -> None:
    """A flipped bit never costs a line before it, and gives JSON objects only; with CRCs, it is always noticed."""
    batches = [b"".join(records(2, seed)) for seed in range(3)]
    data, ends = flushed(batches)
    if in_members:
        data = b"".join(map(gzip.compress, batches))
        ends = [len(b"".join(map(gzip.compress, batches[: i + 1]))) for i in range(3)]
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        found = salvage(bytes(flipped))
        before = b"".join(batch for batch, end in zip(batches, ends, strict=True) if end <= bit // 8)
        assert found.startswith(before)
        assert all(isinstance(json.loads(line), dict) for line in found[len(before) :].splitlines())
        if in_members and found not in {b"", b"".join(batches)}:
            assert survey(bytes(flipped)).damaged


def test_many_members() -> None:
    """A member a line, and thousands of them: all those before the damage, and none behind it."""
    lines = records(3000)
    members = [gzip.compress(line) for line in lines]
    data = b"".join(members)
    assert salvage(data) == b"".join(lines)
    assert salvage(data, 1000) == b"".join(lines)
    damaged = bytearray(data)
    damaged[sum(map(len, members[:2000])) + 30] ^= 0x10
    found = salvage(bytes(damaged))
    assert found.startswith(b"".join(lines[:2000]))
    assert found.count(b"\n") <= 2001


def test_a_line_of_70_kilobytes() -> None:
    """A line longer than the 64 KiB at which the reference gives up is a line like the others."""
    lines = [*records(3), b'{"pad":"' + random.Random(1).randbytes(35_000).hex().encode() + b'"}\n', *records(3, 2)]
    stream, _ = flushed(lines)
    assert salvage(stream) == b"".join(lines)
    assert salvage(stream[:-30]) == b"".join(lines[:-1])


LONG = 20 * LONG_LINE_BYTES


@pytest.mark.parametrize("proved", [True, False])
@pytest.mark.parametrize(
    ("long", "fit"),
    [
        (b'{"x":"' + b"x" * LONG + b'"}', True),
        (b'{"x":"' + "ü".encode() * (LONG // 2) + b'"}', True),
        (b'"x":"' + b"x" * LONG + b'"}', False),
        (b'{"x":"' + b"x" * LONG, False),
        (b'{"x":"' + b"\0" * LONG + b'"}', False),
        (b'{"x":"' + b"\xfc" * LONG + b'"}', False),
        (b'{"x":' + b"x" * (LONG_LINE_BYTES // 2) + b"}", False),
    ],
)
def test_long_lines_in_constant_memory(long: bytes, fit: bool, proved: bool) -> None:
    """Lines of 20 MB pass whole, where they look like objects or are proved, and take no memory; torn, they do not."""
    before, after = b"".join(records(2)), b"".join(records(2, 2))
    text = before + long + b"\n" + after
    data = gzip.compress(text)[: None if proved else -1]
    torn = gzip.compress(before + long)[:-1]
    tracemalloc.start()
    findings = survey(data)
    reader = LineReader(findings)
    crc = size = 0
    for part in slices(data, 1 << 14):
        for piece in reader.feed(part):
            crc = zlib.crc32(piece, crc)
            size += len(piece)
    assert reader.finish() == b""
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    expected = text if fit or proved else before + after
    assert (len(expected), zlib.crc32(expected)) == (size, crc)
    assert (reader.kept, reader.dropped) == (expected.count(b"\n"), 5 - expected.count(b"\n"))
    assert peak < 6 * LONG_LINE_BYTES
    assert salvage(torn) == before


@pytest.mark.parametrize("line", [b"\n", b"{}\n"])
def test_very_many_lines_in_constant_memory(line: bytes) -> None:
    """Some bytes of a torn file may hold half a million lines; no object is made of each of them before the next."""
    count = 100_000
    data = gzip.compress(line * count)[:-1]
    findings = survey(data)
    tracemalloc.start()
    reader = LineReader(findings)
    size = sum(len(piece) for part in slices(data, 1 << 14) for piece in reader.feed(part))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * LONG_LINE_BYTES
    assert (size, reader.kept, reader.dropped) == ((0, 0, count) if line == b"\n" else (len(line) * count, count, 0))


def test_a_file_that_changes_between_the_readings() -> None:
    """It is an error, never a torn line."""
    good = gzip.compress(b"".join(records(9)))
    findings = survey(good)
    for other in (good[:-20], b"", b"?" * len(good)):
        reader = LineReader(findings)
        with pytest.raises(ValueError, match="changed while it was read"):  # noqa: PT012 - in either
            list(reader.feed(other))
            reader.finish()
