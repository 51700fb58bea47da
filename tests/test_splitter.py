"""The splitter: journals become buckets, whatever was interrupted before."""

import gzip
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.logger import LogEvent

from axcollector.core import deflate, frames
from axcollector.core.layout import JournalName, Stage
from axcollector.core.model import Interval
from axcollector.courtesy import Courtesy
from axcollector.disk import STEP_BYTES, AppendFile, Disk
from axcollector.splitter import Splitter
from axcollector.takeover import take_over
from tests.crashable import CrashableDisk, steps

NOW = 1_480_000_092.123
INTERVAL = Interval(1_480_000_080, 1_480_000_200)
NAME = JournalName(INTERVAL, "id", 1, 0, 0)
BUCKETS = {"acme~prod": "acme~prod~20161124150800", "zoo~test": "zoo~test~20161124150800"}
LINES = [("acme~prod", b"1\n"), ("zoo~test", b"2\n"), ("acme~prod", b"3\n4\n")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with its stages."""
    for stage in Stage:
        (tmp_path / stage).mkdir()
    return tmp_path


def journal_bytes(name: JournalName = NAME, lines: list[tuple[str, bytes]] = LINES) -> bytes:
    """A journal of these lines, a frame each."""
    return b"".join(
        frames.write(name.identity, i, tenant, text.count(b"\n"), deflate.member(text))
        for i, (tenant, text) in enumerate(lines)
    )


def splitter(data: Path, stage: Stage = Stage.TMP, *, pack_all: bool = False, disk: Disk | None = None) -> Splitter:
    """A splitter of that data directory."""
    return Splitter(disk or Disk(), str(data), stage, pack_all=pack_all)


def staged(data: Path, stage: str = "staging") -> dict[str, bytes]:
    """Bucket and file of everything staged, and the lines in it."""
    return {
        str(path.relative_to(data / stage)): gzip.decompress(path.read_bytes())
        for path in sorted((data / stage).glob("*/*"))
    }


def expected(name: JournalName = NAME) -> dict[str, bytes]:
    """What the lines above are split into."""
    return {
        f"{BUCKETS[tenant]}/{name.file_of(tenant)}": text
        for tenant, text in (("acme~prod", b"1\n3\n4\n"), ("zoo~test", b"2\n"))
    }


@pytest.mark.parametrize("pack_all", [False, True])
def test_split(data: Path, pack_all: bool) -> None:
    """Each tenant's lines go to one file of its bucket, in their order; the journal is gone."""
    (data / "tmp" / NAME.journal).write_bytes(journal_bytes())
    whole = splitter(data, pack_all=pack_all)
    assert whole.work() == 0
    assert whole.salvaged == 0
    assert staged(data) == expected()
    assert list((data / "tmp").iterdir()) == []
    modes = {path.stat().st_mode & 0o777 for path in (data / "staging").rglob("*")}
    assert modes == {0o600, 0o700}


class SyncsNoted(Disk):
    """Notes which files and directories were synced, and which of them had been when a name was moved or removed."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.before: dict[str, set[str]] = {}

    def create(self, path: str) -> AppendFile:
        disk = self

        class File(AppendFile):
            def sync(self) -> None:
                super().sync()
                disk.synced.append(self.path)

        with super().create(path) as made:
            return File(path, os.dup(made._descriptor))

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        self.synced.append(path)

    def unlink(self, path: str) -> None:
        self.before[path] = set(self.synced)
        super().unlink(path)

    def remove_directory(self, path: str) -> None:
        self.before[path] = set(self.synced)
        super().remove_directory(path)


def test_many_tenants(data: Path) -> None:
    """All files and their directories are durable when the journal goes; staging is synced once for all of them."""
    tenants = [f"t{n}~prod" for n in range(50)]
    journal = data / "tmp" / NAME.journal
    journal.write_bytes(journal_bytes(lines=[(tenant, b"%d\n" % n) for n, tenant in enumerate(tenants)]))
    disk = SyncsNoted()
    assert splitter(data, disk=disk).work() == 0
    split = data / "tmp" / NAME.split
    buckets = {split / NAME.bucket_of(tenant) for tenant in tenants}
    files = {split / NAME.bucket_of(tenant) / NAME.file_of(tenant) for tenant in tenants}
    assert {str(path) for path in (*buckets, *files, split, data / "tmp")} <= disk.before[str(journal)]
    assert sorted(staged(data).values()) == sorted(b"%d\n" % n for n in range(50))
    assert disk.synced.count(str(data / "staging")) == 1
    assert str(data / "staging") in disk.before[str(split)]


def test_what_is_due(data: Path) -> None:
    """An interval's journals are taken once it is over since the grace, or lies ahead; an open one never."""
    (data / "tmp" / NAME.journal).write_bytes(journal_bytes())
    work = splitter(data).work
    for now in (INTERVAL.start, INTERVAL.end - 1, INTERVAL.end + 4.9):
        work(now, 5)
        assert staged(data) == {}
    with Disk().claimed(str(data / "tmp" / NAME.journal)) as is_ours:
        assert is_ours
        assert work(INTERVAL.end + 5, 5) == 0
        assert work() == 0
        assert staged(data) == {}
    work(INTERVAL.start - 1, 5)
    assert staged(data) == expected()


def test_what_a_worker_left_is_due_at_once(data: Path) -> None:
    """Whatever its interval, once it is not locked any more."""
    (data / "tmp" / NAME.journal).write_bytes(journal_bytes())
    work = splitter(data).work
    work(INTERVAL.start, 5, lambda journal: journal != NAME)
    with Disk().claimed(str(data / "tmp" / NAME.journal)):
        work(INTERVAL.start, 5, NAME.__eq__)
    assert staged(data) == {}
    work(INTERVAL.start, 5, NAME.__eq__)
    assert staged(data) == expected()


class Contended(Courtesy):
    """Thinks that others want the core, always; notes what was done between its sleeps, and sleeps no time."""

    def __init__(self) -> None:
        self.had = self.slept = 0.0
        super().__init__(0.002, self.sleep, lambda: 2 * self.had + self.slept, self.processor)

    def processor(self) -> float:
        self.had += 0.0015
        return self.had

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


class Courteous:
    """Makes those."""

    def __init__(self) -> None:
        self.made: list[Contended] = []

    def __call__(self) -> Courtesy:
        self.made.append(Contended())
        return self.made[-1]


@pytest.mark.parametrize(
    ("now", "courteous"),
    [
        (INTERVAL.end + 5, True),
        (INTERVAL.end + 124.9, True),
        (INTERVAL.end + 125, False),
        (INTERVAL.end + 1e6, False),
        (INTERVAL.start - 1e6, True),
        (None, False),
    ],
)
def test_only_what_is_not_late_lets_others_go_first(data: Path, now: float | None, courteous: bool) -> None:
    """Once the next interval is due as well, and at start and stop, nothing waits for anybody; it splits the same."""
    (data / "tmp" / NAME.journal).write_bytes(journal_bytes())
    makes = Courteous()
    split = Splitter(Disk(), str(data), Stage.TMP, pack_all=True, courtesy=makes)
    assert split.work(now, 5) == 0
    assert [each.slept > 0 for each in makes.made] == ([True] if courteous else [])
    assert staged(data) == expected()


def test_one_late_journal_makes_all_of_them_hasty(data: Path) -> None:
    """They are split one after the other, the late one perhaps last; the next time there is no haste any more."""
    late, due = (JournalName(Interval(start, start + 120), "id", 1, 0, 0) for start in (1_480_000_080, 1_480_000_200))
    makes = Courteous()
    split = Splitter(Disk(), str(data), Stage.TMP, pack_all=False, courtesy=makes)
    for name in (late, due):
        (data / "tmp" / name.journal).write_bytes(journal_bytes(name))
    assert split.work(due.interval.end + 5, 5) == 0
    assert makes.made == []
    (data / "tmp" / due.journal).write_bytes(journal_bytes(due))
    assert split.work(due.interval.end + 5, 5) == 0
    assert len(makes.made) == 1
    assert len(staged(data)) == 4


def test_a_split_under_way_hurries(data: Path) -> None:
    """Who stops waits for it: from then on it sleeps no more, nor do those behind it."""
    other = JournalName(INTERVAL, "id", 1, 0, 1)
    for name in (NAME, other):
        (data / "tmp" / name.journal).write_bytes(journal_bytes(name))
    made: list[Contended] = []

    class Stopped(Contended):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            split.hurry()

    def courtesy() -> Courtesy:
        made.append(Stopped())
        return made[-1]

    split = Splitter(Disk(), str(data), Stage.TMP, pack_all=True, courtesy=courtesy)
    assert split.work(INTERVAL.end + 5, 5) == 0
    assert [each.slept for each in made] == [pytest.approx(3 * 0.003)]
    assert staged(data) == expected() | expected(other)


def test_large_files_are_durable_step_by_step(data: Path) -> None:
    """No more of a file than a step and a member is left for the disk to do at once, and all of it before the end."""
    texts = [random.Random(i).randbytes(300_000).hex().encode() + b"\n" for i in range(8)]
    journal = data / "tmp" / NAME.journal
    journal.write_bytes(journal_bytes(lines=[("acme~prod", text) for text in texts]))
    disk = CrashableDisk(str(data))
    assert splitter(data, disk=disk).work() == 0
    ((path, content),) = staged(data).items()
    assert content == b"".join(texts)
    most, syncs = steps(disk.log, os.path.basename(path))
    assert STEP_BYTES <= most < STEP_BYTES + 400_000
    assert syncs == 3


def test_a_bucket_that_is_there_gets_the_file_added(data: Path) -> None:
    """Two journals of one interval make two files in one bucket."""
    other = JournalName(INTERVAL, "id", 1, 0, 1)
    for name in (NAME, other):
        (data / "tmp" / name.journal).write_bytes(journal_bytes(name))
        splitter(data).work()
    assert staged(data) == expected() | expected(other)


@pytest.mark.parametrize("content", [b"", bytes(5000)])
def test_blank_journals_are_deleted(data: Path, content: bytes) -> None:
    """A file that is empty or all zeros holds nothing, and goes."""
    (data / "tmp" / NAME.journal).write_bytes(content)
    assert splitter(data).work() == 0
    assert [list((data / stage).iterdir()) for stage in Stage] == [[]] * 4


def test_a_torn_end_costs_the_torn_frame_only(data: Path, log_events: list[LogEvent]) -> None:
    """A frame that a crash cut off was not acknowledged: the others come, and nothing is kept besides."""
    (data / "tmp" / NAME.journal).write_bytes(journal_bytes()[:-3])
    torn = splitter(data)
    torn.work()
    assert torn.salvaged == len(staged(data))
    assert list(staged(data).values()) == [b"1\n", b"2\n"] or list(staged(data).values()) == [b"2\n", b"1\n"]
    assert list((data / "recovered").iterdir()) == []
    assert [e["log_level"].name for e in log_events if "splitter" in e["log_namespace"]] == ["info"]


@pytest.mark.parametrize(("damage", "kept"), [(range(2, 9), b"2\n"), (range(10**6), None)])
def test_damage_is_kept_for_a_person(data: Path, damage: range, kept: bytes | None, log_events: list[LogEvent]) -> None:
    """What is whole is delivered; the damaged journal is kept besides, and reported once."""
    content = bytearray(journal_bytes())
    for position in damage[: len(content)]:
        content[position] ^= 0x55
    (data / "tmp" / NAME.journal).write_bytes(content)
    work = splitter(data).work
    assert (work(), work()) == (0, 0)
    assert (data / "recovered" / "unreadable" / NAME.journal).read_bytes() == content
    found = staged(data)
    assert (list(found.values()) == []) if kept is None else (kept in found.values())
    errors = [e for e in log_events if e["log_level"].name == "error"]
    assert len(errors) == 1
    assert (data / "tmp" / NAME.journal).exists() is False


def test_small_members_are_packed(data: Path) -> None:
    """A trickle of single records ends in a file that is not much larger than gzip -6 of its lines makes it."""
    chance = random.Random(1)
    texts = [
        b'{"client_received_start_timestamp":%d,"n":%d}\n' % (1_480_000_000_000 + i, chance.randrange(10**6))
        for i in range(3000)
    ]
    (data / "tmp" / NAME.journal).write_bytes(journal_bytes(lines=[("acme~prod", text) for text in texts]))
    splitter(data).work()
    (path,) = (data / "staging").glob("*/*")
    assert gzip.decompress(path.read_bytes()) == b"".join(texts)
    assert path.stat().st_size <= 1.25 * len(gzip.compress(b"".join(texts), 6))


def test_large_members_are_copied(data: Path) -> None:
    """Members that are large are not packed again, unless everything is."""
    texts = [random.Random(i).randbytes(20_000).hex().encode() + b"\n" for i in range(3)]
    name = NAME.journal
    (data / "tmp" / name).write_bytes(journal_bytes(lines=[("acme~prod", text) for text in texts]))
    splitter(data).work()
    (path,) = (data / "staging").glob("*/*")
    assert path.read_bytes() == b"".join(map(deflate.member, texts))


class Crash(BaseException):
    """The process ends here."""


class CrashingDisk(Disk):
    """A real directory that stops everything at its nth change."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def _step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise Crash

    def create(self, path: str):
        self._step()
        return super().create(path)

    def make_directory(self, path: str) -> None:
        self._step()
        super().make_directory(path)

    def rename(self, source: str, target: str) -> None:
        self._step()
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self._step()
        super().unlink(path)

    def remove_directory(self, path: str) -> None:
        self._step()
        super().remove_directory(path)

    def sync_directory(self, path: str) -> None:
        self._step()
        super().sync_directory(path)


@pytest.mark.parametrize("stage", [Stage.TMP, Stage.RECOVERED])
@pytest.mark.parametrize("second", [None, 1, 4, 9])
def test_crashes_at_every_step(data: Path, stage: Stage, second: int | None) -> None:
    """Broken off anywhere, once or twice, and started again: every line is there once, under one name."""
    name = NAME if stage is Stage.TMP else NAME.found(NOW)
    steps = 0
    finished = False
    while not finished:
        for old in Stage:
            shutil.rmtree(data / old)
            (data / old).mkdir()
        (data / stage / name.journal).write_bytes(journal_bytes(NAME))
        try:
            splitter(data, stage, disk=CrashingDisk(steps)).work()
            finished = True
        except Crash:
            pass
        if second is not None:
            try:
                take_over(CrashingDisk(second), str(data), NOW)
                splitter(data, Stage.RECOVERED, disk=CrashingDisk(second)).work()
            except Crash:
                pass
        take_over(Disk(), str(data), NOW + 1)
        splitter(data, Stage.RECOVERED).work()
        found = staged(data)
        assert sorted(found.values()) == sorted(expected().values()), steps
        assert {path.split("/")[0] for path in found} == set(BUCKETS.values())
        assert list((data / "tmp").iterdir()) == []
        assert list((data / "recovered").iterdir()) == []
        steps += 1
    assert steps > 10


def test_take_over_names(data: Path) -> None:
    """What a crash left is marked with the time it was found, once; foreign things too, and they stay."""
    (data / "tmp" / NAME.journal).write_bytes(journal_bytes())
    (data / "tmp" / "org~env~20161124150800").mkdir()
    (data / "tmp" / "x~recoveredTS~20161124150812.123").mkdir()
    assert take_over(Disk(), str(data), NOW) == 3
    assert take_over(Disk(), str(data), NOW + 9) == 0
    assert sorted(os.listdir(data / "recovered")) == [
        NAME.journal + "~recoveredTS~20161124150812.123",
        "org~env~20161124150800~recoveredTS~20161124150812.123",
        "x~recoveredTS~20161124150812.123",
    ]
    splitter(data, Stage.RECOVERED).work()
    assert staged(data) == expected(NAME.found(NOW))
    assert all("_recovered_20161124150812.123.txt.gz" in path for path in staged(data))


class FullDisk(Disk):
    """A disk that has no room for new files."""

    full = True

    def create(self, path: str):
        if self.full:
            raise OSError(28, "No space left on device")
        return super().create(path)


def test_a_split_that_fails_is_tried_again(data: Path, log_events: list[LogEvent]) -> None:
    """While the disk is full the journal stays, which is logged once; then it is split."""
    (data / "tmp" / NAME.journal).write_bytes(journal_bytes())
    disk = FullDisk()
    split = splitter(data, disk=disk)
    assert (split.work(), split.work()) == (1, 1)
    assert (data / "tmp" / NAME.journal).exists()
    disk.full = False
    assert split.work() == 0
    assert staged(data) == expected()
    assert [e["log_level"].name for e in log_events if "splitter" in e["log_namespace"]] == ["error", "info"]


def test_a_journal_that_shrinks_while_it_is_read(data: Path) -> None:
    """Bytes that were there and are not any more are an error, never a short file."""

    class ShrinkingDisk(Disk):
        def make_directory(self, path: str) -> None:
            os.truncate(data / "tmp" / NAME.journal, 10)
            super().make_directory(path)

    (data / "tmp" / NAME.journal).write_bytes(journal_bytes())
    assert splitter(data, disk=ShrinkingDisk()).work() == 1
    assert staged(data) == {}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_only_has_a_journals_name(data: Path, make: Callable[[str], None], log_events: list[LogEvent]) -> None:
    """A pipe, a directory, a link: put aside with one line, and blocking nothing."""
    other = JournalName(INTERVAL, "id", 0, 0, 0)
    make(str(data / "tmp" / other.journal))
    (data / "tmp" / NAME.journal).write_bytes(journal_bytes())
    assert splitter(data).work() == 0
    assert staged(data) == expected()
    assert list((data / "tmp").iterdir()) == []
    assert os.path.lexists(data / "recovered" / "unreadable" / other.journal)
    assert len([e for e in log_events if e["log_level"].name == "error"]) == 1
