"""Power lost and processes killed at every step of what the service does to its disk.

A script of all that happens to batches (commit, closing, split, move to staging, delivery, deletion, failed and back,
take-over, recovery; several starts) runs once over a `CrashableDisk`. Then, for each step of its log and several
losses, the directory is made as a power loss there leaves it, a process is started on it, everything is drained into
the store, and the delivery contract is checked: what was acknowledged before the cut is delivered once, in its tenant's
place; what was not is there once, whole, or not at all; there is nothing else, and no name stands for two contents.
What was set aside of a batch lies in `quarantine/` with the same certainty: it is there exactly when the rest of its
batch is delivered.

What is delivered to a store elsewhere stays delivered; a store in a directory loses power with the rest.
"""

import errno
import gzip
import os
import random
import shutil
import tempfile
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeVar

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from axcollector.closing import Closing
from axcollector.core.commit import GroupCommit
from axcollector.core.errors import EndpointUnavailable, SpoolFailed, UploadFailed
from axcollector.core.layout import QUARANTINE, RECOVERED_MARK, UNREADABLE, Stage, tenant_directory
from axcollector.core.model import Batch, Tenant
from axcollector.disk import AppendFile
from axcollector.journal import Durability, JournalPlan, JournalWriter
from axcollector.premises import Premises
from axcollector.splitter import Splitter
from axcollector.spool import Spool
from axcollector.stores.base import Store
from axcollector.stores.directory import DirectoryStore
from axcollector.takeover import take_over
from axcollector.uploader import Uploader
from tests.crashable import (
    EMPTIED,
    EVERYTHING,
    NOTHING,
    Change,
    CrashableDisk,
    CrashableFile,
    Loss,
    Named,
    Synced,
    losses,
    write_state,
)
from tests.effort import THOROUGH, either
from tests.fake_stores import MemoryStore
from tests.fakes import SameThread, result_of

T = TypeVar("T")

TENANTS: Final = [Tenant("1", "acme", "prod"), Tenant("1", "acme", "te~st"), Tenant("2", "zoo", "..")]
NAMES: Final = [tenant_directory(tenant.organization, tenant.environment) for tenant in TENANTS]
NOW: Final = 1_480_000_000.0
INTERVAL: Final = 10
GRACE: Final = 2
SWEEP: Final = 5
MANY: Final = either(40, 6)
BAD_OF_FOUR: Final = {1, 2}
"""Of four batches these have records that are set aside."""
ALL_BAD_OF_TWELVE: Final = {5}
"""And of twelve this one has no others."""
TAKE_OVERS: Final = [(f"ax/tmp/4.{what}", f"ax/recovered/4.{what}") for what in ("journal", "split")]
STORES: Final = ["elsewhere", "directory"]


@dataclass
class Ledger:
    """What clients and the store know, and since which step of the disk's log.

    Attributes:
        sent: Tenant and lines of each batch, but those that were set aside.
        aside: Tenant and lines that were set aside of some of them.
        acknowledged: Since when a batch has its answer.
        deliveries: Each file that the store has said to have: since when, tenant, key, lines.
        starts: The largest count of starts that was in use, and since when it was.
        identity: The instance id in use, likewise.
    """

    sent: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    aside: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    deliveries: list[tuple[int, str, str, tuple[str, ...]]] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    identity: list[tuple[int, str]] = field(default_factory=list)

    def until(self, step: int, *, is_old: bool = False) -> "Ledger":
        """What was known at a cut there; with `is_old`, as known before the first step of another log."""

        def when(at: int) -> int:
            return 0 if is_old else at

        return Ledger(
            dict(self.sent),
            dict(self.aside),
            {batch: when(at) for batch, at in self.acknowledged.items() if at <= step},
            [(when(at), *delivery) for at, *delivery in self.deliveries if at <= step],
            [(when(at), starts) for at, starts in self.starts if at <= step],
            [(when(at), identity) for at, identity in self.identity if at <= step],
        )


class NotingStore:
    """A `Store` before another that notes what was delivered; can be switched off, or told to refuse tenants."""

    def __init__(self, inner: Store, disk: CrashableDisk, ledger: Ledger) -> None:
        self.inner = inner
        self.up = True
        self.refused: set[str] = set()
        self._disk = disk
        self._ledger = ledger

    def put(self, tenant: str, key: str, path: str) -> "defer.Deferred[None]":
        """Hand it on, unless told otherwise."""
        if not self.up:
            return defer.fail(EndpointUnavailable("store", "it is down", 1))
        if tenant in self.refused:
            return defer.fail(UploadFailed("no"))
        with open(path, "rb") as file:
            lines = lines_of(file.read())
        return self.inner.put(tenant, key, path).addCallback(self._note, tenant, key, lines)

    def _note(self, _: object, tenant: str, key: str, lines: tuple[str, ...]) -> None:
        self._ledger.deliveries.append((len(self._disk.log), tenant, key, lines))

    def authorities(self, tenant: str) -> tuple[str, ...]:
        """One."""
        return ("store",)

    def close(self) -> "defer.Deferred[None]":
        """Nothing to do."""
        return defer.succeed(None)


def lines_of(content: bytes) -> tuple[str, ...]:
    """The lines of a whole gzip file."""
    try:
        lines = tuple(gzip.decompress(content).decode().splitlines())
    except (EOFError, OSError, zlib.error) as exc:
        message = "contract: a torn file"
        raise AssertionError(message) from exc
    assert lines, "contract: an empty file"
    return lines


class GatheringThread(SameThread):
    """Runs everything at once, unless it is held: then when it is let go."""

    def __init__(self) -> None:
        self.held: list[Callable[[], object]] | None = None

    def run(self, function: Callable[..., T], *arguments: object) -> "defer.Deferred[T]":
        """Now or later."""
        if self.held is None:
            return super().run(function, *arguments)
        result: defer.Deferred[T] = defer.Deferred()
        self.held.append(lambda: defer.maybeDeferred(function, *arguments).chainDeferred(result))
        return result

    def let_go(self) -> None:
        """Run what was held back, and what comes from it."""
        jobs, self.held = self.held or [], None
        for job in jobs:
            job()


class Process:
    """A process of the service, from its start to its end, whichever."""

    def __init__(self, disk: CrashableDisk, ledger: Ledger, kind: str, now: float) -> None:
        self.disk = disk
        self.ledger = ledger
        self.clock = Clock()
        self.clock.rightNow = now
        root = os.path.join(disk.root, "data")
        data = os.path.join(root, "ax")
        self.premises = Premises(disk, root, data)
        self.premises.acquire(None, lambda: f"instance-{now:.0f}", now)
        try:
            take_over(disk, data, now)
        except OSError:
            self.premises.release()
            raise
        ledger.starts.append((len(disk.log), self.premises.starts))
        ledger.identity.append((len(disk.log), self.premises.instance_id))
        self.store = NotingStore(self._inner(kind, root), disk, ledger)
        self._put_together(data)

    def _inner(self, kind: str, root: str) -> Store:
        if kind == "elsewhere":
            return MemoryStore()
        return DirectoryStore(SameThread(), self.disk, os.path.join(root, "store"))

    def _put_together(self, data: str) -> None:
        thread = SameThread()
        plan = JournalPlan(
            os.path.join(data, Stage.TMP),
            self.premises.instance_id,
            self.premises.starts,
            INTERVAL,
            max_bytes=400,
            durability=Durability.FSYNC,
        )
        writer = JournalWriter(self.disk, plan)
        self.writing = GatheringThread()
        self.spool = Spool(self.clock, self.writing, writer, GroupCommit(100, 1 << 20))
        splitter = Splitter(self.disk, data, Stage.TMP, pack_all=False)
        self.closing = Closing(self.clock, thread, self.spool, splitter, GRACE)
        self.recovery = Splitter(self.disk, data, Stage.RECOVERED, pack_all=True)
        self.uploader = Uploader(
            self.clock, thread, self.disk, self.store, data,
            interval_seconds=SWEEP, concurrency=4, max_attempts=2, failed_retry_batch=3, chance=lambda: 0.5,
        )  # fmt: skip

    def serve(self) -> "Process":
        """Begin to close intervals and to deliver."""
        self.uploader.startService()
        self.closing.startService()
        return self

    def send(self, *tenants: int) -> None:
        """A batch for each of them, all but the first in one commit."""
        self.clock.advance(0.01)  # so that the first waits for nobody who went with an earlier one
        self.writing.held = []
        for number in tenants:
            sent = len(self.ledger.sent)
            name = f"{self.premises.starts}.{sent}"
            lines = [f'{{"batch":"{name}","line":{i},"tenant":"{NAMES[number]}"}}' for i in range(1 + number)]
            aside = [f'{{"bad":"{name}"}}'] if sent % 4 in BAD_OF_FOUR else []
            lines = [] if sent % 12 in ALL_BAD_OF_TWELVE else lines
            self.ledger.sent[name] = NAMES[number], lines
            self.ledger.aside[name] = NAMES[number], aside
            batch = Batch(TENANTS[number], as_lines(lines), len(lines), as_lines(aside), len(aside))
            answer = self.spool.submit(batch).addCallback(self._acknowledge, name)
            answer.addErrback(lambda failure: failure.trap(SpoolFailed))
        self.writing.let_go()
        self.clock.advance(0.01)  # likewise those behind it

    def _acknowledge(self, _: object, name: str) -> None:
        self.ledger.acknowledged[name] = len(self.disk.log)

    def pass_time(self, seconds: float, times: int = 1) -> None:
        """Heartbeats, sweeps."""
        self.clock.pump([seconds] * times)

    def stop(self) -> None:
        """An ordered stop."""
        result_of(self.closing.stopService())
        result_of(self.uploader.stopService())
        self.premises.release()

    def die(self) -> None:
        """Be killed."""
        self.premises.release()


def as_lines(texts: list[str]) -> bytes:
    """As they stand in a batch."""
    return "".join(f"{text}\n" for text in texts).encode()


def started(disk: CrashableDisk, ledger: Ledger, kind: str, now: float) -> Process:
    """A process; where its start fails for a fault of the disk, the next one."""
    try:
        return Process(disk, ledger, kind, now)
    except OSError:
        return Process(disk, ledger, kind, now + 1)


def first_life(disk: CrashableDisk, kind: str) -> Ledger:
    """All that happens to batches, over three starts; the last process is killed."""
    ledger = Ledger()
    process = started(disk, ledger, kind, NOW).serve()
    process.send(0)
    process.send(1, 2, 0)
    process.store.up = False
    process.send(0, 0, 2, 2)  # fills the first journal, so that the interval gets a second
    process.send(0, 1, 2)
    process.pass_time(INTERVAL + GRACE)  # both are split, the second's files are added to the first's buckets
    process.store.up = True
    process.store.refused = {NAMES[2]}
    process.send(2)
    process.pass_time(SWEEP, 4)  # acme's are delivered, zoo's go to failed and come back, and again
    process.clock.rightNow -= 3 * INTERVAL
    process.send(2)  # for a bucket that was closed and given up already
    process.pass_time(SWEEP, 11)
    process.send(1, 2)
    process.store.refused = set()
    process.pass_time(SWEEP, 3)
    process.send(0, 2)
    process.stop()
    process = started(disk, ledger, kind, NOW + 100).serve()
    process.send(0, 1)
    process.store.up = False
    process.pass_time(INTERVAL + GRACE)
    process.send(1, 0, 2, 0, 2)  # fills a journal; both are left to the next
    process.send(0, 1, 2)
    process.die()
    return second_life(disk, ledger, kind, NOW + 200)


def second_life(disk: CrashableDisk, ledger: Ledger, kind: str, now: float) -> Ledger:
    """A start on what another left: recovery while new batches come, and both are delivered; then it is killed."""
    process = started(disk, ledger, kind, now)
    process.send(0, 2)
    process.recovery.work()
    process.send(1, 0)
    process.serve()
    process.pass_time(INTERVAL + GRACE)
    process.send(2)
    process.pass_time(SWEEP)
    process.die()
    return ledger


# The contract.


def check(disk: CrashableDisk, ledger: Ledger, kind: str) -> None:
    """Start a process on what a cut left, drain everything, and see that the contract was kept."""
    stored(disk)  # whoever reads it sees whole files at any time
    process = Process(disk, ledger, kind, NOW + 1000)
    if ledger.acknowledged:
        identities = {identity for _, identity in ledger.identity}
        assert identities == {process.premises.instance_id}, "contract: another instance id"
        starts = [starts for _, starts in ledger.starts]
        assert len(set(starts)) == len(starts), "contract: starts that are not told apart"
    assert process.recovery.work() == 0
    process.uploader.startService()
    process.pass_time(SWEEP)
    process.stop()
    assert left_in_stages(disk) == {}, "contract: something is never delivered"
    check_deliveries(delivered(disk, ledger, kind) | quarantined(disk), ledger)


def left_in_stages(disk: CrashableDisk) -> dict[str, list[str]]:
    """What was not delivered; journals with damage in them are kept for a person besides."""
    data = os.path.join(disk.root, "data", "ax")
    names = {str(stage): sorted(set(disk.names(os.path.join(data, stage))) - {UNREADABLE}) for stage in Stage}
    return {stage: found for stage, found in names.items() if found}


def delivered(disk: CrashableDisk, ledger: Ledger, kind: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Tenant, key and lines of what is in the store; a key that had two contents fails here."""
    noted: dict[tuple[str, str], tuple[str, ...]] = {}
    for _, tenant, key, lines in ledger.deliveries:
        assert noted.setdefault((tenant, key), lines) == lines, f"contract: {key} has two contents"
    if kind == "elsewhere":
        return noted
    assert stored(disk) == noted, "contract: the store has not what it said to have"
    return noted


def stored(disk: CrashableDisk) -> dict[tuple[str, str], tuple[str, ...]]:
    """Tenant, key and lines of what lies in a store that is a directory, but for drafts."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    store = os.path.join(disk.root, "data", "store")
    for here, _, names in os.walk(store):
        for name in names:
            tenant, _, place = os.path.relpath(os.path.join(here, name), store).partition(os.sep)
            if not name.endswith(".new"):
                with open(os.path.join(here, name), "rb") as file:
                    found[tenant, place] = lines_of(file.read())
    return found


def quarantined(disk: CrashableDisk) -> dict[tuple[str, str], tuple[str, ...]]:
    """Tenant (marked), file and lines of what was set aside."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    directory = os.path.join(disk.root, "data", "ax", QUARANTINE)
    for here, _, names in os.walk(directory):
        for name in names:
            tenant = os.path.basename(here).rpartition("~")[0]
            with open(os.path.join(here, name), "rb") as file:
                found[f"{QUARANTINE} {tenant}", os.path.join(here, name)] = lines_of(file.read())
    return found


def check_deliveries(found: dict[tuple[str, str], tuple[str, ...]], ledger: Ledger) -> None:
    """Acknowledged batches are there once; others once, whole, or not at all; all in their tenants' places."""
    lines = Counter((tenant, line) for (tenant, _), content in found.items() for line in content)
    for name, (tenant, batch) in ledger.sent.items():
        counts = {lines.pop((tenant, line), 0) for line in batch}
        counts |= {lines.pop((f"{QUARANTINE} {tenant}", line), 0) for line in ledger.aside[name][1]}
        expected = [{1}] if name in ledger.acknowledged else [{0}, {1}]
        assert counts in expected, f"contract: batch {name} is there {sorted(counts)} times"
    assert lines == {}, "contract: lines that nobody sent, or not for this tenant"


@dataclass
class Cuts:
    """Makes crash states below a directory, each checked once, and says which cut broke the contract."""

    directory: str
    kind: str
    made: int = 0
    seen: set[object] = field(default_factory=set)

    def place(self) -> str:
        """An empty directory."""
        self.made += 1
        path = os.path.join(self.directory, str(self.made))
        os.mkdir(path)
        return path

    def check(self, disk: CrashableDisk, ledger: Ledger, step: int, lost: Loss, story: str = "") -> None:
        """Cut there; unless it leaves what another cut left, see whether all is well."""
        known = ledger.until(step, is_old=True)
        state = disk.state(step, lost)
        mark = (tuple(state.items()), tuple(known.acknowledged), len(known.deliveries))
        if mark in self.seen:
            return
        self.seen.add(mark)
        place = self.place()
        try:
            write_state(state, place)
            check(CrashableDisk(place), known, self.kind)
        except Exception as exc:
            last = "\n".join(f"  {n}: {change}"[:200] for n, change in enumerate(disk.log[:step]))
            exc.add_note(f"{story}cut at step {step}, {lost}, after\n{last}")
            raise
        shutil.rmtree(place)


@pytest.fixture(params=STORES)
def cuts(request: pytest.FixtureRequest) -> Iterator[Cuts]:
    """For each kind of store; in memory where there is a place for it, because nothing here needs a disk."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Cuts(directory, request.param)


def recorded(cuts: Cuts, disk_class: type[CrashableDisk] = CrashableDisk) -> tuple[CrashableDisk, Ledger]:
    """The script's log, and what was known when."""
    disk = disk_class(cuts.place())
    return disk, first_life(disk, cuts.kind)


def situation(change: Change) -> tuple[str, ...]:
    """What a change is done to: the same for all that differ in tenants and times only."""
    paths = change.paths if isinstance(change, Named) else (change.path,)
    return change.what if isinstance(change, Named) else type(change).__name__, *map(kind_of, paths)


def kind_of(path: str) -> str:
    """Where it lies, how deep, and what it is: `ax/tmp/4.journal`."""
    parts = path.split(os.sep)
    place = parts[1:3] if parts[1:2] == ["ax"] else parts[1:2]
    marked = parts[-1].partition(RECOVERED_MARK)[0]
    return f"{os.sep.join(place)}/{len(parts)}{os.path.splitext(marked)[1]}"


def of_each_kind(situations: Iterable[Hashable], kind: str) -> list[int]:
    """The number of one of each situation, chosen at random; with a store on the disk, of those that concern it."""
    numbers: dict[Hashable, list[int]] = {}
    for number, each in enumerate(situations):
        if kind == "elsewhere" or "store" in str(each):
            numbers.setdefault(each, []).append(number)
    chance = random.Random(4)
    return sorted(chance.choice(found) for found in numbers.values())


def test_the_script_takes_every_way(cuts: Cuts) -> None:
    """All that a rename can do to a journal, a bucket or a file, and deliveries and deletions, is in the log."""
    disk, ledger = recorded(cuts)
    ways = {situation(change)[1:] for change in disk.log if isinstance(change, Named) and change.what == "rename"}
    assert {way for way in ways if way[0].startswith("ax/")} == {
        *(("ax/tmp/5", "ax/staging/4"), ("ax/tmp/6.gz", "ax/staging/5.gz")),  # buckets; files where there was one
        *(("ax/staging/4", "ax/failed/4"), ("ax/staging/5.gz", "ax/failed/5.gz"), ("ax/failed/4", "ax/staging/4")),
        ("ax/tmp/4.journal", "ax/recovered/4.journal"),
        *(("ax/recovered/5", "ax/staging/4"), ("ax/recovered/6.gz", "ax/staging/5.gz")),
        *(("ax/tmp/6", "ax/quarantine/4"), ("ax/recovered/6", "ax/quarantine/4")),
        *(("ax/tmp/7.gz", "ax/quarantine/5.gz"), ("ax/recovered/7.gz", "ax/quarantine/5.gz")),
    }
    assert len(ledger.acknowledged) == len(ledger.sent) > 20
    assert [lines for _, lines in ledger.sent.values()].count([]) > 1
    assert {tenant for _, tenant, _, _ in ledger.deliveries} == set(NAMES)
    assert [starts for _, starts in ledger.starts] == [1, 2, 3]
    cuts.check(disk, ledger, len(disk.log), NOTHING)


def test_power_lost_at_every_step(cuts: Cuts) -> None:
    """Whatever is lost of what was not synced: a start delivers what was acknowledged, once."""
    disk, ledger = recorded(cuts)
    steps = steps_of(disk, cuts.kind)
    for step in steps:
        for lost in losses(2, step):
            cuts.check(disk, ledger, step, lost)
    assert cuts.made > sum(not isinstance(disk.log[step - 1], Synced) for step in steps)


def steps_of(disk: CrashableDisk, kind: str) -> list[int]:
    """All; with a store on the disk, those before, at and after its changes: elsewhere it lies as the other's does."""
    if kind == "elsewhere":
        return [*range(len(disk.log) + 1)]
    its = [number for number, change in enumerate(disk.log) if "store" in str(situation(change))]
    return sorted({step for number in its for step in (number, number + 1)})


def test_power_lost_again_while_recovering(cuts: Cuts) -> None:
    """A second loss, anywhere in the recovery from the first and in what goes on beside it, changes nothing."""
    disk, ledger = recorded(cuts)
    chance = random.Random(1)
    for number in of_each_kind(pairwise(map(situation, disk.log)), cuts.kind):
        both = NOTHING, chance.choice(losses(8, number))
        for lost in both if THOROUGH else both[number % 2 :][:1]:
            second = disk.after(number + 1, lost, cuts.place())
            known = second_life(second, ledger.until(number + 1, is_old=True), cuts.kind, NOW + 500)
            story = f"cut at step {number + 1}, {lost}, and again "
            for taken in (n for n, change in enumerate(second.log) if situation(change)[1:] in TAKE_OVERS):
                check_while_pending(cuts, second, known, taken, story)
            for step in chance.sample(range(len(second.log) + 1), 3):
                cuts.check(second, known, step, chance.choice(losses(8, step)), story)


def test_power_lost_after_a_kill(cuts: Cuts) -> None:
    """A process goes on from what a killed one did and did not sync; when the power goes, both's syncs count."""
    disk, ledger = recorded(cuts)
    for number in of_each_kind(pairwise(map(situation, disk.log)), cuts.kind):
        if not isinstance(disk.log[number], Synced):
            second = disk.killed(number + 1, cuts.place())
            known = second_life(second, ledger.until(number + 1), cuts.kind, NOW + 500)
            check_while_pending(cuts, second, known, number, f"killed after step {number}, ")


def check_while_pending(cuts: Cuts, disk: CrashableDisk, ledger: Ledger, number: int, story: str) -> None:
    """Cut at the end, and here and there before that as long as what was done at that number can be lost.

    It is lost alone, and with all before it; what was done since is there, where it can be.
    """
    cuts.check(disk, ledger, len(disk.log), EVERYTHING, story)
    steps = range(number + 1, len(disk.log) + 1)
    steps = steps[: bisect_left(steps, True, key=lambda step: not disk.is_pending(number, step))]
    chance = random.Random(number)
    some = chance.sample(steps, min(either(4, 2), len(steps)))
    is_name = isinstance(disk.log[number], Named)
    alone = Loss(frozenset({number}), "nothing") if is_name else EMPTIED
    with_all = Loss(range(number + 1), "nothing" if is_name else "all")
    for step in steps if len(steps) <= MANY else [*steps[: either(8, 4)], *some]:
        cuts.check(disk, ledger, step, alone, story)
        cuts.check(disk, ledger, step, with_all, story)
    for step in some:
        cuts.check(disk, ledger, step, chance.choice(losses(8, step)), story)


class FaultyDisk(CrashableDisk):
    """Fails to sync once.

    Attributes:
        faulty: The number of the sync that fails.
        syncs: The length of the log at each sync, and the situation.
    """

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.faulty = -1
        self.syncs: list[tuple[int, Hashable]] = []

    def meet(self, path: str) -> None:
        """Count a sync; fail if it is the one."""
        self.syncs.append((len(self.log), (kind_of(self.below(path)), *map(situation, self.log[-1:]))))
        if len(self.syncs) - 1 == self.faulty:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def create(self, path: str) -> AppendFile:
        """A file that may fail to sync."""
        file = super().create(path)
        file.__class__ = FaultyFile
        return file

    def sync_directory(self, path: str) -> None:
        """Sync, or fail to."""
        self.meet(path)
        super().sync_directory(path)


class FaultyFile(CrashableFile):
    """A file of a `FaultyDisk`."""

    def sync(self) -> None:
        """Sync, or fail to."""
        assert isinstance(self._disk, FaultyDisk)
        self._disk.meet(self.path)
        super().sync()


def test_power_lost_after_a_failed_sync(cuts: Cuts) -> None:
    """A sync that failed has made nothing durable, and whoever tries again must not take it for done."""
    sound = FaultyDisk(cuts.place())
    first_life(sound, cuts.kind)
    for faulty in of_each_kind((each for _, each in sound.syncs), cuts.kind):
        disk = FaultyDisk(cuts.place())
        disk.faulty = faulty
        ledger = first_life(disk, cuts.kind)
        number = disk.syncs[faulty][0] - 1
        story = f"sync {faulty} failed, "
        if number < 0 or isinstance(disk.log[number], Synced):
            cuts.check(disk, ledger, len(disk.log), EVERYTHING, story)
        else:
            check_while_pending(cuts, disk, ledger, number, story)


class ForgetfulDisk(CrashableDisk):
    """Never syncs a directory."""

    def sync_directory(self, path: str) -> None:
        """Say so, and do not."""


class LyingDisk(CrashableDisk):
    """Never syncs a file."""

    def create(self, path: str) -> AppendFile:
        """A file that says it syncs."""
        file = super().create(path)
        file.sync = lambda: None  # type: ignore[method-assign]
        return file


@pytest.mark.parametrize("disk_class", [ForgetfulDisk, LyingDisk])
def test_the_proof_can_fail(cuts: Cuts, disk_class: type[CrashableDisk]) -> None:
    """On a disk that syncs no directory, or no file, acknowledged batches are lost."""
    disk, ledger = recorded(cuts, disk_class)
    with pytest.raises(AssertionError, match=r"^contract: "):
        cuts.check(disk, ledger, len(disk.log), EVERYTHING)
