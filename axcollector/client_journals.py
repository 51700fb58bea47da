"""The journals of a client's spool: what is in them, how far they were sent, and what was refused. Blocking.

    {directory}/lock, instance_id, starts        as in a collector's data directory (`premises`)
    {directory}/batches/tmp/{journal}.journal    frames: their tenant is the scope, their lines the records as given
    {directory}/batches/tmp/{journal}.sent       which frames of it were taken: 8 bytes each, number and CRC
    {directory}/refused/{journal}-{frame}.jsonl  records that collectors refuse, each with scope, code and reason
    {directory}/unreadable/{journal}.journal     journals with damage, whose other frames were sent

A `.sent` file is not synced: a killed process loses nothing of it, and after a power loss frames are sent twice. Its
CRCs begin with the journal's identity, so that zeros or stale blocks, which a power loss may leave, say nothing. It is
not needed while the process lives, which remembers what was sent: on a disk that others have filled a spool empties.
"""

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from axcollector.core import deflate
from axcollector.core.frames import Frame, FrameReader
from axcollector.core.layout import JOURNAL_SUFFIX, JournalName, split_tenant_directory
from axcollector.directories import DurableDirectories
from axcollector.disk import AppendFile, Disk, read_slices, write_durably
from axcollector.reserve import SplitReserve

SENT_SUFFIX: Final = ".sent"
MARGIN_BYTES: Final = 1 << 18
_ENTRY: Final = struct.Struct(">II")
_KEPT: Final = "kept"


class Refused(msgspec.Struct, frozen=True):
    """A record that collectors refuse.

    Attributes:
        scope: Its scope.
        code: The `errorCode`.
        reason: What they say.
        record: Its text, as far as that is UTF-8.
    """

    scope: str
    code: str
    reason: str
    record: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Records of one scope that are to be sent, in one frame or what is left of it.

    Attributes:
        scope: The scope.
        sequence: The frame's number.
        member: The records' lines, packed.
    """

    scope: str
    sequence: int
    member: bytes

    def texts(self) -> Sequence[bytes]:
        """The records."""
        return deflate.decompressor().decompress(self.member).split(b"\n")[:-1]


class Quota(SplitReserve):
    """How much lies in a client's spool, by journal, and how much may."""

    def __init__(self, disk: Disk, directory: str, limit_bytes: int) -> None:
        super().__init__(disk, directory)
        self._limit = limit_bytes

    def note(self, identity: str, size: int, tenants: int) -> None:  # noqa: ARG002 - nothing of it is written again
        """A journal has so many bytes."""
        self.note_need(identity, size)

    def note_kept(self, size: int) -> None:
        """So many bytes more lie there for good: refused or unreadable."""
        self.note_need(_KEPT, self.needs.get(_KEPT, 0) + size)

    @property
    def journals(self) -> Sequence[str]:
        """The identities of the journals that something is in."""
        return [identity for identity in self.needs if identity != _KEPT]

    def check(self, size: int, tenants: int) -> None:  # noqa: ARG002 - likewise
        """Refuse a commit of so many bytes for which there is no room.

        Raises:
            OSError: There is none; nothing was written.
        """
        if self.needed + size > self._limit:
            raise OSError(errno.EDQUOT, "The client's spool is full (spool_bytes)")
        if self._disk.free_bytes(self._directory) < size + MARGIN_BYTES:
            raise OSError(errno.ENOSPC, "No space left on the disk of the client's spool")


class SentJournals:
    """Reads journals and keeps how far they were sent; one at a time."""

    def __init__(self, disk: Disk, directory: str, kept_directory: str, quota: Quota) -> None:
        """Prepare.

        Args:
            disk: The hands.
            directory: Where the journals are.
            kept_directory: Where what is refused or unreadable goes, to directories of these names.
            quota: Knows the journals.
        """
        self._disk = disk
        self._directory = directory
        self._refused_directory = os.path.join(kept_directory, "refused")
        self._unreadable_directory = os.path.join(kept_directory, "unreadable")
        self._quota = quota
        self._notes: AppendFile | None = None
        self._sent_since: dict[str, set[int]] = {}  # by journal, since the start

    def prepare(self) -> None:
        """Find what the last run left."""
        names = self._disk.names(self._directory)
        self._quota.note_found(self._directory)
        for name in names:
            if name.endswith(SENT_SUFFIX) and name.removesuffix(SENT_SUFFIX) + JOURNAL_SUFFIX not in names:
                self._disk.unlink(os.path.join(self._directory, name))
        for directory in (self._refused_directory, self._unreadable_directory):
            DurableDirectories(self._disk).ensure(directory)
            for name in self._disk.names(directory):
                self._quota.note_kept(self._disk.size(os.path.join(directory, name)))

    def _path(self, identity: str, suffix: str) -> str:
        return os.path.join(self._directory, identity + suffix)

    def open(self, identity: str) -> tuple[Sequence[Waiting], int]:
        """What is to be sent of a journal, in order, and how many bytes of it are damaged."""
        self.close()
        sent = self._sent(identity) | self._sent_since.setdefault(identity, set())
        reader = FrameReader(identity)
        waiting = []
        with self._disk.open(self._path(identity, JOURNAL_SUFFIX)) as file:
            for frame in _frames(reader, read_slices(file)):
                if frame.sequence not in sent:
                    scope, _ = split_tenant_directory(frame.tenant)
                    waiting.append(Waiting(scope, frame.sequence, frame.member))
        self._begin_notes(identity, sent)
        return waiting, reader.damaged

    def _sent(self, identity: str) -> set[int]:
        seed = zlib.crc32(identity.encode())
        try:
            with self._disk.open(self._path(identity, SENT_SUFFIX)) as file:
                notes = b"".join(read_slices(file))
        except FileNotFoundError:
            return set()
        whole = len(notes) // _ENTRY.size * _ENTRY.size
        return {number for number, crc in _ENTRY.iter_unpack(notes[:whole]) if crc == _crc(number, seed)}

    def _begin_notes(self, identity: str, sent: set[int]) -> None:
        """Begin the notes anew with what is known, so that none is appended to a torn one; or do without."""
        path = self._path(identity, SENT_SUFFIX)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(path + ".new")
            self._notes = self._disk.create(path + ".new")
            for number in sorted(sent):
                self._notes.write(_entry(identity, number))
            self._disk.rename(path + ".new", path)
        except OSError:
            self.close()

    def _note(self, identity: str, number: int) -> None:
        """Note that a frame was sent, where that can be written: else, should we be killed, it is sent twice."""
        self._sent_since.setdefault(identity, set()).add(number)
        try:
            if self._notes is not None:
                self._notes.write(_entry(identity, number))
        except OSError:
            self.close()

    def finish(self, identity: str, waiting: Waiting, refused: Sequence[Refused]) -> None:
        """Something has been sent, but for these records, which are kept elsewhere first.

        Raises:
            OSError: They cannot be.
        """
        if refused:
            content = b"".join(msgspec.json.encode(each) + b"\n" for each in refused)
            name = f"{identity}-{waiting.sequence}.jsonl"
            write_durably(self._disk, os.path.join(self._refused_directory, name), content)
            self._quota.note_kept(len(content))
        self._note(identity, waiting.sequence)

    def close(self) -> None:
        """Go on with it another time, or with another."""
        notes, self._notes = self._notes, None
        if notes is not None:
            notes.close()

    def remove(self, identity: str, *, is_damaged: bool = False) -> None:
        """All that can be read of it has been sent; where that is not all, what it is stays for somebody to look at."""
        self.close()
        path = self._path(identity, JOURNAL_SUFFIX)
        with contextlib.suppress(FileNotFoundError):  # somebody else has removed it
            if is_damaged:
                size = self._disk.size(path)
                self._disk.rename(path, os.path.join(self._unreadable_directory, identity + JOURNAL_SUFFIX))
                self._quota.note_kept(size)
            else:
                self._disk.unlink(path)
        self._quota.forget(identity)
        self._sent_since.pop(identity, None)
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(self._path(identity, SENT_SUFFIX))
        self._disk.sync_directory(self._directory)


def order_of(identity: str) -> tuple[int, int]:
    """What sorts journals in the order in which they were written, however the clock was set."""
    name, _ = JournalName.parse(identity + JOURNAL_SUFFIX)
    return name.starts, name.sequence


def _entry(identity: str, number: int) -> bytes:
    return _ENTRY.pack(number, _crc(number, zlib.crc32(identity.encode())))


def _crc(number: int, seed: int) -> int:
    return zlib.crc32(b"%d" % number, seed)


def _frames(reader: FrameReader, slices: Iterator[bytes]) -> Iterator[Frame]:
    for data in slices:
        yield from reader.feed(data)
    yield from reader.finish()
