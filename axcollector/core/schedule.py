"""Which staged file is uploaded next: oldest first, fairly between tenants, each bucket's tries counted.

A backlog may be of any length; this knows a window of it, which `add` extends when it runs low. A *sweep* begins with
`refresh`; between sweeps each upload that ends makes room for the next one.

* Tenants take turns, those not served for longest first; within a tenant the oldest bucket goes first.
* No tenant holds more than half of the slots (but at least one), so another's newest file waits for nobody's backlog.
* A tenant that may not go at present is set aside, and asked again when told (`resume`). At the next sweep its files
  are dropped, to be added in their turn: those who must wait fill no window for ever.
* A file is tried at most once a sweep. A bucket's failures count as one attempt a sweep, however many of its files
  fail; its other files get their try all the same, so that one bad file holds up nothing.
* A bucket with too many attempts is exhausted once none of its files is under way or waiting for its try; whoever
  then takes it away says so (`give_up`, `forget`).

Pure: this only decides; what it knows of the disk is what it was told. A tenant with waiting files is in line, or set
aside, or holds as many slots as it may.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

_SWEEPS_REMEMBERED: Final = 1000
"""Attempts of a bucket that has not failed for so many sweeps are forgotten: it has vanished, or waits in a pause."""


@dataclass(frozen=True, slots=True, order=True)
class StagedFile:
    """A file that waits in staging; they sort oldest first.

    Attributes:
        start: The start of its bucket's interval, in seconds since the epoch.
        bucket: The name of its bucket's directory.
        name: Its own name.
        tenant: Its tenant, as `layout.tenant_directory`.
        size: Bytes.
    """

    start: int
    bucket: str
    name: str
    tenant: str
    size: int


_Key = tuple[str, str]
"""Bucket and name: what tells files apart."""


@dataclass(slots=True)
class _Tries:
    """A bucket's failed attempts, and the sweep in which the last one was counted."""

    attempts: int = 0
    counted_in: int = 0


class Schedule:
    """The queue, the slots and the attempts."""

    def __init__(self, concurrency: int, max_attempts: int) -> None:
        """Begin empty.

        Args:
            concurrency: How many slots there are: files that may be under way at once.
            max_attempts: After how many failed attempts a bucket is exhausted.
        """
        self._slots = concurrency
        self._slots_of_one = max(1, concurrency // 2)
        self._max_attempts = max_attempts
        self._sweep = 0
        self._queues: dict[str, list[StagedFile]] = {}
        self._in_line: OrderedDict[str, None] = OrderedDict()
        self._aside: set[str] = set()
        self._ready = 0
        self._last_turn: dict[str, int] = {}
        self._turn = 0
        self._waiting: set[_Key] = set()
        self._under_way: dict[_Key, int] = {}
        self._tried: set[_Key] = set()
        self._held_by_tenant: Counter[str] = Counter()
        self._open_in_bucket: Counter[str] = Counter()
        self._tries: dict[str, _Tries] = {}
        self._leaving: set[str] = set()

    @property
    def in_flight(self) -> int:
        """How many files are under way."""
        return len(self._under_way)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, nothing waits, and no bucket is being taken away."""
        return not (self._under_way or self._waiting or self._leaving)

    @property
    def waiting(self) -> int:
        """How many files wait, whether they could go or not."""
        return len(self._waiting)

    @property
    def ready(self) -> int:
        """How many files wait whose tenants could go now, as far as is known."""
        return self._ready

    def supplied(self, files: int) -> frozenset[str]:
        """The tenants that need no more files at present: so many wait already, or they are set aside."""
        return frozenset(tenant for tenant, queue in self._queues.items() if len(queue) >= files) | self._aside

    def refresh(self) -> None:
        """A sweep begins: what was tried, and all of those who were set aside, may be added again."""
        self._sweep += 1
        self._tried.clear()
        for tenant in self._aside:
            for file in self._queues.pop(tenant):
                self._waiting.remove((file.bucket, file.name))
                _decrease(self._open_in_bucket, file.bucket)
        self._aside.clear()
        tenants = self._queues.keys() | self._held_by_tenant.keys()
        self._last_turn = {tenant: turn for tenant, turn in self._last_turn.items() if tenant in tenants}
        if self._sweep % _SWEEPS_REMEMBERED == 0:
            oldest = self._sweep - _SWEEPS_REMEMBERED
            self._tries = {bucket: tries for bucket, tries in self._tries.items() if tries.counted_in > oldest}

    def resume(self) -> None:
        """Ask those who were set aside again."""
        tenants, self._aside = self._aside, set()
        self._line_up(tenants)

    def add(self, files: Iterable[StagedFile]) -> None:
        """These files lie in staging; those that are known already do not count."""
        newcomers = []
        for file in files:
            key = file.bucket, file.name
            if file.bucket in self._leaving or key in self._waiting or key in self._under_way or key in self._tried:
                continue
            if file.tenant not in self._queues:
                self._queues[file.tenant] = []
                newcomers.append(file.tenant)
            heappush(self._queues[file.tenant], file)
            self._ready += file.tenant in self._in_line
            self._waiting.add(key)
            self._open_in_bucket[file.bucket] += 1
        self._line_up(newcomers)

    def _line_up(self, tenants: Iterable[str]) -> None:
        """Let tenants with waiting files take turns from now on, unless they hold as many slots as they may."""
        for tenant in sorted(tenants, key=lambda tenant: (self._last_turn.get(tenant, 0), self._queues[tenant][0])):
            if self._held_by_tenant[tenant] < self._slots_of_one:
                self._in_line[tenant] = None
                self._ready += len(self._queues[tenant])

    def next(self, may_go: Callable[[str], bool]) -> StagedFile | None:
        """The file to upload next, which hereby has a slot, or None where none may go now.

        Args:
            may_go: Whether a tenant's files may go at present (nobody they need is paused).
        """
        while self._in_line and self.in_flight < self._slots:
            tenant, _ = self._in_line.popitem(last=False)
            self._ready -= len(self._queues[tenant])
            if may_go(tenant):
                return self._take(tenant)
            self._aside.add(tenant)
        return None

    def _take(self, tenant: str) -> StagedFile:
        queue = self._queues[tenant]
        file = heappop(queue)
        self._turn += 1
        self._last_turn[tenant] = self._turn
        self._waiting.remove((file.bucket, file.name))
        self._under_way[file.bucket, file.name] = self._sweep
        self._held_by_tenant[tenant] += 1
        if queue:
            self._line_up([tenant])
        else:
            del self._queues[tenant]
        return file

    def delivered(self, file: StagedFile) -> None:
        """The file has been uploaded and is no longer in staging, or has vanished from there."""
        self._release(file)

    def postpone(self, file: StagedFile) -> None:
        """The file's upload came to no end, which is no attempt: it waits for the next sweep."""
        self._release(file)
        self._tried.add((file.bucket, file.name))

    def failed(self, file: StagedFile) -> int:
        """The file's upload failed: it waits for the next sweep. Returns its bucket's attempts so far."""
        begun = self._release(file)
        self._tried.add((file.bucket, file.name))
        tries = self._tries.setdefault(file.bucket, _Tries())
        if begun > tries.counted_in:
            tries.attempts += 1
            tries.counted_in = self._sweep
        return tries.attempts

    def attempts(self, bucket: str) -> int:
        """How many of a bucket's attempts have failed."""
        return self._tries[bucket].attempts if bucket in self._tries else 0

    def _release(self, file: StagedFile) -> int:
        """Take a file's slot back. Returns the sweep in which its upload began."""
        was_full = self._held_by_tenant[file.tenant] >= self._slots_of_one
        _decrease(self._held_by_tenant, file.tenant)
        _decrease(self._open_in_bucket, file.bucket)
        if was_full and file.tenant in self._queues:
            self._line_up([file.tenant])
        return self._under_way.pop((file.bucket, file.name))

    def exhausted(self, bucket: str) -> bool:
        """Whether a bucket has failed too often, and nothing of it is under way or waits for its try."""
        return self.attempts(bucket) >= self._max_attempts and not self._open_in_bucket[bucket]

    def give_up(self, bucket: str) -> None:
        """A bucket is being taken out of staging: until `forget`, none of its files is taken up."""
        self._leaving.add(bucket)

    def forget(self, bucket: str) -> None:
        """A bucket has been taken out of staging; should it come back, it begins with no attempts."""
        self._leaving.discard(bucket)
        self._tries.pop(bucket, None)


def _decrease(counter: Counter[str], key: str) -> None:
    """Count one less, and keep no zeros: the tables are as long as what is going on."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
