"""What lies in the stages that nobody else counts: how much, since when. Blocking.

Of `staging` the uploader knows it. The others are looked at here, a slice at a time, for a thread of its own: there may
be 100,000 buckets in `failed`. A directory is measured once, and again when a name in it has come or gone. A long stage
in which nothing came or went is looked at less often.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import Final

import msgspec

from axcollector.buckets import parse_bucket
from axcollector.core.layout import JOURNAL_SUFFIX, QUARANTINE, JournalName, ReferenceName, Stage
from axcollector.core.status import FailedBucket, StageStatus
from axcollector.disk import Disk
from axcollector.room import sizes_below

SLICE: Final = 250
"""So many names are looked at in one step: some milliseconds."""
LISTED: Final = 1000
"""So many buckets of `failed` are told one by one."""
_PASSES_BETWEEN: Final = 30
"""A long stage whose directory has not changed is looked at anew after so many passes that it was spared."""
_ORDER: Final = (Stage.TMP, Stage.RECOVERED, Stage.FAILED, QUARANTINE)


class Stages:
    """Looks at the stages, step by step; what it has found is a whole look's, and may be read in any thread.

    Attributes:
        found: What lies in each stage, by its name.
        failed: Buckets in `failed`, the oldest first, at most `LISTED`; their reasons are not known here.
    """

    def __init__(self, disk: Disk, data_directory: str) -> None:
        """Nothing is looked at yet."""
        self._looks = {name: _Look(disk, os.path.join(data_directory, name), name) for name in _ORDER}
        self._left: list[_Look] = []
        self.found: Mapping[str, StageStatus] = {name: StageStatus(name=name) for name in _ORDER}
        self.failed: Sequence[FailedBucket] = ()

    def step(self) -> bool:
        """Look at some; whether that was all.

        Of a stage that cannot be read, what was found before stays; `Room` tells of the trouble.
        """
        if not self._left:
            self._left = list(self._looks.values())
        look = self._left[-1]
        try:
            is_over = look.is_over_with_step()
        except OSError:
            self._left.pop()
            return not self._left
        if is_over:
            self._left.pop()
            self.found = {**self.found, look.name: look.status()}
            if look.name == Stage.FAILED and look.has_changed:
                self.failed = look.oldest(LISTED)
        return not self._left


class _Entry(msgspec.Struct, gc=False):
    """A bucket, or a journal: since when, how large, when its directory last changed, and in which pass it was seen.

    There may be 100,000, and the garbage collector, which stops everybody while it looks, sees none of them.
    """

    start: int
    size: int
    changed: int
    seen: int = 0


class _Look:
    """Looks at one stage."""

    def __init__(self, disk: Disk, directory: str, name: str) -> None:
        self._disk = disk
        self._directory = directory
        self._entries: dict[str, _Entry] = {}
        self._names: list[str] | None = None
        self._pass = 0
        self._changed = -1
        self._spared = 0
        self.name = name
        self.has_changed = False

    def is_over_with_step(self) -> bool:
        """Look at the next names; whether that was all."""
        if self._names is None:
            if self._may_be_spared():
                return True
            self._names = self._listed()
            self._pass += 1
        for _ in range(min(SLICE, len(self._names))):
            self._look_at(self._names.pop())
        if self._names:
            return False
        self._names = None
        for name in [name for name, entry in self._entries.items() if entry.seen != self._pass]:
            self.has_changed = True
            del self._entries[name]
        return True

    def _listed(self) -> list[str]:
        try:
            return self._disk.unsorted_names(self._directory)
        except FileNotFoundError:
            return []

    def _may_be_spared(self) -> bool:
        """Whether it is long, and nothing has come or gone since it was looked at; not too often."""
        try:
            changed = os.lstat(self._directory).st_mtime_ns
        except FileNotFoundError:
            changed = 0
        is_same, self._changed = changed == self._changed, changed
        self._spared += 1
        self.has_changed = False
        if is_same and len(self._entries) > SLICE and self._spared < _PASSES_BETWEEN:
            return True
        self._spared = 0
        return False

    def _look_at(self, name: str) -> None:
        known = self._entries.get(name)
        with contextlib.suppress(OSError, ValueError):  # it is gone, or none of ours
            facts = os.lstat(os.path.join(self._directory, name))
            is_directory = stat.S_ISDIR(facts.st_mode)
            if known is None or not is_directory or known.changed != facts.st_mtime_ns:
                start = known.start if known is not None else _start_of(self._directory, name)
                size = sum(sizes_below(os.path.join(self._directory, name))) if is_directory else facts.st_size
                known = self._entries[name] = _Entry(start, size, facts.st_mtime_ns)
                self.has_changed = True
            known.seen = self._pass

    def status(self) -> StageStatus:
        """What was found."""
        sizes = sum(entry.size for entry in self._entries.values())
        oldest = min((entry.start for entry in self._entries.values()), default=None)
        return StageStatus(name=self.name, buckets=len(self._entries), bytes=sizes, oldest_at=oldest)

    def oldest(self, limit: int) -> Sequence[FailedBucket]:
        """The oldest buckets."""
        entries: Iterable[tuple[str, _Entry]] = self._entries.items()
        found = nsmallest(limit, ((entry.start, name, entry.size) for name, entry in entries))
        return [FailedBucket(name, size) for _, name, size in found]


def _start_of(directory: str, name: str) -> int:
    """When the interval of what lies in a stage began.

    Raises:
        ValueError: It is nothing that is counted there: of a journal and its split the journal alone is.
    """
    stage = os.path.basename(directory)
    if stage not in (Stage.TMP, Stage.RECOVERED):
        return parse_bucket(name)[0]
    try:
        journal, suffix = JournalName.parse(name)
    except ValueError:
        if stage == Stage.TMP:
            raise
        return ReferenceName.parse(name)[0].bucket.start
    if suffix != JOURNAL_SUFFIX and os.path.lexists(os.path.join(directory, journal.journal)):
        raise ValueError(name)
    return journal.interval.start
