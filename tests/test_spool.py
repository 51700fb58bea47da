"""The spool: batches become durable together, and a failed write harms no acknowledged one."""

import errno
import os
import zlib
from functools import partial
from pathlib import Path

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from axcollector.clock_steps import ClockSteps
from axcollector.core.commit import PACE_SECONDS, GroupCommit
from axcollector.core.errors import Overloaded, SpoolFailed
from axcollector.core.frames import FrameReader
from axcollector.core.layout import JournalName
from axcollector.core.model import Batch, Tenant
from axcollector.disk import AppendFile, Disk
from axcollector.journal import Durability, JournalPlan, JournalWriter, _gathered
from axcollector.spool import DOUBT_SECONDS, STUCK_SECONDS, Spool
from tests.conftest import LoggedFailures
from tests.fakes import HeldThread, SameThread, result_of

ACME = Tenant("t1", "acme", "prod")
ZOO = Tenant("t2", "zoo", "test")
START = 1_480_000_080.0


class FaultyFile(AppendFile):
    """A file whose writes, syncs and truncations fail when told to."""

    disk: "RecordingDisk"

    def write(self, data: bytes | memoryview) -> None:
        self.disk.note("write", self.path)
        if "torn" in self.disk.faults:
            super().write(data[: len(data) // 2])
        self.disk.fail("torn", errno.ENOSPC)
        super().write(data)

    def sync(self) -> None:
        self.disk.note("sync", self.path)
        self.disk.fail("sync", errno.EIO)
        super().sync()

    def truncate(self, size: int) -> None:
        self.disk.fail("truncate", errno.EIO)
        super().truncate(size)

    def close(self) -> None:
        super().close()
        self.disk.fail("close", errno.EIO)


class RecordingDisk(Disk):
    """A real directory that notes what is done, and fails when told to."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.done: list[str] = []

    def note(self, what: str, path: str) -> None:
        """Remember that this was asked for."""
        self.done.append(f"{what} {os.path.splitext(path)[1] or os.path.basename(path)}")

    def fail(self, what: str, number: int) -> None:
        """Fail if told to."""
        if what in self.faults:
            raise OSError(number, os.strerror(number))

    def create(self, path: str) -> AppendFile:
        self.fail("create", errno.EMFILE)
        self.note("create", path)
        file = FaultyFile(path, os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600))
        file.disk = self
        return file

    def sync_directory(self, path: str) -> None:
        self.note("sync", path)
        super().sync_directory(path)


class Fixture:
    """A spool over a temporary directory."""

    def __init__(self, directory: Path, durability: Durability = Durability.FSYNC, max_bytes: int = 1 << 20) -> None:
        self.directory = directory
        self.clock = Clock()
        self.clock.advance(START)
        self.disk = RecordingDisk()
        self.thread = HeldThread()
        plan = JournalPlan(str(directory), "id", 7, 120, max_bytes, durability)
        self.writer = JournalWriter(self.disk, plan)
        self.spool = Spool(
            self.clock,
            self.thread,
            self.writer,
            GroupCommit(10, 1 << 20),
            wait=durability is not Durability.MEMORY,
        )

    def submit(self, text: bytes, tenant: Tenant = ACME) -> "defer.Deferred[None]":
        """One batch of one line."""
        return self.spool.submit(Batch(tenant, text + b"\n", 1))

    def run(self) -> None:
        """Let the writer thread do all it has to do, and pauses pass."""
        while self.thread.jobs or self.spool.waiting:
            if self.thread.jobs:
                self.thread.step()
            else:
                self.clock.advance(PACE_SECONDS)

    def store(self, text: bytes, tenant: Tenant = ACME) -> None:
        """One batch, made durable."""
        waiting = self.submit(text, tenant)
        self.run()
        result_of(waiting)

    def kept(self) -> dict[str, list[tuple[str, bytes]]]:
        """Tenant and lines of every frame of every journal."""
        found = {}
        for path in sorted(self.directory.iterdir()):
            reader = FrameReader(JournalName.parse(path.name)[0].identity)
            members = [*reader.feed(path.read_bytes()), *reader.finish()]
            found[path.name] = [(frame.tenant, zlib.decompress(frame.member, 31)) for frame in members]
            assert (reader.damaged, reader.torn) == (0, 0)
        return found


def paused(f: Fixture, count: int = 3) -> "list[defer.Deferred[None]]":
    """One write of `count` batches has ended just now, and two of those who sent them are back."""
    first = [f.submit(b"first")]
    first += [f.submit(b"together") for _ in range(count - 1)]
    f.thread.step()
    first.append(f.submit(b"the first, who is back"))
    f.run()
    assert [result_of(d) for d in first] == [None] * (count + 1)
    waiting = [f.submit(b"%d" % number) for number in range(2)]
    assert f.thread.jobs == []
    assert len(f.clock.getDelayedCalls()) == 1
    assert f.spool.waiting == 2
    assert f.spool.problem() is None
    return waiting


def name(sequence: int, start: str = "20161124150800", end: str = "20161124151000") -> str:
    """The name of a journal of the fixture."""
    return f"{start}.{end}_id_writer_7-0-{sequence}.journal"


def test_answered_after_the_sync_of_file_and_directory(tmp_path: Path) -> None:
    """A batch is answered when its journal and the journal's name have been synced, not before."""
    f = Fixture(tmp_path)
    waiting = f.submit(b"1")
    assert not waiting.called
    f.run()
    result_of(waiting)
    assert f.disk.done == ["create .journal", "write .journal", "sync .journal", f"sync {tmp_path.name}"]
    f.store(b"2")
    assert f.disk.done[4:] == ["write .journal", "sync .journal"]
    assert f.kept() == {name(0): [("acme~prod", b"1\n"), ("acme~prod", b"2\n")]}
    assert (tmp_path / name(0)).stat().st_mode & 0o777 == 0o600


def test_one_write_for_all_that_wait(tmp_path: Path) -> None:
    """What comes during a write goes with the next one, a frame a tenant."""
    f = Fixture(tmp_path)
    waiting = [f.submit(b"1")]
    waiting += [f.submit(b"%d" % i, [ACME, ZOO][i % 2]) for i in range(2, 6)]
    f.thread.step()
    assert [d.called for d in waiting] == [True, False, False, False, False]
    f.run()
    assert [result_of(d) for d in waiting] == [None] * 5
    assert f.kept() == {name(0): [("acme~prod", b"1\n"), ("acme~prod", b"2\n4\n"), ("zoo~test", b"3\n5\n")]}
    assert f.disk.done.count("write .journal") == 2


def test_large_commits_make_several_members(tmp_path: Path) -> None:
    """A commit of many megabytes is not one member, and no batch is divided."""
    f = Fixture(tmp_path)
    blocker = f.submit(b"0")
    waiting = [f.submit(b"x" * 300_000) for _ in range(3)]
    f.run()
    assert [result_of(d) for d in [blocker, *waiting]] == [None] * 4
    sizes = [len(text) for _, text in f.kept()[name(0)]]
    assert sizes == [2, 900_003]
    batches = [Batch(ACME, b"x" * 3_000_000, 1)] * 3
    assert [(each.size, each.count) for each in _gathered(batches)] == [(3_000_000, 1)] * 3


def test_intervals_and_sizes_make_new_journals(tmp_path: Path) -> None:
    """Another interval, a full journal, a clock set back: each has a journal of its own, none is opened again."""
    f = Fixture(tmp_path, max_bytes=100)
    f.store(b"1")
    f.store(b"2")
    f.clock.advance(120)
    f.store(b"3")
    f.clock.rightNow -= 120
    f.store(b"4")
    assert f.kept() == {
        name(0): [("acme~prod", b"1\n"), ("acme~prod", b"2\n")],
        name(1, "20161124151000", "20161124151200"): [("acme~prod", b"3\n")],
        name(2): [("acme~prod", b"4\n")],
    }
    f.store(b"5" * 100)
    f.store(b"6")
    assert sorted(f.kept()) == sorted([name(0), name(1, "20161124151000", "20161124151200"), name(2), name(3)])


@pytest.mark.parametrize("fault", ["create", "torn", "sync"])
def test_failures_lose_nothing_that_was_acknowledged(tmp_path: Path, fault: str, log_events: list[LogEvent]) -> None:
    """A failed write, sync or open refuses those who wait; the journal is cut back, and the next batch gets another."""
    f = Fixture(tmp_path)
    if fault != "create":
        f.store(b"1")
    f.disk.faults.add(fault)
    waiting = [f.submit(b"lost"), f.submit(b"too")]
    f.run()
    for refused in waiting:
        with pytest.raises(SpoolFailed, match="The batch could not be stored") as refusal:
            result_of(refused)
        assert refusal.value.retry_after == 5
    assert f.spool.failing
    assert f.writer.open_name is None
    f.disk.faults.clear()
    f.store(b"2")
    assert not f.spool.failing
    kept = [texts for texts in f.kept().values() if texts]
    assert kept == ([] if fault == "create" else [[("acme~prod", b"1\n")]]) + [[("acme~prod", b"2\n")]]
    levels = [event["log_level"].name for event in log_events if event["log_namespace"].startswith("axcollector")]
    assert levels == ["error", "info"]


def test_a_journal_that_cannot_be_cut_back_is_left(tmp_path: Path) -> None:
    """When even the truncation and the close fail, the torn frame stays unread and the next journal works."""
    f = Fixture(tmp_path)
    f.store(b"1")
    f.disk.faults |= {"torn", "truncate", "close"}
    refused = f.submit(b"lost")
    f.run()
    with pytest.raises(SpoolFailed):
        result_of(refused)
    f.disk.faults.clear()
    f.store(b"2")
    reader = FrameReader(JournalName.parse(name(0))[0].identity)
    assert len([*reader.feed((tmp_path / name(0)).read_bytes()), *reader.finish()]) == 1
    assert f.writer.open_name == name(1)


def test_bugs_are_logged_and_answered(tmp_path: Path, logged_failures: LoggedFailures) -> None:
    """What is no OSError is a bug: it is logged as one, and whoever waits is told, but not in its words."""
    f = Fixture(tmp_path)
    refused = f.spool.submit(Batch(Tenant("t", "\ud800", "e"), b"1\n", 1))
    f.run()
    with pytest.raises(SpoolFailed, match=r"^The batch could not be stored: the log says why$"):
        result_of(refused)
    assert len(logged_failures.take(UnicodeEncodeError)) == 1
    f.store(b"2")


def test_a_hang_up_cancels_nobody_else(tmp_path: Path) -> None:
    """Cancelling forgets one waiter; the others of its group are answered."""
    f = Fixture(tmp_path)
    first, second = f.submit(b"1"), f.submit(b"2")
    f.thread.step()
    third = f.submit(b"3")
    second.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
    second.cancel()
    f.run()
    assert [result_of(d) for d in (first, third)] == [None, None]
    assert list(f.kept().values()) == [[("acme~prod", b"1\n"), ("acme~prod", b"2\n3\n")]]


def test_too_many_waiting(tmp_path: Path) -> None:
    """Beyond the limit a batch is refused at once."""
    f = Fixture(tmp_path)
    waiting = [f.submit(b"%d" % i) for i in range(10)]
    with pytest.raises(Overloaded):
        f.spool.check_room()
    with pytest.raises(Overloaded):
        result_of(f.submit(b"10"))
    assert f.spool.waiting == 10
    f.run()
    assert [result_of(d) for d in waiting] == [None] * 10


def test_durability_write(tmp_path: Path) -> None:
    """`write`: answered after the write, nothing is synced."""
    f = Fixture(tmp_path, Durability.WRITE)
    waiting = f.submit(b"1")
    assert not waiting.called
    f.run()
    result_of(waiting)
    assert f.disk.done == ["create .journal", "write .journal"]


def test_durability_memory(tmp_path: Path) -> None:
    """`memory`: answered at once, written all the same; a failure is logged, because nobody is there to be told."""
    f = Fixture(tmp_path, Durability.MEMORY)
    result_of(f.submit(b"1"))
    assert f.disk.done == []
    f.run()
    assert f.kept() == {name(0): [("acme~prod", b"1\n")]}
    f.disk.faults.add("torn")
    result_of(f.submit(b"2"))
    f.run()
    assert f.spool.failing


def test_who_cannot_be_told_keeps_nobody_else_waiting(tmp_path: Path, logged_failures: LoggedFailures) -> None:
    """A bug in what one of those does who wait is logged, and the others are told."""
    f = Fixture(tmp_path)
    told: list[object] = []
    waiting = f.submit(b"0")
    f.spool.put(Batch(ACME, b"1\n", 1), lambda _: 1 // 0)
    f.spool.put(Batch(ACME, b"2\n", 1), told.append)
    f.run()
    result_of(waiting)
    assert told == [None]
    assert len(logged_failures.take(ZeroDivisionError)) == 1


def test_journals_are_finished_when_their_interval_is_over(tmp_path: Path) -> None:
    """The heartbeat finishes the journal of an interval that is over, also when no more data comes."""
    f = Fixture(tmp_path)
    f.store(b"1")
    due = f.spool.finish_due()
    f.run()
    result_of(due)
    assert f.writer.open_name == name(0)
    f.clock.advance(120)
    due = f.spool.finish_due()
    f.run()
    result_of(due)
    assert f.writer.open_name is None


def test_closing_commits_and_answers_what_waits(tmp_path: Path) -> None:
    """Closing waits for the write under way and for those behind it; whoever comes later is refused."""
    f = Fixture(tmp_path)
    waiting = [f.submit(b"1"), f.submit(b"2")]
    closed, again = f.spool.close(), f.spool.close()
    with pytest.raises(Overloaded, match="stopping"):
        result_of(f.submit(b"3"))
    assert not closed.called
    result_of(f.spool.finish_due())
    f.run()
    assert [result_of(d) for d in (*waiting, closed, again)] == [None] * 4
    assert f.writer.open_name is None
    assert list(f.kept().values()) == [[("acme~prod", b"1\n"), ("acme~prod", b"2\n")]]


def test_closing_an_idle_spool(tmp_path: Path) -> None:
    """With nothing waiting it is closed at once."""
    spool = Fixture(tmp_path).spool
    spool._worker = SameThread()
    result_of(spool.close())


def test_a_directory_moved_away_under_the_writer(tmp_path: Path) -> None:
    """Nothing is acknowledged into a journal that its path does not lead to any more."""
    f = Fixture(tmp_path / "tmp")
    f.directory.mkdir()
    f.store(b"1")
    f.directory.rename(tmp_path / "moved")
    f.directory.mkdir()
    refused = f.submit(b"lost")
    f.run()
    with pytest.raises(SpoolFailed, match="removed"):
        result_of(refused)
    f.store(b"2")
    assert f.kept() == {name(1): [("acme~prod", b"2\n")]}


def test_what_is_wrong_with_commits(tmp_path: Path, log_events: list[LogEvent]) -> None:
    """A failure counts for a while, so that somebody sends a batch again; a commit that lasts counts until it ends."""
    f = Fixture(tmp_path)
    assert f.spool.problem() is None
    f.disk.faults = {"sync"}
    with pytest.raises(SpoolFailed):
        f.store(b"1")
    assert f.spool.problem() == "The last commit failed"
    f.clock.advance(DOUBT_SECONDS)
    assert f.spool.problem() == "The last commit failed"
    f.clock.advance(1)
    assert f.spool.problem() is None
    with pytest.raises(SpoolFailed):
        f.store(b"2")
    assert f.spool.problem() is not None
    f.clock.rightNow -= 3600  # set back, nobody knows how long after the failure
    assert f.spool.problem() is None
    f.clock.rightNow += 3600
    f.disk.faults.clear()
    f.store(b"3")
    assert f.spool.problem() is None
    waiting = f.submit(b"4")
    f.clock.advance(STUCK_SECONDS)
    assert f.spool.problem() is None
    f.clock.advance(2)
    assert f.spool.problem() == "A commit has been under way for 12 s: the disk does not answer"
    f.run()
    result_of(waiting)
    assert f.spool.problem() is None
    assert len([event for event in log_events if event["log_level"].name == "error"]) == 1


def test_a_lone_client_sets_no_timer(tmp_path: Path) -> None:
    """Each of his batches is written at once, and nothing is scheduled."""
    f = Fixture(tmp_path)
    for number in range(3):
        waiting = f.submit(b"%d" % number)
        assert len(f.thread.jobs) == 1
        f.run()
        result_of(waiting)
        assert f.clock.getDelayedCalls() == []


def test_the_pause_ends_with_the_last_who_is_back(tmp_path: Path) -> None:
    """Then the write begins at once, with all of them, and nothing is left scheduled."""
    f = Fixture(tmp_path)
    waiting = [*paused(f), f.submit(b"2")]
    assert len(f.thread.jobs) == 1
    assert f.clock.getDelayedCalls() == []
    f.run()
    assert [result_of(d) for d in waiting] == [None] * 3
    assert f.kept()[name(0)][-1] == ("acme~prod", b"0\n1\n2\n")


def test_the_pause_ends_without_him_too(tmp_path: Path) -> None:
    """Two milliseconds behind the last write nobody is waited for any more."""
    f = Fixture(tmp_path)
    waiting = paused(f)
    f.clock.advance(PACE_SECONDS)
    assert len(f.thread.jobs) == 1
    assert f.clock.getDelayedCalls() == []
    f.run()
    assert [result_of(d) for d in waiting] == [None] * 2
    assert f.clock.getDelayedCalls() == []


@pytest.mark.parametrize("fault", ["", "sync"])
def test_closing_in_a_pause(tmp_path: Path, fault: str) -> None:
    """It ends the pause: what waits is written and answered, well or badly, and nothing is left scheduled."""
    f = Fixture(tmp_path)
    waiting = paused(f)
    f.disk.faults.add(fault)
    closed = f.spool.close()
    assert f.clock.getDelayedCalls() == []
    f.run()
    result_of(closed)
    for each in waiting:
        if fault:
            with pytest.raises(SpoolFailed):
                result_of(each)
        else:
            result_of(each)
    assert f.clock.getDelayedCalls() == []
    assert f.spool.waiting == 0


def test_closing_writes_group_after_group(tmp_path: Path) -> None:
    """Where more waits than goes together, all of it is written, in order, before the spool is closed."""
    f = Fixture(tmp_path)
    f.spool._group = GroupCommit(100, 1 << 30)
    answered: list[int] = []
    for number in range(6):
        waiter = partial(lambda number, failure: answered.append(number), number)
        f.spool.put(Batch(ACME, bytes([48 + number]) * 400_000 + b"\n", 1), waiter)
    closed = f.spool.close()
    steps = []
    while not closed.called:
        f.thread.step()
        steps.append(len(answered))
    assert steps[:3] == [1, 4, 6]
    assert answered == list(range(6))
    lines = b"".join(text for _, text in f.kept()[name(0)])
    assert lines == b"".join(bytes([48 + number]) * 400_000 + b"\n" for number in range(6))
    assert f.clock.getDelayedCalls() == []


def test_a_failed_commit_with_others_waiting(tmp_path: Path) -> None:
    """Only those who went with it are refused; the others pause, and go with the next, which succeeds."""
    f = Fixture(tmp_path)
    lost, kept = f.submit(b"lost"), f.submit(b"kept")
    f.disk.faults.add("sync")
    f.thread.step()
    f.disk.faults.clear()
    assert f.thread.jobs == []
    assert not kept.called
    f.run()
    result_of(kept)
    with pytest.raises(SpoolFailed):
        result_of(lost)
    assert [texts for texts in f.kept().values() if texts] == [[("acme~prod", b"kept\n")]]


def test_durability_memory_is_paced(tmp_path: Path) -> None:
    """Nobody waits, so whatever comes within two milliseconds goes with one write; none of it is left behind."""
    f = Fixture(tmp_path, Durability.MEMORY)
    for number in range(3):
        result_of(f.submit(b"%d" % number))
    f.run()  # the first; and the others, who came meanwhile
    result_of(f.submit(b"3"))
    assert f.thread.jobs == []
    f.clock.advance(PACE_SECONDS)
    f.run()
    assert [text for _, text in f.kept()[name(0)]] == [b"0\n", b"1\n2\n", b"3\n"]
    assert f.clock.getDelayedCalls() == []


def test_who_comes_again_when_he_is_told(tmp_path: Path) -> None:
    """One who sends the next batch as soon as he is answered, raising or not, goes with the others' next write."""
    f = Fixture(tmp_path)
    told: list[tuple[int, int]] = []

    def again(number: int, turn: int, failure: object) -> None:
        assert failure is None
        told.append((turn, number))
        if turn < 3:
            f.spool.put(Batch(ACME, b"%d.%d\n" % (turn + 1, number), 1), partial(again, number, turn + 1))

    f.submit(b"first")
    for number in range(4):
        f.spool.put(Batch(ACME, b"0.%d\n" % number, 1), partial(again, number, 0))
    for _ in range(5):
        if not f.thread.jobs:  # those are waited for who went behind the first
            f.clock.advance(PACE_SECONDS)
        assert len(f.thread.jobs) == 1
        f.thread.step()
    assert told == [(turn, number) for turn in range(4) for number in range(4)]
    assert f.thread.jobs == []
    assert f.clock.getDelayedCalls() == []


@pytest.mark.parametrize("others_come", [True, False])
@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_clock_that_is_set_in_a_pause(tmp_path: Path, step: float, others_come: bool) -> None:
    """Whoever comes next takes the others with him; where nobody does, the watch on the clock ends the pause."""
    f = Fixture(tmp_path)
    steady = [0.0]
    watch = ClockSteps(f.clock, f.clock.seconds, lambda: steady[0])
    watch.startService()
    watch.stopService()
    waiting = paused(f, 4)
    f.clock.rightNow += step
    steady[0] += 1
    if others_come:
        waiting.append(f.submit(b"next"))  # and one is still missing
        assert len(f.thread.jobs) == 1
        assert f.clock.getDelayedCalls() == []
    watch.look()
    f.clock.advance(PACE_SECONDS)
    f.run()
    assert [result_of(d) for d in waiting] == [None] * len(waiting)
    assert f.spool.waiting == 0
    assert f.clock.getDelayedCalls() == []
