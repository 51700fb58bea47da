"""Closing on the clock, and what a crash left."""

from pathlib import Path

from twisted.internet import defer
from twisted.internet.task import Clock

from axcollector.closing import CLOSING_TICK_SECONDS, PAUSE_SECONDS, Closing, Recovery
from axcollector.core.commit import GroupCommit
from axcollector.core.layout import Stage
from axcollector.core.model import Batch, Tenant
from axcollector.disk import Disk
from axcollector.journal import JournalPlan, JournalWriter
from axcollector.salvager import Salvager
from axcollector.splitter import Splitter
from axcollector.spool import Spool
from tests.fakes import HeldThread, SameThread, result_of

ACME = Tenant("t1", "acme", "prod")


class NoRoom(Disk):
    """A disk that makes no directories while it is full; counts the tries."""

    full = False
    tries = 0

    def make_directory(self, path: str) -> None:
        if self.full:
            self.tries += 1
            raise OSError(28, "No space left on device")
        super().make_directory(path)


class Fixture:
    def __init__(self, data: Path) -> None:
        for stage in Stage:
            (data / stage).mkdir()
        self.data = data
        self.clock = Clock()
        self.clock.advance(1_480_000_080)
        self.disk = NoRoom()
        writer = JournalWriter(self.disk, JournalPlan(str(data / "tmp"), "id", 1, 10, 1 << 20))
        self.spool = Spool(self.clock, SameThread(), writer, GroupCommit(10, 1 << 20))
        splitter = Splitter(self.disk, str(data), Stage.TMP, pack_all=False)
        self.closing = Closing(self.clock, SameThread(), self.spool, splitter, 5)

    def submit(self) -> None:
        result_of(self.spool.submit(Batch(ACME, b"{}\n", 1)))

    def staged(self) -> list[str]:
        return sorted(path.name for path in (self.data / "staging").iterdir())

    def pass_seconds(self, seconds: float) -> None:
        self.clock.pump([CLOSING_TICK_SECONDS] * int(seconds / CLOSING_TICK_SECONDS))


def test_intervals_close_on_the_clock(tmp_path: Path) -> None:
    """At the end and the grace after it, also when no more data comes; the next interval's journal stays open."""
    f = Fixture(tmp_path)
    f.closing.startService()
    f.submit()
    f.pass_seconds(12)
    f.submit()
    assert f.staged() == []
    f.pass_seconds(3.25)
    assert f.staged() == ["acme~prod~20161124150800"]
    f.pass_seconds(10)
    assert f.staged() == ["acme~prod~20161124150800", "acme~prod~20161124150810"]
    result_of(f.closing.stopService())
    assert f.clock.getDelayedCalls() == []


def test_stopping_closes_everything(tmp_path: Path) -> None:
    """Whatever its interval, what was committed is in staging when the stop is done."""
    f = Fixture(tmp_path)
    f.closing.startService()
    f.submit()
    result_of(f.closing.stopService())
    assert f.staged() == ["acme~prod~20161124150800"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_stopping_hurries_what_is_under_way(tmp_path: Path) -> None:
    """A split that lets others go first does so no more once it is waited for."""
    f = Fixture(tmp_path)
    thread = HeldThread()
    hurried: list[int] = []

    class Hurried(Splitter):
        def hurry(self) -> None:
            super().hurry()
            hurried.append(len(thread.jobs))

    splitter = Hurried(f.disk, str(tmp_path), Stage.TMP, pack_all=False)
    closing = Closing(f.clock, thread, f.spool, splitter, 5)
    closing.startService()
    assert len(thread.jobs) == 1
    f.submit()
    stopped = closing.stopService()
    assert hurried == [1]
    assert not stopped.called
    thread.step()
    thread.step()
    result_of(stopped)
    assert f.staged() == ["acme~prod~20161124150800"]


def test_a_split_that_fails_pauses(tmp_path: Path) -> None:
    """While the disk is full a split is tried every few seconds only, and done when there is room."""
    f = Fixture(tmp_path)
    f.closing.startService()
    f.submit()
    f.disk.full = True
    f.pass_seconds(15 + 3 * PAUSE_SECONDS)
    assert f.disk.tries == 4
    f.disk.full = False
    f.pass_seconds(PAUSE_SECONDS)
    assert f.staged() == ["acme~prod~20161124150800"]
    result_of(f.closing.stopService())


def test_recovery_works_at_once_and_ends_with_what_is_under_way(tmp_path: Path) -> None:
    """What a crash left is split at the start; the stop waits for a split under way."""
    f = Fixture(tmp_path)
    f.submit()
    (journal,) = (tmp_path / "tmp").iterdir()
    journal.rename(tmp_path / "recovered" / f"{journal.name}~recoveredTS~20161124150812.123")
    splitter = Splitter(f.disk, str(tmp_path), Stage.RECOVERED, pack_all=False)
    recovery = Recovery(f.clock, SameThread(), splitter, Salvager(f.disk, str(tmp_path)))
    recovery.startService()
    assert f.staged() == ["acme~prod~20161124150800"]
    assert list((tmp_path / "recovered").iterdir()) == []
    assert isinstance(recovery.stopService(), defer.Deferred)
    assert f.clock.getDelayedCalls() == []
