"""The gzip members of a journal: where they lie, and how they come to another file. Blocking."""

import array
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from axcollector.core import deflate
from axcollector.core.frames import Frame

SMALL_MEMBER_BYTES = 1 << 13
"""Members smaller than this on average are packed again: larger ones gain less than a tenth."""
_PACK_SLICE_BYTES = 1 << 20


@dataclass(slots=True)
class Members:
    """Where one tenant's members lie in a journal; numbers only, because there may be a million.

    Attributes:
        offsets: Where each begins.
        lengths: How long each is.
        records: How many records there are in all of them.
    """

    offsets: "array.array[int]" = field(default_factory=lambda: array.array("Q"))
    lengths: "array.array[int]" = field(default_factory=lambda: array.array("I"))
    records: int = 0

    def add(self, offset: int, length: int, records: int) -> None:
        """Note one."""
        self.offsets.append(offset)
        self.lengths.append(length)
        self.records += records

    @property
    def small(self) -> bool:
        """Whether they are better packed again."""
        return len(self.lengths) > 1 and sum(self.lengths) < SMALL_MEMBER_BYTES * len(self.lengths)


@dataclass(slots=True)
class Contents:
    """What is found in a journal.

    Attributes:
        tenants: Where the records lie, by tenant.
        aside: Where those lie that were set aside, likewise.
        records: How many there are of the former.
        aside_records: And of the latter.
        frames: How many frames hold them.
    """

    tenants: dict[str, Members] = field(default_factory=dict)
    aside: dict[str, Members] = field(default_factory=dict)
    records: int = 0
    aside_records: int = 0
    frames: int = 0

    def add(self, frame: Frame) -> None:
        """Note a frame."""
        if frame.member:
            self.tenants.setdefault(frame.tenant, Members()).add(frame.offset, len(frame.member), frame.records)
        if frame.aside:
            at = frame.offset + len(frame.member)
            self.aside.setdefault(frame.tenant, Members()).add(at, len(frame.aside), frame.aside_records)
        self.frames += 1
        self.records += frame.records
        self.aside_records += frame.aside_records

    def __bool__(self) -> bool:
        return bool(self.tenants or self.aside)


def pieces(descriptor: int, members: Members) -> Iterable[bytes]:
    """A tenant's members, one after the other, read where they lie."""
    for offset, length in zip(members.offsets, members.lengths, strict=True):
        data = os.pread(descriptor, length, offset)
        if len(data) != length:
            message = f"{length} bytes at {offset} were there and are not"
            raise OSError(message)
        yield data


def packed(members: Iterable[bytes]) -> Iterable[bytes]:
    """The same content as one member, as small as `gzip -6` makes it; in constant memory."""
    packer = deflate.packer()
    for member in members:
        reader = deflate.decompressor()
        data = member
        while not reader.eof:
            yield packer.compress(reader.decompress(data, _PACK_SLICE_BYTES))
            data = reader.unconsumed_tail
    yield packer.flush()
