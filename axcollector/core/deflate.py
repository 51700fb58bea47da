"""The deflate libraries, behind four names: isal and zlib-ng where the platform has wheels, else the standard zlib.

isal's level 1 costs a tenth of zlib's level 6 and gives 1.2 times its bytes; zlib-ng at level 6 gives zlib's size in
less than half of its time, and serves where files are packed again.
"""

import importlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol


def _library(name: str) -> Any:  # noqa: ANN401 - a module with zlib's functions
    """The named library, or the standard zlib on a platform that has no wheel of it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return zlib


_fast = _library("isal.isal_zlib")
_small = _library("zlib_ng.zlib_ng")

_JOINED_BYTES = 1 << 16
_GZIP = 31  # zlib's way to say: 32 KiB window, gzip header and trailer
ERRORS: tuple[type[Exception], ...] = (zlib.error, _fast.error, _small.error)
"""What decompressing raises on damaged input."""


class Decompressor(Protocol):
    """Reads one gzip member, slice by slice, as `zlib.decompressobj` does."""

    eof: bool
    unused_data: bytes
    unconsumed_tail: bytes

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes:
        """Up to `max_length` (0: all) bytes of what `data` holds; the rest of it is in `unconsumed_tail`."""
        ...


class Compressor(Protocol):
    """Writes one gzip member, slice by slice, as `zlib.compressobj` does."""

    def compress(self, data: bytes | bytearray, /) -> bytes:
        """What is ready so far."""
        ...

    def flush(self) -> bytes:
        """The rest of the member."""
        ...


def member(data: bytes | bytearray) -> bytes:
    """`data` as one whole gzip member, compressed fast."""
    packed: bytes = _fast.compress(data, 1, _GZIP)
    return packed


def member_of(parts: Sequence[bytes | bytearray]) -> bytes:
    """The parts, at least one, as one whole gzip member; large ones are not copied together before."""
    if len(parts) == 1:
        return member(parts[0])
    if sum(map(len, parts)) <= _JOINED_BYTES:
        return member(b"".join(parts))
    writer = packer(fast=True)
    return b"".join([*map(writer.compress, _pieces(parts)), writer.flush()])


def _pieces(parts: Sequence[bytes | bytearray]) -> Iterator[bytes | bytearray]:
    """The same bytes, small parts joined: a call of a compressor costs as much as compressing some kilobytes does."""
    gathered: list[bytes | bytearray] = []
    size = 0
    for part in parts:
        gathered.append(part)
        size += len(part)
        if size > _JOINED_BYTES:
            yield gathered[0] if len(gathered) == 1 else b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def crc32(data: bytes, value: int = 0) -> int:
    """The CRC-32 of `data`, or of what has `value` and of `data` behind it; as `zlib.crc32`."""
    crc: int = _fast.crc32(data, value)
    return crc


def decompressor() -> Decompressor:
    """A reader of one gzip member."""
    reader: Decompressor = _fast.decompressobj(_GZIP)
    return reader


def packer(*, fast: bool = False) -> Compressor:
    """A writer of one gzip member that is as small as `gzip -6` makes it; or of one made like `member`'s."""
    library, level = (_fast, 1) if fast else (_small, 6)
    writer: Compressor = library.compressobj(level, zlib.DEFLATED, _GZIP)
    return writer
