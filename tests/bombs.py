"""Bodies that are small as they are sent, and large or much work when they are looked at; and what refusing one costs.

`python -m tests.bombs SHAPE` refuses one in a process of its own, with the service's default limits, and prints the
code of the refusal and by how many bytes the process's memory rose above what it was before, at most.
"""

import gzip
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from axcollector.core import payload
from axcollector.core.errors import Rejected
from axcollector.core.unpacking import Limits

LIMITS: Final = Limits(max_body_bytes=10 << 20, max_decompressed_bytes=50 << 20, max_batch_records=20_000)


def zeros() -> bytes:
    """A quarter of a gigabyte of zeros."""
    return gzip.compress(bytes(1 << 28), 9)


def members() -> bytes:
    """Seventy thousand members of 64 KiB: as much as may be sent, 4.6 GB."""
    member = gzip.compress(bytes(1 << 16), 9)
    return member * (LIMITS.max_body_bytes // len(member))


def empty_members() -> bytes:
    """Half a million members of nothing, and then a large one."""
    return gzip.compress(b"", 9) * 500_000 + gzip.compress(bytes(60 << 20), 9)


def in_buffer(body: bytes) -> bytes:
    """As `volos-analytics-apigee` sends it."""
    return b'{"type":"Buffer","data":[' + b",".join(b"%d" % each for each in body) + b"]}"


def buffer_of_large_numbers() -> bytes:
    """A node Buffer of what are no bytes, of which each takes more memory than room in the body."""
    number = b"999,"
    return b'{"type":"Buffer","data":[' + number * (LIMITS.max_body_bytes // len(number) - 20) + b"0]}"


def buffer_full() -> bytes:
    """The longest node Buffer that may be sent."""
    return b'{"type":"Buffer","data":[' + b"0," * (LIMITS.max_body_bytes // 2 - 20) + b"0]}"


def records() -> bytes:
    """25 million records."""
    return gzip.compress(b'{"records":[' + b"0," * (24 << 20) + b"0]}", 9)


def brackets() -> bytes:
    """JSON that is just not too large, nested as deep as it is long."""
    return gzip.compress(b'{"records":' + b"[" * (49 << 20), 9)


SHAPES: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "zeros": (zeros, "PAYLOAD_TOO_LARGE"),
    "members": (members, "PAYLOAD_TOO_LARGE"),
    "empty members": (empty_members, "PAYLOAD_TOO_LARGE"),
    "buffer": (lambda: in_buffer(zeros()), "PAYLOAD_TOO_LARGE"),
    "buffer of large numbers": (buffer_of_large_numbers, "BAD_DATA"),
    "buffer, full": (buffer_full, "BAD_DATA"),
    "records": (records, "PAYLOAD_TOO_LARGE"),
    "brackets": (brackets, "BAD_DATA"),
}
"""How each is made, and as what it is refused."""


def _memory(what: str) -> int:
    """Resident memory, in bytes: `VmRSS` now, `VmHWM` at most since `_forget_peak`."""
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Refuse one."""
    body = SHAPES[sys.argv[1]][0]()
    _forget_peak()
    before = _memory("VmRSS")
    try:
        payload.decode(body, "gzip", LIMITS)
    except Rejected as exc:
        print(exc.code, _memory("VmHWM") - before)


if __name__ == "__main__":
    main()
