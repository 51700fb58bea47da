r"""The journal's format: frames out, whole frames in, whatever the damage.

A journal is a run of frames. A frame is

    magic      4 bytes   b"\xabAXF"; its first byte begins no UTF-8 text and no gzip member
    version    1 byte    1
    tenant     2 bytes   length of the tenant's name, then below the name itself
    sequence   4 bytes   0 for the journal's first frame, then one more for each
    records    4 bytes   how many lines the member holds
    length     4 bytes   of the member
    CRC        4 bytes   CRC-32 of the member as it stands here (its own trailer has that of its content)
    (name)               the tenant's, as `layout.tenant_directory` writes it
    CRC        4 bytes   CRC-32 of all the above, begun with the journal's identity
    (member)             the records as JSON lines: one whole gzip member

with numbers in network order. A frame of version 2 has two numbers more, behind the CRC of the member:

    kept       4 bytes   how much of the member is the records; behind it stands another whole gzip member
    aside      4 bytes   how many lines that one holds: records set aside (`core/quarantine`)

so that a batch with bad records lies in one frame too. It is written for such batches only.

What a reader may conclude, of a journal cut or damaged anywhere:

* A frame whose two CRCs agree is what was written, whole: its batches are all there. Nothing else is ever taken.
* A frame is taken once: copies of it, wherever they stand, have a sequence number that was seen. Frames of another
  journal (stale blocks of a deleted file) fail the header's CRC, which begins with the identity.
* Damage costs the frames it touches and no others: reading goes on at the next magic behind which a header is good.
  A header's good CRC proves its length, so no frame is skipped by trusting a damaged one; where only the member is
  damaged, the next frame is looked for from just behind the header on, so a wrong cut loses nothing.
* Bytes that belong to no frame are counted: as `torn` where they stand at the end and are what a crash leaves there, a
  frame cut short or zeros; else as `damaged`.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from axcollector.core import deflate

MAGIC: Final = b"\xabAXF"
VERSION: Final = 1
VERSION_ASIDE: Final = 2
_HEAD: Final = struct.Struct(">4sBHIIII")
_ASIDE: Final = struct.Struct(">II")
_CRC: Final = struct.Struct(">I")
_LONGEST_HEADER: Final = _HEAD.size + _ASIDE.size + 255 + _CRC.size
MAX_MEMBER_BYTES: Final = 1 << 30
"""No writer makes larger members; a header that says so is not believed."""


class Frame(msgspec.Struct, frozen=True):
    """A whole frame.

    Attributes:
        tenant: As `layout.tenant_directory` writes it.
        sequence: Its number in the journal.
        records: How many lines the member holds.
        offset: Where its member begins in the journal, in bytes.
        member: The gzip member; nothing where all records were set aside.
        aside: The gzip member of the records that were set aside, behind the other; nothing where none were.
        aside_records: How many lines that one holds.
    """

    tenant: str
    sequence: int
    records: int
    offset: int
    member: bytes
    aside: bytes = b""
    aside_records: int = 0


def write(
    identity: str, sequence: int, tenant: str, records: int, member: bytes, aside: bytes = b"", aside_records: int = 0
) -> bytes:
    """One frame, for the journal of this identity (`JournalName.identity`)."""
    name = tenant.encode("ascii")
    version, more = (VERSION_ASIDE, _ASIDE.pack(len(member), aside_records)) if aside else (VERSION, b"")
    crc = deflate.crc32(aside, deflate.crc32(member))
    head = _HEAD.pack(MAGIC, version, len(name), sequence, records, len(member) + len(aside), crc) + more + name
    return b"".join([head, _CRC.pack(zlib.crc32(head, _seed(identity))), member, aside])


def _seed(identity: str) -> int:
    return zlib.crc32(identity.encode())


class _Header(msgspec.Struct, frozen=True):
    tenant: str
    sequence: int
    records: int
    size: int
    length: int
    crc: int
    kept: int
    aside_records: int


class FrameReader:
    """Finds the whole frames of one journal, fed with its content in slices of any size.

    Attributes:
        damaged: Bytes that belong to no frame, but those in `torn`.
        torn: Bytes at the end that are zeros or a frame cut short; complete after `finish`.
    """

    def __init__(self, identity: str) -> None:
        self._seed = _seed(identity)
        self._buffer = bytearray()
        self._position = 0  # of the buffer's first byte in the journal
        self._seen = bytearray()  # one bit a sequence number
        self.damaged = 0
        self.torn = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that end in `data`. Take them all before feeding more."""
        self._buffer += data
        return self._frames(at_end=False)

    def finish(self) -> Iterator[Frame]:
        """The frames that a damaged length had kept waiting. Nothing comes after this."""
        yield from self._frames(at_end=True)

    def _frames(self, *, at_end: bool) -> Iterator[Frame]:
        while True:
            self._seek_magic(at_end=at_end)
            header = self._header()
            if isinstance(header, _Header) and len(self._buffer) >= header.size + header.length:
                frame = self._take(header)
                if frame is not None:
                    yield frame
            elif header is _BAD:
                self._skip(1)
            elif not (at_end and self._buffer):
                return
            elif self._buffer.find(MAGIC, 1) < 0 and (header or len(self._buffer) < _LONGEST_HEADER):
                self.torn += len(self._buffer)
                self._drop(len(self._buffer))
            else:
                self._skip(header.size if isinstance(header, _Header) else 1)

    def _take(self, header: _Header) -> Frame | None:
        """The frame with this header; None where it is damaged, or was seen before."""
        member = bytes(self._buffer[header.size : header.size + header.length])
        if deflate.crc32(member) != header.crc:
            self._skip(header.size)
            return None
        offset = self._position + header.size
        self._drop(header.size + header.length)
        self.damaged += self.torn
        self.torn = 0
        if not self._first_sight(header.sequence):
            return None
        kept, aside = member[: header.kept], member[header.kept :]
        return Frame(header.tenant, header.sequence, header.records, offset, kept, aside, header.aside_records)

    def _first_sight(self, sequence: int) -> bool:
        index, bit = sequence >> 3, 1 << (sequence & 7)
        if index >= len(self._seen):
            self._seen.extend(bytes(index + 1 - len(self._seen)))
        new = not self._seen[index] & bit
        self._seen[index] |= bit
        return new

    def _seek_magic(self, *, at_end: bool) -> None:
        """Pass over what stands before the next magic; the buffer's last bytes may be the first of one."""
        if self._buffer.startswith(MAGIC):  # as nearly always, of a journal that is whole
            return
        found = self._buffer.find(MAGIC)
        if found < 0:
            kept = next(n for n in range(len(MAGIC) - 1, -1, -1) if self._buffer.endswith(MAGIC[:n]))
            found = len(self._buffer) - kept
            if at_end and kept and not found:
                self.torn += kept
                self._drop(kept)
        self._skip(found)

    def _header(self) -> "_Header | object | None":
        """The header at the buffer's start, `_BAD` where there is none, None where more must come to tell."""
        if len(self._buffer) < _HEAD.size:
            return None
        magic, version, name_length, sequence, records, length, crc = _HEAD.unpack_from(self._buffer)
        if magic != MAGIC or version not in {VERSION, VERSION_ASIDE} or length > MAX_MEMBER_BYTES:
            return _BAD
        name_at = _HEAD.size + (_ASIDE.size if version == VERSION_ASIDE else 0)
        head_length = name_at + name_length
        if len(self._buffer) < head_length + _CRC.size:
            return None
        head = bytes(self._buffer[:head_length])
        (expected,) = _CRC.unpack_from(self._buffer, head_length)
        if zlib.crc32(head, self._seed) != expected:
            return _BAD
        kept, aside_records = _ASIDE.unpack_from(head, _HEAD.size) if version == VERSION_ASIDE else (length, 0)
        tenant = head[name_at:].decode("ascii", errors="replace")
        return _Header(tenant, sequence, records, head_length + _CRC.size, length, crc, kept, aside_records)

    def _skip(self, count: int) -> None:
        if self._buffer[:count].strip(b"\0"):
            self.damaged += self.torn + count
            self.torn = 0
        else:
            self.torn += count
        self._drop(count)

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._position += count


_BAD: Final = object()
