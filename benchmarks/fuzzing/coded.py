"""Target `gzip`: a body labelled gzip is unpacked where the standard library unpacks it whole, to the same text.

And nowhere else, but for two things that isal, which unpacks for us, does not mind: tables of codes that are not
complete or have more codes than there can be, as long as no such code is used, and reserved bits in a header. What
comes of those is vouched for by the member's CRC like everything else (decision 0017).
"""

import gzip
import json
import re
import zlib

from axcollector.core.errors import Rejected
from axcollector.core.unpacking import Limits, unpack
from benchmarks.fuzzing.target import Target

LIMITS = Limits(max_body_bytes=8192, max_decompressed_bytes=20_000, max_batch_records=1)
TOO_LARGE = "too large"
BAD = "no gzip"
ODD = "no gzip to the standard library, for what isal does not mind"
_ODD = re.compile("invalid (code lengths|literal/lengths|distances) set|unknown header flags set")


def expected(body: bytes) -> bytes | set[str]:
    """The text, or why there is none (of several reasons, any may be said); by the standard library alone."""
    if len(body) > LIMITS.max_body_bytes:
        return {TOO_LARGE}
    if body.startswith(b"{"):
        unwrapped = _node_buffer(body)
        if unwrapped is None:
            return {BAD}
        body = unwrapped
    parts: list[bytes] = []
    size = 0
    reader = zlib.decompressobj(31)
    faults: set[str] = set()
    try:
        for at in range(len(body)):  # byte by byte, because damage costs what comes with it
            if reader.eof:
                reader = zlib.decompressobj(31)
            part = reader.decompress(body[at : at + 1])
            size += len(part)
            if size > LIMITS.max_decompressed_bytes:
                faults.add(TOO_LARGE)
            else:
                parts.append(part)
    except zlib.error as exc:
        faults |= {ODD, BAD, TOO_LARGE} if _ODD.search(str(exc)) else {BAD}
    if not reader.eof:
        faults.add(BAD)
    return faults or b"".join(parts)


def _node_buffer(body: bytes) -> bytes | None:
    """The bytes of `{"type":"Buffer","data":[…]}`, or None."""
    try:
        value = json.loads(body.decode(), parse_float=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or set(value) != {"type", "data"} or value["type"] != "Buffer":
        return None
    data = value["data"]
    if not isinstance(data, list) or not all(type(each) is int and 0 <= each <= 255 for each in data):
        return None
    return bytes(data)


def check(body: bytes) -> str:
    """Unpack, and compare."""
    wanted = expected(body)
    try:
        found: bytes | str = unpack(body, "gzip", LIMITS)
    except Rejected as exc:
        found = {"PAYLOAD_TOO_LARGE": TOO_LARGE, "BAD_DATA": BAD}[exc.code]
    if isinstance(wanted, bytes):
        assert found == wanted, found[:80]
        return f"unpacked, {'some' if found else 'no'} text"
    if isinstance(found, bytes):
        assert ODD in wanted, (found[:80], wanted)
        return f"unpacked, {ODD}"
    assert found in wanted, (found, wanted)
    return found


_TEXT = b'{"records":[{"client_received_start_timestamp":1}]}'


def _with_header(flags: int, extra: bytes) -> bytes:
    """A member with optional fields in its header."""
    plain = gzip.compress(_TEXT, mtime=0)
    head = plain[:3] + bytes([flags]) + plain[4:10] + extra
    crc = (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
    return head + crc + plain[10:]


GZIP = Target(
    "gzip",
    check,
    seeds=(
        gzip.compress(_TEXT, mtime=0),
        gzip.compress(_TEXT, 0, mtime=0),
        gzip.compress(_TEXT[:9], mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(_TEXT[9:], mtime=0),
        gzip.compress(b"", mtime=0),
        gzip.compress(bytes(20_000), mtime=0),
        gzip.compress(bytes(20_001), mtime=0),
        gzip.compress(bytes(range(256)) * 12, mtime=0),
        gzip.compress(_TEXT * 40, mtime=0),
        json.dumps({"type": "Buffer", "data": list(gzip.compress(_TEXT, mtime=0))}).encode(),
        json.dumps({"data": list(gzip.compress(b"", mtime=0)), "type": "Buffer"}, separators=(",", ":")).encode(),
        *(_with_header(flags, extra) for flags, extra in ((4, b"\3\0abc"), (8, b"name\0"), (16, b"note\0"), (2, b""))),
        _with_header(31, b"\2\0zzname\0note\0"),
        b"",
    ),
    words=(
        *(b"\x1f\x8b\x08", b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x03\x00", b"\xe0"),
        *(b'{"type":"Buffer","data":[31,139', b"]}", b",256", b",-1", b",1.0", b",1e1", b"-0", b'"type":"Buffer",'),
        *(b"\x01\x00\x00\xff\xff", b"\x00\x00\x00\xff\xff", b"x", b"\0"),
    ),
)
