"""Who has a journal: one process writes it, another splits it, and neither tells the other.

Each example lets one of the two go on at one moment of the other's work, at every moment there is: whatever was
acknowledged lies in staging in the end, once, and nothing else does.
"""

import contextlib
import gzip
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axcollector.core.layout import JournalName, Stage
from axcollector.core.model import Batch, Tenant
from axcollector.disk import AppendFile, Disk
from axcollector.journal import JournalPlan, JournalWriter
from axcollector.splitter import Splitter

ACME = Tenant("t1", "acme", "prod")
NOW = 1_480_000_081.0
BEFORE = NOW - 3600
"""A clock that was set back makes an interval's journals due while they are written."""


class Killed(BaseException):
    """The process has ended: it makes no more system calls."""


class Moment:
    """Has something happen in front of one of the system calls of somebody, once."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0
        self.happen: Callable[[], object] = lambda: None
        self.is_dead = False
        self.files: list[WatchedFile] = []

    def pass_by(self) -> None:
        if self.is_dead:
            raise Killed
        self.calls += 1
        if self.calls == self.number:
            self.happen()

    def kill(self) -> None:
        """The kernel closes what was open."""
        self.is_dead = True
        for file in self.files:
            with contextlib.suppress(OSError):
                os.close(file._descriptor)
        raise Killed


class WatchedFile(AppendFile):
    """A file that tells of each call."""

    moment: Moment

    def write(self, data: bytes | memoryview) -> None:
        self.moment.pass_by()
        super().write(data)

    def sync(self) -> None:
        """No power is lost here, which `test_crash_points` is for."""
        self.moment.pass_by()

    def lock(self) -> bool:
        self.moment.pass_by()
        return super().lock()

    def truncate(self, size: int) -> None:
        self.moment.pass_by()
        super().truncate(size)

    def is_linked(self) -> bool:
        self.moment.pass_by()
        return super().is_linked()

    def close(self) -> None:
        self.moment.pass_by()
        super().close()


class WatchedDisk(Disk):
    """A real directory; tells of each call."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_") and callable(value):
            super().__getattribute__("_moment").pass_by()
        return value

    def sync_directory(self, path: str) -> None:
        """Likewise."""

    def create(self, path: str) -> AppendFile:
        made = super().create(path)
        file = WatchedFile(path, made._descriptor)
        file.moment = self._moment
        self._moment.files.append(file)
        return file


class Station:
    """A writer and a splitter, which could be two processes."""

    def __init__(self, data: Path, writes_at: int = 0, splits_at: int = 0) -> None:
        for stage in Stage:
            (data / stage).mkdir(parents=True)
        self.data = data
        self.writing, self.splitting = Moment(writes_at), Moment(splits_at)
        plan = JournalPlan(str(data / "tmp"), "id", 1, 10, 1 << 20)
        self.writer = JournalWriter(WatchedDisk(self.writing), plan)
        self.splitter = Splitter(WatchedDisk(self.splitting), str(data), Stage.TMP, pack_all=False)
        self.acknowledged: list[bytes] = []

    def write(self, now: float = NOW) -> None:
        line = b'{"id":%d}\n' % len(self.acknowledged)
        try:
            self.writer.write([Batch(ACME, line, 1)], now)
        except OSError:
            return
        self.acknowledged.append(line)

    def split(self, now: float | None = NOW, *, abandoned: bool = False) -> None:
        self.splitter.work(now, 5, lambda _: abandoned)

    def staged(self) -> Counter[bytes]:
        files = (self.data / "staging").glob("*/*.txt.gz")
        return Counter(line for file in files for line in gzip.decompress(file.read_bytes()).splitlines(keepends=True))

    def end(self) -> None:
        """What a stop does."""
        self.writer.finish()
        self.split(None)
        assert self.staged() == Counter(self.acknowledged)
        assert list((self.data / "tmp").iterdir()) == []


def moments(watch: Callable[[Station], Moment], run: Callable[[Station], None], data: Path) -> int:
    """How many calls somebody makes."""
    station = Station(data)
    run(station)
    count = watch(station).calls
    station.end()
    return count


@pytest.mark.parametrize("now", [NOW, BEFORE, NOW + 60, None])
def test_a_split_at_any_moment_of_writing(tmp_path: Path, now: float | None) -> None:
    """Writing begins, goes on, changes its interval; a splitter for which anything may be due comes in between."""

    def run(station: Station) -> None:
        station.writing.happen = lambda: station.split(now)
        for moment in (NOW, NOW, NOW + 10, NOW + 10):
            station.write(moment)

    count = moments(lambda station: station.writing, run, tmp_path / "counted")
    assert count > 15
    for number in range(1, count + 1):
        station = Station(tmp_path / str(number), writes_at=number)
        run(station)
        assert len(station.acknowledged) == 4
        station.end()


@pytest.mark.parametrize("now", [NOW, NOW + 10])
def test_a_write_at_any_moment_of_a_split(tmp_path: Path, now: float) -> None:
    """While journals are looked for, claimed and split, a batch comes: for the open journal, or for a new one."""

    def run(station: Station) -> None:
        station.write(NOW - 10)
        station.write(NOW)
        station.splitting.happen = lambda: station.write(now)
        station.split(None)

    count = moments(lambda station: station.splitting, run, tmp_path / "counted")
    assert count > 15
    for number in range(1, count + 1):
        station = Station(tmp_path / str(number), splits_at=number)
        run(station)
        assert len(station.acknowledged) == 3
        station.end()


def test_a_writer_that_is_killed_at_any_moment(tmp_path: Path) -> None:
    """What it has left is split at once: all that was acknowledged, and what was not whole or not at all."""

    def run(station: Station) -> None:
        station.writing.happen = station.writing.kill if station.writing.number else lambda: None
        with contextlib.suppress(Killed):
            for moment in (NOW, NOW, NOW + 10, NOW + 10):
                station.write(moment)

    count = moments(lambda station: station.writing, run, tmp_path / "counted")
    assert count > 15
    for number in range(1, count + 1):
        station = Station(tmp_path / str(number), writes_at=number)
        run(station)
        station.split(NOW, abandoned=True)
        staged, acknowledged = station.staged(), len(station.acknowledged)
        assert staged[b'{"id":%d}\n' % acknowledged] <= 1
        assert staged - Counter([b'{"id":%d}\n' % acknowledged]) == Counter(station.acknowledged)
        assert list((tmp_path / str(number) / "tmp").iterdir()) == []


def test_a_journal_that_is_taken_as_soon_as_it_is_made(tmp_path: Path) -> None:
    """The next name is tried, and no name twice; where they are always taken, the batch is refused."""
    station = Station(tmp_path)
    taken: list[str] = []

    class Greedy(WatchedDisk):
        def create(self, path: str) -> AppendFile:
            file = super().create(path)
            if len(taken) < 4:
                taken.append(path)
                Disk().unlink(path)
            return file

    plan = JournalPlan(str(tmp_path / "tmp"), "id", 1, 10, 1 << 20)
    station.writer = JournalWriter(Greedy(Moment(0)), plan)
    station.write()
    assert (len(taken), station.acknowledged) == (3, [])
    station.write()
    (path,) = (tmp_path / "tmp").iterdir()
    assert JournalName.parse(path.name)[0].sequence == 4
    station.end()
