"""The gzip members of a journal: where they lie, and how they come to another file. Blocking."""

import array
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from axcollector.core import deflate
from axcollector.core.frames import Frame, FrameReader
from axcollector.courtesy import Courtesy
from axcollector.disk import read_slices

SMALL_MEMBER_BYTES = 1 << 13
"""Members smaller than this on average are packed again, as they were packed: larger ones gain less than a tenth."""
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


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in a journal, and what is no frame.

    Attributes:
        contents: The former.
        damaged: See `FrameReader`.
        torn: Likewise.
        blank: Whether there is nothing in it but zeros.
    """

    contents: Contents
    damaged: int
    torn: int
    blank: bool


def members_in(file: BinaryIO, identity: str, courtesy: Courtesy) -> Found:
    """What the journal of this identity holds, in constant memory but for the numbers."""
    contents = Contents()
    blank = True
    reader = FrameReader(identity)
    for data in read_slices(file):
        courtesy.step_back()
        blank = blank and not data.strip(b"\0")
        for frame in reader.feed(data):
            contents.add(frame)
    for frame in reader.finish():
        contents.add(frame)
    return Found(contents, reader.damaged, reader.torn, blank)


def pieces(descriptor: int, members: Members) -> Iterable[bytes]:
    """A tenant's members, one after the other, read where they lie."""
    for offset, length in zip(members.offsets, members.lengths, strict=True):
        data = os.pread(descriptor, length, offset)
        if len(data) != length:
            message = f"{length} bytes at {offset} were there and are not"
            raise OSError(message)
        yield data


def packed(members: Iterable[bytes], *, fast: bool = False) -> Iterable[bytes]:
    """The same content as one member, as small as `gzip -6` makes it, or made fast; in constant memory."""
    packer = deflate.packer(fast=fast)
    for member in members:
        reader = deflate.decompressor()
        data = member
        while not reader.eof:
            yield packer.compress(reader.decompress(data, _PACK_SLICE_BYTES))  # often nothing yet; then others may go
            data = reader.unconsumed_tail
    yield packer.flush()
