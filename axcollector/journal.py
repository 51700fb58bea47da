"""The journal's writer: the writer thread's side of the spool. It owns the open journal and alone touches it.

A journal takes the batches of one interval, told by the wall clock at the commit. When the interval changes, when it
is full or when a write fails, it is finished, and it stays where it is until the splitter takes it. While it is written
it is locked, so that the splitter, which may be another process's, can tell: the lock goes when the journal is closed,
or when whoever wrote it has ended, however he did.

A failed write or fsync is the end of its journal: the kernel may have dropped the pages it could not write, so nothing
written to that file later could be trusted. It is cut back to its last acknowledged byte.
"""

import contextlib
import enum
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from axcollector.core import deflate, frames
from axcollector.core.layout import JournalName, tenant_directory
from axcollector.core.model import Batch, Interval, Tenant
from axcollector.disk import AppendFile, Disk
from axcollector.quarantine import Quarantine
from axcollector.reserve import SplitReserve

_TRIES = 3
"""So many names are tried for a journal: the splitter may take a new one for a finished one before it is locked."""
_TENANTS_KEPT = 1 << 14
"""The names of so many tenants' files are kept; each is 0.3 kB. Fewer would be of no use to more tenants in turn."""
FRAME_LINES_BYTES = 1 << 22
"""So many bytes of lines go into one member; a commit of more makes several, a batch is never divided."""


class Durability(enum.StrEnum):
    """What an acknowledgement means."""

    FSYNC = "fsync"
    WRITE = "write"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class JournalPlan:
    """What journals are to be like.

    Attributes:
        directory: Where they are made (`tmp`).
        instance_id: Part of their names.
        starts: Likewise.
        worker: Likewise.
        interval_seconds: How long an interval is.
        max_bytes: A journal that has reached this gets no further batch.
        durability: Whether to fsync.
    """

    directory: str
    instance_id: str
    starts: int
    interval_seconds: int
    max_bytes: int
    durability: Durability = Durability.FSYNC
    worker: int = 0


@dataclass(slots=True)
class _Journal:
    name: JournalName
    file: AppendFile
    size: int = 0  # acknowledged bytes
    frames: int = 0
    named: bool = False  # whether its directory entry is durable
    tenants: set[str] = field(default_factory=set)


class JournalWriter:
    """The writer thread's side: the one open journal. Blocking; not for two threads at once.

    Attributes:
        open_name: The name of the journal that is written.
    """

    open_name: str | None = None

    def __init__(
        self, disk: Disk, plan: JournalPlan, reserve: SplitReserve | None = None, quarantine: Quarantine | None = None
    ) -> None:
        """No journal is open yet.

        Args:
            disk: The hands.
            plan: What journals are to be like.
            reserve: Keeps room for their splits, or None: nobody does.
            quarantine: Is told how much of a journal was set aside.
        """
        self._disk = disk
        self._plan = plan
        self._reserve = reserve or SplitReserve(disk, plan.directory)
        self._quarantine = quarantine or Quarantine(plan.directory)
        self._journal: _Journal | None = None
        self._made = 0

    @property
    def open_buckets(self) -> int:
        """How many buckets the open journal will make; of any thread."""
        journal = self._journal
        return 0 if journal is None else len(journal.tenants)

    def write(self, batches: Sequence[Batch], now: float) -> None:
        """Append the batches, so durably as the plan says, to the journal of the interval that `now` lies in.

        Raises:
            OSError: None of them is kept.
        """
        members = [_Member.of(gathered) for gathered in _gathered(batches)]
        self._reserve.check(sum(len(each.lines) + len(each.aside) for each in members), len(members))
        interval = Interval.containing(now, self._plan.interval_seconds)
        if self._journal is not None and (
            self._journal.name.interval != interval or self._journal.size >= self._plan.max_bytes
        ):
            self.finish()
        journal = self._journal or self._create(interval)
        try:
            self._append(journal, members)
        except BaseException:
            self._abandon(journal)
            raise

    def _create(self, interval: Interval) -> _Journal:
        for _ in range(_TRIES):
            name = JournalName(interval, self._plan.instance_id, self._plan.starts, self._plan.worker, self._made)
            self._made += 1  # also when it fails: a name is never used twice
            file = self._disk.create(os.path.join(self._plan.directory, name.journal))
            if _is_ours(file):
                self.open_name = name.journal
                self._journal = _Journal(name, file)
                return self._journal
            file.close()
        raise OSError(errno.EAGAIN, "New journals are taken away before they can be written")

    def _append(self, journal: _Journal, members: "Sequence[_Member]") -> None:
        identity = journal.name.identity
        data = b"".join(
            frames.write(identity, sequence, each.tenant, each.count, each.lines, each.aside, each.aside_count)
            for sequence, each in enumerate(members, journal.frames)
        )
        journal.file.write(data)
        if self._plan.durability is Durability.FSYNC:
            journal.file.sync()
            if not journal.named:
                self._disk.sync_directory(self._plan.directory)
                journal.named = True
        if not journal.file.is_linked():
            raise OSError(errno.ENOENT, "The journal was removed while it was written")
        journal.size += len(data)
        journal.frames += len(members)
        for each in members:
            journal.tenants.update(each.files)
        self._reserve.note(identity, journal.size, len(journal.tenants))
        if aside := sum(len(each.aside) for each in members):
            self._quarantine.note(identity, aside)

    def _abandon(self, journal: _Journal) -> None:
        """Cut a journal whose write failed back to what was acknowledged, and never write it again."""
        with contextlib.suppress(OSError):
            journal.file.truncate(journal.size)
        with contextlib.suppress(OSError):
            self.finish()

    def finish(self) -> None:
        """Close the open journal, if there is one; it is the splitter's from then on."""
        journal, self._journal = self._journal, None
        try:
            if journal is not None:
                journal.file.close()
        finally:
            self.open_name = None

    def finish_over(self, now: float) -> None:
        """Close the open journal if `now` is not in its interval."""
        interval = Interval.containing(now, self._plan.interval_seconds)
        if self._journal is not None and self._journal.name.interval != interval:
            self.finish()


def _is_ours(file: AppendFile) -> bool:
    """Lock a new journal. Whether it was not taken for finished before; then it may be gone, or is going."""
    try:
        return file.lock() and file.is_linked()
    except BaseException:
        file.close()
        raise


@dataclass(slots=True)
class _Gathering:
    """Batches of one tenant that go into one frame."""

    tenant: str
    lines: list[bytes | bytearray] = field(default_factory=list)
    aside: list[bytes | bytearray] = field(default_factory=list)
    size: int = 0
    count: int = 0
    aside_count: int = 0

    def add(self, batch: Batch) -> None:
        """Put a batch into it."""
        if batch.count:
            self.lines.append(batch.lines)
            self.size += len(batch.lines)
            self.count += batch.count
        if batch.aside:
            self.aside.append(batch.aside)
            self.size += len(batch.aside)
            self.aside_count += batch.aside_count


@dataclass(frozen=True, slots=True)
class _Member:
    """What a frame is made of."""

    tenant: str
    count: int
    lines: bytes
    aside_count: int
    aside: bytes

    @classmethod
    def of(cls, gathered: _Gathering) -> "_Member":
        """Compressed."""
        lines = deflate.member_of(gathered.lines) if gathered.lines else b""
        aside = deflate.member_of(gathered.aside) if gathered.aside else b""
        return cls(gathered.tenant, gathered.count, lines, gathered.aside_count, aside)

    @property
    def files(self) -> Sequence[str]:
        """Names for the files that it will need when its journal is split."""
        return [name for name, part in ((self.tenant, self.lines), (self.tenant + "/aside", self.aside)) if part]


@lru_cache(maxsize=_TENANTS_KEPT)
def _directory_of(tenant: Tenant) -> str:
    return tenant_directory(tenant.organization, tenant.environment)


def _gathered(batches: Sequence[Batch]) -> list[_Gathering]:
    """What goes into each frame that these batches make, none of them divided."""
    done: list[_Gathering] = []
    open_frames: dict[str, _Gathering] = {}
    for batch in batches:
        tenant = _directory_of(batch.tenant)
        gathering = open_frames.get(tenant)
        if gathering is not None and gathering.size + batch.size_bytes > FRAME_LINES_BYTES:
            done.append(gathering)
            gathering = None
        if gathering is None:
            gathering = open_frames[tenant] = _Gathering(tenant)
        gathering.add(batch)
    return [*done, *open_frames.values()]
