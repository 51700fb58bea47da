"""The journal's format: whole frames in, whatever the damage."""

import bisect
import itertools
import random
import struct
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axcollector.core import deflate, frames
from tests.effort import either

IDENTITY = "20261124150800.20261124151000_instance_writer_1-0-0"


def journal(lines: Iterable[tuple[str, bytes]], identity: str = IDENTITY) -> list[bytes]:
    """The frames of a journal that holds these lines."""
    return [
        frames.write(identity, sequence, tenant, text.count(b"\n"), deflate.member(text))
        for sequence, (tenant, text) in enumerate(lines)
    ]


def read(data: bytes, slice_bytes: int | None = None) -> tuple[list[tuple[int, str, bytes]], frames.FrameReader]:
    """Sequence, tenant and lines of the frames in `data`, and the reader."""
    reader = frames.FrameReader(IDENTITY)
    found = []
    size = slice_bytes or max(1, len(data))
    for start in range(0, len(data), size):
        found += list(reader.feed(data[start : start + size]))
    found += list(reader.finish())
    for frame in found:
        assert frame.member == data[frame.offset : frame.offset + len(frame.member)]
    return [(f.sequence, f.tenant, zlib.decompress(f.member, 31)) for f in found], reader


LINES = [
    ("acme~prod", b'{"a":1}\n'),
    ("acme~test", b'{"b":"' + bytes(range(97, 123)) * 3 + b'"}\n{"c":3}\n'),
    ("z%C3%BC~e", b"{}\n" * 40),
]
WHOLE = [(i, tenant, text) for i, (tenant, text) in enumerate(LINES)]


@pytest.mark.parametrize("slice_bytes", [1, 7, 4096, None])
def test_whole_journals_are_read(slice_bytes: int | None) -> None:
    """What was written comes back, however the bytes come."""
    found, reader = read(b"".join(journal(LINES)), slice_bytes)
    assert found == WHOLE
    assert (reader.damaged, reader.torn) == (0, 0)


def test_every_truncation() -> None:
    """A journal cut anywhere gives exactly the frames that are whole."""
    parts = journal(LINES)
    data = b"".join(parts)
    for cut in range(len(data)):
        whole = [frame for i, frame in enumerate(WHOLE) if sum(map(len, parts[: i + 1])) <= cut]
        for slice_bytes in (1, 4096, None):
            found, reader = read(data[:cut], slice_bytes)
            assert found == whole
            assert reader.damaged == 0
            assert reader.torn == cut - sum(len(p) for p in parts[: len(whole)])


def test_every_flipped_byte() -> None:
    """A changed byte costs the frame that it is in, and no other."""
    parts = journal(LINES)
    data = b"".join(parts)
    ends = [sum(map(len, parts[: i + 1])) for i in range(len(parts))]
    for position in range(len(data)):
        hit = next(i for i, end in enumerate(ends) if position < end)
        flipped = bytearray(data)
        flipped[position] ^= 1 + position % 255
        for slice_bytes in (5, None):
            found, reader = read(bytes(flipped), slice_bytes)
            assert found == [frame for frame in WHOLE if frame[0] != hit]
            assert reader.damaged > 0 or hit == len(parts) - 1
            assert reader.damaged + reader.torn == len(parts[hit])


@given(st.randoms(use_true_random=False), st.sampled_from(["zero", "overwrite", "duplicate", "insert", "cut out"]))
def test_damaged_stretches(chance: random.Random, kind: str) -> None:
    """Zeros, garbage, copies and gaps anywhere: the frames that are untouched come, each once, none altered."""
    lines = [(f"t{i % 3}~e", b"x%d\n" % i * (1 + i % 5)) for i in range(30)]
    parts = journal(lines)
    data = b"".join(parts)
    start = chance.randrange(len(data))
    end = min(len(data), start + chance.randrange(1, 400))
    stretch = {
        "zero": bytes(end - start),
        "overwrite": chance.randbytes(end - start),
        "duplicate": data[start:end] * 2,
        "insert": chance.randbytes(50) + data[start:end],
        "cut out": b"",
    }[kind]
    damaged = data[:start] + stretch + data[end:]
    found, _ = read(damaged, chance.choice([3, 4096, None]))
    assert {sequence for sequence, _, _ in found} == {i for i, part in enumerate(parts) if part in damaged}
    assert len({sequence for sequence, _, _ in found}) == len(found)
    for sequence, tenant, text in found:
        assert (tenant, text) == lines[sequence]


def test_thousands_of_flips_in_a_large_journal() -> None:
    """Any changed bit of a large journal costs one frame, and alters none."""
    chance = random.Random(20261124)
    lines = [
        (f"t{i % 40}~e", b'{"n":%d,"x":"%b"}\n' % (i, chance.randbytes(i % 90).hex().encode())) for i in range(120)
    ]
    parts = journal(lines)
    members = [deflate.member(text) for _, text in lines]
    data = bytearray(b"".join(parts))
    ends = list(itertools.accumulate(map(len, parts)))
    for _ in range(either(3000, 2000)):
        position, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
        data[position] ^= bit
        hit = bisect.bisect_right(ends, position)
        reader = frames.FrameReader(IDENTITY)
        found = [*reader.feed(bytes(data)), *reader.finish()]
        assert [f.sequence for f in found] == [i for i in range(len(parts)) if i != hit]
        assert [f.member for f in found] == [member for i, member in enumerate(members) if i != hit]
        assert reader.damaged + reader.torn == len(parts[hit])
        data[position] ^= bit


def test_frames_of_other_journals_are_not_taken() -> None:
    """A stale frame of another journal, of whatever sequence, is damage."""
    mine = journal(LINES)
    other = journal([("acme~prod", b"stale\n")] * 5, IDENTITY.replace("1-0-0", "1-0-1"))
    found, reader = read(mine[0] + other[4] + mine[1] + mine[2])
    assert found == WHOLE
    assert reader.damaged == len(other[4])


def test_copied_frames_are_taken_once() -> None:
    """A frame that stands twice is read once, wherever its copy stands."""
    a, b, c = journal(LINES)
    assert sorted(read(a + c + b + c + a)[0]) == WHOLE


def test_absurd_lengths_are_not_believed() -> None:
    """A header that promises more than any writer writes, though its CRC be right, costs nothing but itself."""
    a, b, c = journal(LINES)
    reader = frames.FrameReader(IDENTITY)
    head = frames._HEAD.pack(frames.MAGIC, 1, 0, 9, 1, frames.MAX_MEMBER_BYTES + 1, 0)
    absurd = head + zlib.crc32(head, zlib.crc32(IDENTITY.encode())).to_bytes(4, "big")
    assert [f.sequence for f in reader.feed(a + absurd + b + c)] == [0, 1, 2]


def test_a_header_that_waits_for_more_than_comes() -> None:
    """A cut member's header does not swallow the frames that were appended behind the cut."""
    a, b, c = journal(LINES)
    found, reader = read(a + b[:-9] + c)
    assert found == [WHOLE[0], WHOLE[2]]
    assert reader.damaged == len(b) - 9


@given(st.binary(max_size=300))
def test_garbage_is_no_frame(data: bytes) -> None:
    """No bytes but a writer's make a frame, and none raise."""
    found, reader = read(data, 11)
    assert found == []
    assert reader.torn + reader.damaged == len(data)
    assert data.strip(b"\0") == b"" or reader.damaged > 0 or frames.MAGIC.startswith(data.lstrip(b"\0"))


def test_a_zero_filled_end_is_torn() -> None:
    """Zeros at the end are what a power loss leaves; before a frame they are damage."""
    a, b, c = journal(LINES)
    assert (read(a + bytes(5000))[1].torn, read(a + bytes(5000))[1].damaged) == (5000, 0)
    assert (read(a + bytes(5000) + b, 9)[1].torn, read(a + bytes(5000) + b, 9)[1].damaged) == (0, 5000)
    assert read(a + b + c[:40] + bytes(100))[1].damaged > 0


ASIDE = [
    ("acme~prod", b'{"a":1}\n', b"bad\n"),
    ("acme~test", b"", b"bad\nworse\n"),
    ("z%C3%BC~e", b"{}\n" * 40, b""),
    ("acme~prod", b"1\n2\n", b"\xabAXF\n"),
]


def with_aside() -> list[bytes]:
    """The frames of a journal in which some have records that were set aside."""
    return [
        frames.write(
            *(IDENTITY, sequence, tenant, lines.count(b"\n"), deflate.member(lines) if lines else b""),
            *(deflate.member(aside) if aside else b"", aside.count(b"\n")),
        )
        for sequence, (tenant, lines, aside) in enumerate(ASIDE)
    ]


def contents(data: bytes, slice_bytes: int) -> list[tuple[int, str, bytes, bytes]]:
    """Sequence, tenant, lines and those set aside of the frames in `data`, whose numbers are right."""
    reader = frames.FrameReader(IDENTITY)
    slices = (data[at : at + slice_bytes] for at in range(0, len(data), slice_bytes))
    found = [*itertools.chain.from_iterable(list(reader.feed(each)) for each in slices), *reader.finish()]
    read_out = []
    for f in found:
        assert data[f.offset : f.offset + len(f.member) + len(f.aside)] == f.member + f.aside
        lines, aside = (zlib.decompress(part, 31) if part else b"" for part in (f.member, f.aside))
        assert (f.records, f.aside_records) == (lines.count(b"\n"), aside.count(b"\n"))
        read_out.append((f.sequence, f.tenant, lines, aside))
    return read_out


def test_records_set_aside_are_in_their_batch_s_frame() -> None:
    """However the bytes come; cut or changed anywhere, a frame gives both of its parts or neither."""
    parts = with_aside()
    data = b"".join(parts)
    whole = [(sequence, *each) for sequence, each in enumerate(ASIDE)]
    ends = list(itertools.accumulate(map(len, parts)))
    for slice_bytes in (1, 7, len(data)):
        assert contents(data, slice_bytes) == whole
    for position in range(len(data)):
        hit = bisect.bisect_right(ends, position)
        assert contents(data[:position], len(data)) == whole[:hit]
        flipped = data[:position] + bytes([data[position] ^ (1 + position % 255)]) + data[position + 1 :]
        assert contents(flipped, len(data)) == [each for each in whole if each[0] != hit]


def test_frames_without_any_are_as_they_were() -> None:
    """A frame as earlier versions write it, and read it."""
    member = deflate.member(b"{}\n")
    head = struct.pack(">4sBHIIII", b"\xabAXF", 1, 9, 3, 1, len(member), zlib.crc32(member)) + b"acme~prod"
    frame = head + struct.pack(">I", zlib.crc32(head, zlib.crc32(IDENTITY.encode()))) + member
    assert frames.write(IDENTITY, 3, "acme~prod", 1, member) == frame
    assert contents(frame, 11) == [(3, "acme~prod", b"{}\n", b"")]
