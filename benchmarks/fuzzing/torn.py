"""Target `salvage`: of torn and damaged files, journals and gzip files alike, exactly what is whole comes out.

The oracles hold everything in memory and read byte by byte. The first byte of an input says how large the slices are in
which it is fed.
"""

import gzip
import json
import tracemalloc
import zlib

from axcollector.core import deflate, frames
from axcollector.core.frames import FrameReader
from axcollector.core.salvage import LineReader
from axcollector.core.survey import LONG_LINE_BYTES, Survey
from benchmarks.fuzzing.target import Target

IDENTITY = "20261124150800.20261124151000_instance_writer_1-0-0"
_SLICES = (1, 3, 64, 511, 4096, 1 << 18)
_MOST_ZEROS = 16
_MEMORY_BYTES = 8 * LONG_LINE_BYTES
_SURELY_LONG_BYTES = LONG_LINE_BYTES + (1032 << 9)
"""Longer than what is held and what is read at once."""
_WATCHED = 64
"""One input in so many is run with its memory watched, which takes many times as long."""


def check(data: bytes) -> str:
    """Read it as a journal, and as a gzip file."""
    size = _SLICES[data[0] % len(_SLICES)] if data else 1
    slices = [data[start : start + size] for start in range(1, len(data), size)]
    is_watched = zlib.crc32(data) % _WATCHED == 0
    if is_watched:
        tracemalloc.start()
    try:
        journal, peak_journal = _read_journal(slices), tracemalloc.get_traced_memory()[1]
        kept, dropped, crc, length = _read_gzip(slices)
        peak = max(peak_journal, tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert peak < _MEMORY_BYTES, peak
    found = _journal_oracle(data[1:])
    assert journal == found, (journal, found)
    # Lines that are little longer than what is held for sure may be checked to the last comma or not.
    assert any(
        (kept, dropped, crc, length) == (lines.count(b"\n"), dropped_lines, zlib.crc32(lines), len(lines))
        for lines, dropped_lines in (_gzip_oracle(data[1:], held) for held in (LONG_LINE_BYTES, _SURELY_LONG_BYTES))
    )
    return f"{len(found).bit_length()} bits of frames, {kept.bit_length()} of lines, {dropped.bit_length()} dropped"


def _read_journal(slices: list[bytes]) -> list[tuple[int, str, int, bytes]]:
    reader = FrameReader(IDENTITY)
    found = [frame for part in slices for frame in reader.feed(part)] + list(reader.finish())
    in_frames = sum(len(frame.member) + frames._HEAD.size + len(frame.tenant) + 4 for frame in found)  # noqa: SLF001
    assert reader.damaged >= 0
    assert reader.torn >= 0
    assert reader.damaged + reader.torn + in_frames <= sum(map(len, slices))
    return [(frame.sequence, frame.tenant, frame.records, frame.member) for frame in found]


def _journal_oracle(data: bytes) -> list[tuple[int, str, int, bytes]]:
    """At each place in turn: is it a whole frame?"""
    found: dict[int, tuple[int, str, int, bytes]] = {}
    at = 0
    seed = zlib.crc32(IDENTITY.encode())
    while (at := data.find(b"\xabAXF\x01", at)) >= 0:
        if len(data) >= at + 27:
            name_length = int.from_bytes(data[at + 5 : at + 7], "big")
            sequence, records, length, crc = (
                int.from_bytes(data[at + 7 + 4 * i : at + 11 + 4 * i], "big") for i in range(4)
            )
            name_end = at + 23 + name_length
            member = data[name_end + 4 : name_end + 4 + length]
            head_crc = int.from_bytes(data[name_end : name_end + 4], "big")
            if (
                zlib.crc32(data[at:name_end], seed) == head_crc
                and length <= frames.MAX_MEMBER_BYTES
                and len(member) == length
                and zlib.crc32(member) == crc
            ):
                name = data[at + 23 : name_end].decode("ascii", errors="replace")
                found.setdefault(sequence, (sequence, name, records, member))
                at = name_end + 4 + length
                continue
        at += 1
    return list(found.values())


def _read_gzip(slices: list[bytes]) -> tuple[int, int, int, int]:
    """Lines kept, lines dropped, and CRC and length of what came out."""
    survey = Survey()
    for part in slices:
        survey.feed(part)
    reader = LineReader(survey.finish())
    crc = length = 0
    for part in slices:
        for piece in reader.feed(part):
            crc = zlib.crc32(piece, crc)
            length += len(piece)
    last = reader.finish()
    return reader.kept, reader.dropped, zlib.crc32(last, crc), length + len(last)


def _gzip_oracle(data: bytes, held: int) -> tuple[bytes, int]:
    """What is to come out, and how many lines are dropped; see the rules in `axcollector.core.salvage`."""
    body = data.rstrip(b"\0")
    text, proved, is_whole, is_damaged = _members(body)
    if not is_damaged and not is_whole and len(body) < len(data):
        for zeros in range(1, min(_MOST_ZEROS, len(data) - len(body)) + 1):
            longer = _members(body + bytes(zeros))
            if longer[2]:
                text, proved, is_whole, is_damaged = longer
                break
    if is_whole:
        return text + b"\n" * (text[-1:] not in {b"", b"\n"}), 0
    known = text.rfind(b"\n", 0, proved) + 1
    lines = text[known : text.rfind(b"\n") + 1].split(b"\n")[:-1] if text.rfind(b"\n") >= known else []
    good = [line for line in lines if _is_object(line, held)]
    return text[:known] + b"".join(line + b"\n" for line in good), len(lines) - len(good)


def _members(data: bytes) -> tuple[bytes, int, bool, bool]:
    """The text up to the first damage, how much of it CRCs prove, whether all is whole, whether there is damage."""
    parts: list[bytes] = []
    size = proved = 0
    reader = zlib.decompressobj(31)
    is_between = False
    try:
        for at in range(len(data)):
            if is_between and data[at] == 0:
                continue
            if is_between:
                reader = zlib.decompressobj(31)
            parts.append(reader.decompress(data[at : at + 1]))
            size += len(parts[-1])
            is_between = reader.eof
            if is_between:
                proved = size
    except zlib.error:
        return b"".join(parts), proved, False, True
    return b"".join(parts), proved, is_between, False


def _is_object(line: bytes, held: int) -> bool:
    if len(line) > held:
        try:
            line.decode()
        except UnicodeDecodeError:
            return False
        return line[:1] == b"{" and line[-1:] == b"}" and not any(byte < 0x20 for byte in set(line))
    try:
        value = json.loads(line.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _refuse(name: str) -> object:
    raise ValueError(name)


_LINES = tuple(json.dumps({"id": at, "text": "words, and words" * (at % 3)}).encode() + b"\n" for at in range(12))


def _flushed(lines: tuple[bytes, ...]) -> bytes:
    """One member as the reference writes it: flushed after each line, and not ended."""
    writer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return b"".join(writer.compress(line) + writer.flush(zlib.Z_SYNC_FLUSH) for line in lines)


def _journal(count: int, identity: str = IDENTITY) -> bytes:
    return b"".join(
        frames.write(identity, at, f"t{at % 3}~e", 1, deflate.member(_LINES[at % len(_LINES)])) for at in range(count)
    )


_OTHERS = _journal(2, IDENTITY.replace("1-0-0", "1-0-1"))

SALVAGE = Target(
    "salvage",
    check,
    seeds=(
        *(bytes([at]) + _journal(5) for at in range(len(_SLICES))),
        *(bytes([at]) + _flushed(_LINES[:4]) for at in range(len(_SLICES))),
        b"\4" + _journal(1) + bytes(40) + _journal(3)[60:],
        b"\4" + _journal(2) + _OTHERS + _journal(3),
        b"\4" + gzip.compress(b"".join(_LINES), mtime=0),
        b"\3" + b"".join(gzip.compress(line, mtime=0) + bytes(at) for at, line in enumerate(_LINES)),
        b"\4"
        + gzip.compress(b'{"a":1}\n[]\n\n{"b":"\xff"}\n{"\\ud800":NaN}\n{"\\ud800":1}\nnull\n{"d":2}', mtime=0)[:-1],
        b"\4" + _flushed((b'{"x":"%b"}\n' % (b"x" * (LONG_LINE_BYTES + 9)), *_LINES[:2])),
        b"\5" + gzip.compress(b"\0" * 1_200_000 + b"\n{}\n", mtime=0)[:-1],
        b"\4" + _flushed(_LINES[:3]) + bytes(300),
        b"\4" + gzip.compress(b'{}\nno JSON\n{"b"', mtime=0) + gzip.compress(b":2}\n{}\n", mtime=0)[:-1],
    ),
    words=(
        *(frames.MAGIC, frames.MAGIC + b"\x01", b"\x1f\x8b\x08", b"\0" * 16, b"\0" * 512, b"\xff" * 4, b"\n", b"{}\n"),
        *(b"\x00\x00\xff\xff", b"\x03\x00", _journal(1), _journal(2)[len(_journal(1)) :], _OTHERS),
        *(gzip.compress(b"{}\n", mtime=0), gzip.compress(b'{"a":', mtime=0), gzip.compress(b"", mtime=0)),
        gzip.compress(b"1}\n{", mtime=0)[:-8],
    ),
    longest_bytes=3072,
)
